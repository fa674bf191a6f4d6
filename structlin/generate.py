"""``python -m structlin.generate run=ID prompt=...``: what a model has learned, to be read (command/generate.py)."""

from structlin.command.generate import main
from structlin.errors import door

if __name__ == "__main__":
    door(main)
