"""What is checked on a GPU, part by part; bench/gpu_check.py runs it."""
