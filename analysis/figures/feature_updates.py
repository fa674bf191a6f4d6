"""Do features move as much at every width? RMS change of the features after a few steps, by rate rule.

Source: arXiv 2406.06248 (Compute Better Spent), the figure of feature updates. The numbers are measured by
``python -m bench.coordinate_check`` and kept in analysis/data/coordinate-check.csv.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.names import readable
from structlin.drawing.style import colour_of, marker_of, ordered
from structlin.errors import UserError
from structlin.laws.approaches.laws import Laws

from .learning_rates import RULES

FILE = Path(__file__).resolve().parents[1] / "data" / "coordinate-check.csv"
COMMAND = "python -m bench.coordinate_check out=analysis/data/coordinate-check"


def table() -> pd.DataFrame:
    """structure, rule, width, seed, update_rms. UserError where nothing was measured."""
    if not FILE.exists():
        raise UserError(f"no feature updates at {FILE}; measure them: {COMMAND}")
    return pd.read_csv(FILE)


def draw(runs: pd.DataFrame, laws: Laws | None = None) -> Drawing:
    """One panel a rule: mean over seeds of the feature update, over the width, and its slope."""
    structures = ordered(runs["structure"].unique())
    panels = []
    for rule in [rule for rule in RULES if rule in set(runs["rule"])]:
        chosen = runs[runs["rule"] == rule]
        series = tuple(_curve(chosen[chosen["structure"] == name], name, structures) for name in structures)
        widths = tuple(float(width) for width in sorted(chosen["width"].unique()))
        panels.append(Panel(f"{RULES[rule]} rates", "width d_model", "RMS feature update", series, ticks=widths))
    return Drawing(
        name="feature-updates",
        title="Feature updates over the width",
        caption=(
            "RMS change of the outputs of the linear layers (geometric mean over the layers but the head) on a fixed "
            f"batch after 16 steps, GPT-2 of two layers at base width 64; mean and range of {runs['seed'].nunique()} "
            "seeds. Under the structure-aware rule it is to stay level as the width grows. Slopes of the logarithms: "
            f"{'; '.join(_slopes(runs, name) for name in structures)}."
        ),
        panels=tuple(panels),
        shared_legend=True,
        shared_y=True,
    )


def slope(runs: pd.DataFrame, structure: str, rule: str) -> float:
    """Exponent of width: least squares of log update on log width."""
    part = runs[(runs["structure"] == structure) & (runs["rule"] == rule)]
    return float(np.polyfit(np.log(part["width"].to_numpy(float)), np.log(part["update_rms"].to_numpy(float)), 1)[0])


def _slopes(runs: pd.DataFrame, name: str) -> str:
    return f"{readable(name)} {slope(runs, name, 'structure'):+.2f}, naive {slope(runs, name, 'naive'):+.2f}"


def _curve(part: pd.DataFrame, name: str, structures: list[str]) -> Series:
    found = part.groupby("width")["update_rms"].agg(["mean", "min", "max"]).sort_index()
    x, mean, low, high = (np.asarray(values, dtype=float) for values in (found.index, *found.to_numpy().T))
    own = (colour_of(structures, name), marker_of(structures, name))
    return Series(readable(name), name, x, mean, "joined", *own, low, high)
