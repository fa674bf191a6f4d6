"""Causal attention in one kernel on CPUs."""
