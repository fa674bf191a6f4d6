"""Which structure does a search choose, and what did each rung foretell?

Of a store it is the last search there, by its record; without one the search that is kept (python -m analysis.keep
search=NAME), and where none is, one replayed on the kept runs of fig4: the target is their top, the last rung a third.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from structlin.drawing.drawing import Drawing
from structlin.drawing.names import short
from structlin.errors import UserError
from structlin.search import pages
from structlin.search.arms import AXES
from structlin.search.replay import everything_of, of_table, record, replayed

ETA, RUNGS, LEVEL = 3.0, 3, 0.01
KEPT = Path(__file__).parents[1] / "data" / "search.json"


def draw(runs: pd.DataFrame) -> Drawing:
    """The kept search where there is one, else the replay."""
    if KEPT.exists():
        return pages.drawing(json.loads(KEPT.read_text(encoding="utf-8"))["search"])
    measured, variants = of_table(runs)
    found = replayed(measured, ETA, RUNGS, LEVEL)
    places = runs.groupby("variant")[list(AXES)].mean().loc[variants]
    named = [short(name, variants) for name in variants]
    whole = everything_of(measured, found.steps.top)
    drawing = pages.drawing(record(found, named, [tuple(row) for row in places.to_numpy(float)], whole))
    said = (
        f"A search replayed on kept runs of task={runs['task'].iloc[0]} that are all there: it chose the arm of rank "
        f"{found.rank} of {len(found.truth)} at its target, regret {100 * found.regret:.2f}%. "
    )
    return replace(drawing, title="Search over structures, replayed", caption=said + drawing.caption)


def of_store(runs: Path) -> Drawing:
    """The last search of a store. UserError where it has none."""
    records = sorted((runs / "searches").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not records:
        raise UserError(f"runs={runs} holds no search; make one: python sweep.py grid=search target=1e18 budget=3e17")
    return pages.drawing(json.loads(records[-1].read_text(encoding="utf-8")))
