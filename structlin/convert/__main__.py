"""``python -m structlin.convert ranks run=ID params=0.5 rule=lagrange|welore``: see structlin/command/convert.py."""

from structlin.command.convert import main
from structlin.errors import door

if __name__ == "__main__":
    door(main)
