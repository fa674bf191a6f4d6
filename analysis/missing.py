"""Which cells of a figure's study have no runs yet, and which command makes them?"""

from __future__ import annotations

import pandas as pd

from structlin.config.compose import sweep_request
from structlin.config.identity import run_id
from structlin.planning.grid import Cell, plan_sweep


def missing_cells(study: str | None, runs: pd.DataFrame) -> tuple[tuple[str, ...], str]:
    """(a line per cell of the study without an evaluation in the table, the sweep that trains them).

    The size of the study is the one that the table has most runs of; nothing is missing of a figure without a study.
    """
    if study is None:
        return (), ""
    have = set(zip(runs["run_id"].astype(str), runs["step"].astype(int), strict=True))
    best: tuple[tuple[str, ...], str] = ((), "")
    most = 0
    for size in ("small", "paper"):
        cells = plan_sweep(sweep_request([f"study={study}", f"study.size={size}"])).cells
        lacking = [cell for cell in cells if (run_id(cell.science), cell.step) not in have]
        found = len(cells) - len(lacking)
        if found > most:
            most = found
            command = f"python sweep.py study={study} study.size={size}" if lacking else ""
            best = (tuple(_line(cell) for cell in lacking), command)
    return best


def _line(cell: Cell) -> str:
    science = cell.science
    return f"{science.variant} at width {science.model.d_model}, seed {science.seed}, step {cell.step:,}"
