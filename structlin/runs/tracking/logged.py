"""What do the copies at W&B say? The same table as that of a store, from runs as they were mirrored (mirror.py).

A copy holds the whole config, and which machine trained it, so every column is derived as from the run's own folder.
Some cannot be: tokens_per_second and decode_ms (measurements stay in the store), and a status finer than W&B's own,
which calls a run finished that was interrupted in good order.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from structlin.config.identity import science_from
from structlin.errors import UserError
from structlin.runs.columns import Measured
from structlin.runs.measures import MORE
from structlin.runs.speeds import DECODE_COLUMNS
from structlin.runs.table import table_of
from structlin.runs.tracking.payload import ABOUT
from structlin.tracker.history import Logged

STATES = {"finished": "done", "running": "running"}


def table(runs: Sequence[Logged]) -> pd.DataFrame:
    """The table of runs read from W&B; those of others are passed over with one line each on stderr."""
    # A service lists runs as it pleases, and the first run with a setting says where its column stands.
    unknown = dict.fromkeys(DECODE_COLUMNS, float("nan"))
    in_order = sorted(runs, key=lambda run: run.run)
    return table_of(in_order, _measured, lambda machine, science: None, lambda machine, science: unknown)


def _measured(run: Logged) -> Measured:
    config = dict(run.config)
    origin = config.pop("provenance", {})
    for key in ABOUT:
        config.pop(key, None)
    if "schema" not in config:
        raise UserError(f"W&B's run {run.run} ({run.name}) is none of this project's: its config has no schema")
    try:
        science = science_from(config)
    except UserError as error:
        raise UserError(f"W&B's run {run.run} ({run.name}): {error}") from None
    diverged = any("divergence/step" in row for row in run.rows)
    status = "diverged" if diverged else STATES.get(run.state, "interrupted")
    found = {int(row["eval/step"]): row for row in run.rows if _is_evaluation(row)}
    evaluations = [
        {"step": step, "val_loss": float(row["eval/val_loss"]), **{name: row.get(f"eval/{name}") for name in MORE}}
        for step, row in sorted(found.items())
    ]
    return Measured(run.run, science, status, origin, evaluations)


def _is_evaluation(row: dict[str, object]) -> bool:
    """Whether a row holds a finite loss: what is not finite is not sent."""
    return isinstance(row.get("eval/val_loss"), int | float) and isinstance(row.get("eval/step"), int | float)
