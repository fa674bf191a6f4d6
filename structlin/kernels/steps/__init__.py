"""Whole training steps in C++: what a narrow model's batch does, from its tokens to its next weights."""
