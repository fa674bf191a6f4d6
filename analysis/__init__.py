"""The figures of arXiv 2410.02117, 2406.06248 and 2406.16450 from tables of runs: ``python -m analysis.make``. One module a figure."""
