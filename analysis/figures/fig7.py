"""How much compute does each kind of mixture save? Bars of mean multipliers with intervals.

Source: arXiv 2410.02117, figure 7.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.names import experts_of, mixture_of
from structlin.drawing.style import COLOURS, ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.multiplier import MEANS
from structlin.laws.report.curves import called, runs_said


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """One group of bars a kind of mixture, one bar a number of experts."""
    found = {v: laws.multipliers[v] for v in ordered(laws.multipliers) if experts_of(v)}
    kinds = list(dict.fromkeys(mixture_of(variant, laws.points.variants) for variant in found))
    counts = sorted({experts_of(variant) for variant in found})
    series = []
    for place, experts in enumerate(counts):
        chosen = {mixture_of(v, laws.points.variants): m for v, m in found.items() if experts_of(v) == experts}
        offset = 0.4 * (place - (len(counts) - 1) / 2)
        x = np.array([kinds.index(kind) + offset for kind in chosen], dtype=float)
        values = [(m.mean, m.mean_interval.low, m.mean_interval.high) for m in chosen.values()]
        mean, low, high = np.array(values, dtype=float).reshape(-1, 3).T
        colour = COLOURS[2 + place % 6]
        series.append(Series(f"{experts} experts", f"{experts} experts", x, mean, "bars", colour, "o", low, high))
    base = called(laws)
    panel = Panel(
        "mean multiplier", "", f"compute multiplier against {base}", tuple(series),
        x_log=False, y_log=False, level=1.0, names=tuple(kinds),
    )  # fmt: skip
    return Drawing(
        name="fig7",
        title="Compute multipliers of mixtures",
        caption=(
            f"Mean compute multiplier of each mixture against {base}, {MEANS[laws.choices.procedure]}, with "
            f"{100 * laws.choices.confidence:.0f}% intervals by resampling runs ({runs_said(laws)}). "
            f"FLOPs: {laws.points.choices['flops']}."
        ),
        panels=(panel,),
        wide=len(kinds) > 4,
        missing=tuple(
            f"{called(laws, v)}: no multiplier" for v in laws.points.variants if experts_of(v) and v not in found
        ),
    )
