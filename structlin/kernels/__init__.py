"""Fused products by operation: structured layers, mixtures of experts, attention; and what serves where."""
