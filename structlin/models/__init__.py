"""Models: their anatomy and ledger in plain Python (anatomy, ledger), and the modules themselves in torch (gpt2)."""
