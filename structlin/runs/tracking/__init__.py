"""Runs mirrored to Weights & Biases, completed afterwards, and read back."""
