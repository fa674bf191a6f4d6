"""Which runs are kept in the repository? One parquet table a study below analysis/data/, each with its provenance.

analysis/data/NAME.parquet   the table of runs.table: one row an evaluation
analysis/data/NAME.json      the command that made it, machine, versions, commit, number of runs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError
from structlin.laws import source, wandb_source
from structlin.laws.choices import Choices
from structlin.runs import table as store

FOLDER = Path(__file__).parent / "data"


def load(study: str | None) -> pd.DataFrame | None:
    """The kept table of a study, or None where none is kept."""
    path = FOLDER / f"{study}.parquet"
    return pd.read_parquet(path) if path.exists() else None


def provenance(study: str) -> dict[str, Any]:
    """Where the kept table of a study comes from."""
    content: dict[str, Any] = json.loads((FOLDER / f"{study}.json").read_text())
    return content


def own_runs(choices: Choices) -> pd.DataFrame:
    """The table that a command line names. UserError where it has no runs or lacks what figures need."""
    if choices.source == "runs":
        return store.load(Path(choices.runs))
    if choices.source == "table":
        frame = source.read_file(Path(choices.table))
    elif choices.source == "wandb":
        frame = wandb_source.fetch(choices.project, Path(choices.cache))
    else:
        frame = wandb_source.offline(Path(choices.dir))
    lacking = {"variant", "theta", "task", "run_id", "step", "val_loss"} - set(frame.columns)
    if lacking:
        raise UserError(
            f"figures read the table of this project's runs, and this one lacks {', '.join(sorted(lacking))}; "
            "export one by python -m structlin.runs.table, or use fit_laws.py for other people's tables"
        )
    return frame
