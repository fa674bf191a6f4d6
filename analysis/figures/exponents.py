"""Does the slope of the frontier follow (omega, psi, nu)? Exponent of every structure against each of the three."""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import colour_of, marker_of, ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.report.curves import called, runs_said, without_law

from .thetas import places_of

AXES = {
    "omega": ("over ω", "ω: FLOPs per parameter\ngrow as d^ω"),
    "psi": ("over ψ", "ψ: rank grows as d^ψ"),
    "nu": ("over ν", "ν: FLOPs grow as d^(1+ν)"),
}


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Exponent a of L = E + A C^-a, corrected, with its interval, against each taxonomy exponent."""
    places, variants = places_of(runs), [v for v in ordered(laws.points.variants) if v in laws.frontiers]
    panels = []
    for attribute, (title, label) in AXES.items():
        series = tuple(_point(laws, v, float(getattr(places[v], attribute)), variants) for v in variants)
        panels.append(Panel(title, label, "frontier exponent a", series, x_log=False, y_log=False, spread=0.016))
    return Drawing(
        name="exponents",
        title="Frontier exponent against the taxonomy",
        caption=(
            "Exponent a of the frontier law E + A C^-a of each structure, corrected for the gaps between its sizes and "
            "for lucky runs where that is believed (docs/laws.md), with its "
            f"{100 * laws.choices.confidence:.0f}% interval, on task={runs['task'].iloc[0]} ({runs_said(laws)}), "
            "against omega, psi and nu as written in theta."
        ),
        panels=tuple(panels),
        shared_legend=True,
        shared_y=True,
        missing=without_law(laws, laws.points.variants),
    )


def _point(laws: Laws, variant: str, x: float, variants: list[str]) -> Series:
    interval = laws.frontier_intervals(variant)["a"]
    value = (laws.corrected(variant) or {"a": laws.frontiers[variant].a})["a"]
    # One run gives no interval; the corrected value may lie at an end of it, never outside by more than rounding.
    low, high = (end if np.isfinite(end) else value for end in (interval.low, interval.high))
    ends = [np.array([number]) for number in (x, value, min(low, value), max(high, value))]
    own = (colour_of(variants, variant), marker_of(variants, variant))
    return Series(called(laws, variant), variant, ends[0], ends[1], "points", *own, ends[2], ends[3])
