"""How much compute does each kind of mixture save? Bars of mean multipliers with intervals.

Source: arXiv 2410.02117, figure 7.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.drawing import Drawing, Panel, Series
from analysis.fig6 import experts_of, numbers_of_experts, readable
from analysis.style import COLOURS
from structlin.laws.fit import Laws

STUDY = "fig7"


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """One group of bars a kind of mixture, one bar a number of experts."""
    found = {v: m for v, m in laws.multipliers.items() if experts_of(v)}
    kinds = list(dict.fromkeys(_kind(variant) for variant in found))
    counts = numbers_of_experts(list(found))
    series = []
    for place, experts in enumerate(counts):
        chosen = {_kind(v): m for v, m in found.items() if experts_of(v) == experts}
        offset = 0.4 * (place - (len(counts) - 1) / 2)
        x = np.array([kinds.index(kind) + offset for kind in chosen], dtype=float)
        values = [(m.mean, m.mean_interval.low, m.mean_interval.high) for m in chosen.values()]
        mean, low, high = np.array(values, dtype=float).reshape(-1, 3).T
        series.append(Series(f"{experts} experts", "moe", x, mean, "bars", COLOURS[2 + place], "o", low, high))
    panel = Panel(
        "mean compute multiplier", "", f"compute multiplier against {laws.baseline}", tuple(series),
        x_log=False, y_log=False, level=1.0, names=tuple(kinds),
    )  # fmt: skip
    return Drawing(
        name="fig7",
        title="Compute multipliers of mixtures",
        caption=(
            f"Mean over the frontier observations of each mixture of its compute multiplier against {laws.baseline}, "
            f"with {100 * laws.choices.confidence:.0f}% intervals by resampling runs "
            f"({laws.points.choices['runs']} runs)."
        ),
        panels=(panel,),
        missing=tuple(f"{v}: no multiplier" for v in laws.points.variants if experts_of(v) and v not in found),
    )


def _kind(variant: str) -> str:
    return readable(variant).replace(f" ({experts_of(variant)})", "").replace(f" ({experts_of(variant)}, ", " (")
