"""The record of runs: the store (folders), the journal (metrics.jsonl), the table (pandas), the W&B mirror."""
