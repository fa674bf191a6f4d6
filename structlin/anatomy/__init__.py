"""What is a model made of, and what does it cost? Plain Python, no torch: shapes, kinds, the ledger."""
