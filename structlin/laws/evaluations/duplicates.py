"""Which rows of a table stand there twice, and what becomes of them?"""

from __future__ import annotations

import pandas as pd

from structlin.errors import UserError
from structlin.laws.caution import Caution
from structlin.laws.choices import Choices
from structlin.laws.evaluations.quantities import first


def without_duplicates(frame: pd.DataFrame, choices: Choices) -> tuple[pd.DataFrame, list[Caution]]:
    """Refuse, drop or keep rows that stand twice. Rows without a run name are only warned about."""
    named = not frame["run"].astype(str).str.startswith("row ").all()
    keys = ["run", "D"] if named and "D" in frame else ["variant", *[c for c in "NDCL" if c in frame]]
    twice = frame.duplicated(keys)
    if not twice.any() or choices.duplicates == "keep":
        return frame, []
    row = int(frame.index[first(twice)])
    twin = frame.index[(frame[keys] == frame.loc[row, keys]).all(axis=1)][0]
    text = f"row {row + 1} repeats row {int(twin) + 1} in {', '.join(keys)} ({int(twice.sum())} such rows)"
    if choices.duplicates == "drop":
        return frame[~twice], [Caution("duplicate_rows", text + "; dropped, as asked")]
    if named:
        raise UserError(f"{text}; duplicates=drop keeps the first, duplicates=keep counts all")
    said = "; kept: without run names they may be two runs; duplicates=drop drops"
    return frame, [Caution("duplicate_rows", text + said)]
