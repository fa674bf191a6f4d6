"""Train one run: what ``structlin train`` does.

python train.py structure=btt model.d_model=512 tokens=1e7
"""

from structlin.command.train import main
from structlin.errors import door

if __name__ == "__main__":
    door(main)
