"""Which cells of a study have no runs yet, and which command makes them?"""

from __future__ import annotations

from functools import cache

import pandas as pd

from structlin.config.compose import CONFIG_DIR
from structlin.config.doors import sweep_request
from structlin.config.identity import run_id
from structlin.config.study import expand_study, sizes
from structlin.planning.grid import Cell, plan_sweep
from structlin.runs.row_config import ids_of_now

Missing = tuple[tuple[str, ...], str]
"""A line for every cell without an evaluation, and the sweep that trains them; nothing and nothing where all are."""
NEEDED = {
    ("pixels", "paper"): " data.path=/where/cifar5m",
    **{
        (study, "paper"): " data.path=/where/cifar-10-python.tar.gz"
        for study in ("cifar", "xi", "feature_updates", "rate_landscape")
    },
    **{(study, "paper"): " data.path=/where/imagenet" for study in ("imagenet", "weight_norm")},
}
"""What a user has to add to a study."""


def command(study: str, size: str) -> str:
    """The sweep that makes a study."""
    return f"python sweep.py study={study} study.size={size}{NEEDED.get((study, size), '')}"


def command_lines(study: str, size: str) -> list[str]:
    """The arguments of each command line that a study stands for today."""
    lines, _ = expand_study([f"study={study}", f"study.size={size}"], CONFIG_DIR / "study")
    return [" ".join(line) for line in lines]


@cache
def cells(study: str, size: str) -> tuple[Cell, ...]:
    """All cells of a study; planning takes a second or more."""
    return plan_sweep(sweep_request([f"study={study}", f"study.size={size}", "tracking=journal"])).cells


def last_steps(study: str, size: str) -> dict[str, int]:
    """Run id -> the last step that a study asks of it; of all its runs, those that others start from included."""
    found: dict[str, int] = {}
    for cell in cells(study, size):
        science, step = cell.science, cell.step
        while True:
            identity = run_id(science)
            found[identity] = max(step, found.get(identity, 0))
            if science.start.parent is None:
                break
            science, step = science.start.parent, science.start.step
    return found


def missing_cells(study: str, size: str, runs: pd.DataFrame) -> Missing:
    """What of a study the table has no evaluation of."""
    have = set(zip(ids_of_now(runs), runs["step"].astype(int), strict=True))
    lacking = [cell for cell in cells(study, size) if (run_id(cell.science), cell.step) not in have]
    return tuple(map(_line, lacking)), command(study, size) if lacking else ""


def of_any_size(study: str, runs: pd.DataFrame) -> Missing:
    """The same for runs of unknown size: the one of which they hold the largest share."""
    shares = shares_of(study, runs)
    best = max(shares, key=shares.__getitem__)
    if not shares[best]:
        return (f"none of these runs belong to study={study}",), ""
    return missing_cells(study, best, runs)


def shares_of(study: str, runs: pd.DataFrame) -> dict[str, float]:
    """Size of a study -> the share of its runs that a table has; but for sizes whose runs are known by files alone."""
    have = set(ids_of_now(runs))
    shares = {}
    for size in sizes(CONFIG_DIR / "study", study):
        if (study, size) not in NEEDED:
            wanted = {run_id(cell.science) for cell in cells(study, size)}
            shares[size] = len(wanted & have) / len(wanted)
    return shares


def _line(cell: Cell) -> str:
    science = cell.science
    more = f", rate {science.optim.lr:.3g}" if science.optim.rate_rule != "structure" else ""
    return f"{science.variant} at width {science.model.d_model}, seed {science.seed}{more}, step {cell.step:,}"
