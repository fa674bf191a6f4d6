"""Is a structure still better by the clock, by its parameters, by its memory? Multipliers in four resources."""

from __future__ import annotations

import pandas as pd

from analysis.curves import without_law
from analysis.drawing import Drawing, Panel, Series
from analysis.style import colour_of
from structlin.laws.fit import Laws
from structlin.laws.resources import RESOURCES, UNITS, multipliers_of

STUDY = "fig4"


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """One panel a resource: multiplier against the baseline's own spending."""
    variants = laws.points.variants
    panels, missing = [], list(without_law(laws, variants))
    for column, name in RESOURCES.items():
        found = multipliers_of(laws, column)
        if not found:
            missing.append(f"by {name}: not known for these runs, or too few points")
        series = tuple(
            Series(v, v, m.flops, m.value, "band", colour_of(variants, v), "o", m.low, m.high) for v, m in found.items()
        )
        label = f"{laws.baseline}: {UNITS[column]}"
        panels.append(Panel(f"by {name}", label, f"multiplier against {laws.baseline}", series, y_log=False, level=1.0))
    return Drawing(
        name="resources",
        title="Multipliers in four resources",
        caption=(
            f"What {laws.baseline} needs over what a structure needs for the same loss, by training FLOPs, seconds of "
            "one worker alone on the machine of training, parameters, and bytes of weights and activations. Parameters "
            "and memory do not grow along a run: their frontier is the best loss that each size reached here."
        ),
        panels=tuple(panels),
        columns=2,
        missing=tuple(missing),
    )
