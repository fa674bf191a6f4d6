"""Train a grid of (width, tokens) for structures and budgets: what ``structlin sweep`` does.

python sweep.py structure=dense,btt budget=1e15,1e16
"""

from structlin.command.sweep import main
from structlin.errors import door

if __name__ == "__main__":
    door(main)
