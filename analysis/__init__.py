"""The figures of arXiv 2410.02117 from tables of runs: ``python -m analysis.make``. One module a figure."""
