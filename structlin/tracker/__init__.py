"""Weights & Biases as others wrote it: offline files and the service's histories."""
