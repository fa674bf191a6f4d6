"""The three approaches to a law, the compute multiplier, and the fit that joins them."""
