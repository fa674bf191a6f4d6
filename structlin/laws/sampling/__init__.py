"""Resampling of runs and the intervals made of it."""
