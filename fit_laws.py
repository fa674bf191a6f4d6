"""Fit laws to runs, or to anybody's table: what ``structlin fit`` does.

python fit_laws.py
"""

from structlin.command.fit import main
from structlin.errors import door

if __name__ == "__main__":
    door(main)
