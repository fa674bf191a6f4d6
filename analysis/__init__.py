"""The figures of three papers from tables of runs: ``python -m analysis.make``. One module a figure."""
