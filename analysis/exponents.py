"""Does the slope of the frontier follow (omega, psi, nu)? Exponent of every structure against each of the three."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.curves import without_law
from analysis.drawing import Drawing, Panel, Series
from analysis.style import colour_of, marker_of
from analysis.thetas import places_of
from structlin.laws.fit import Laws

STUDY = "regression"
AXES = (
    ("omega", "ω: FLOPs per parameter grow as d^ω"),
    ("psi", "ψ: rank grows as d^ψ"),
    ("nu", "ν: FLOPs grow as d^(1+ν)"),
)


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Exponent a of L = E + A C^-a with its interval, against each taxonomy exponent."""
    places, variants = places_of(runs), [v for v in laws.points.variants if v in laws.frontiers]
    panels = []
    for attribute, label in AXES:
        series = []
        for variant in variants:
            interval = laws.frontier_intervals(variant)["a"]
            x = np.array([float(getattr(places[variant], attribute))])
            y, low, high = (np.array([value]) for value in (laws.frontiers[variant].a, interval.low, interval.high))
            own = (colour_of(variants, variant), marker_of(variants, variant))
            series.append(Series(variant, variant, x, y, "points", own[0], own[1], low, high))
        panels.append(Panel(label.split(":")[0], label, "frontier exponent a", tuple(series), x_log=False, y_log=False))
    return Drawing(
        name="exponents",
        title="Frontier exponent against the taxonomy",
        caption=(
            f"Exponent a of the frontier law E + A C^-a of each structure with its "
            f"{100 * laws.choices.confidence:.0f}% interval ({laws.points.choices['runs']} runs), "
            "against omega, psi and nu as written in theta."
        ),
        panels=tuple(panels),
        missing=without_law(laws, laws.points.variants),
    )
