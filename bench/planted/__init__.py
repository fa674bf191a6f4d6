"""What the fitter makes of sweeps drawn from laws that are known; bench/laws.py runs it."""
