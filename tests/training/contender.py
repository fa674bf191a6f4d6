"""A process that trains one tiny run when it is told to: several of them contend for its folder.

    python -m tests.training.contender RUNS DATA_ROOT TARGET CHECKPOINT_SECONDS

It says ``ready``, waits for a line, trains, and says how that ended.
"""

import sys
from dataclasses import replace
from pathlib import Path

from tests.tiny import PLACEMENT, tiny, train


def main(runs: str, data_root: str, target: str, checkpoint_seconds: str) -> None:
    placement = replace(PLACEMENT, checkpoint_seconds=float(checkpoint_seconds))
    print("ready", flush=True)
    sys.stdin.readline()
    state, _ = train(tiny(), (10, int(target)), Path(runs), Path(data_root), placement=placement)
    print(state, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
