"""Steps on tensors of device "cuda" that hold nothing, counted; bench/fake_cuda.py makes the table."""
