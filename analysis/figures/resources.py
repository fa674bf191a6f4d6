"""Is a structure still better by the clock, by its parameters, by its memory, in decoding? Five multipliers."""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import colour_of, marker_of, ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.multiplier import Multiplier
from structlin.laws.checks.resources import RESOURCES, UNITS, multipliers_of
from structlin.laws.report.curves import called, compute_label, runs_said, without_law


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """One panel a resource: multiplier against the baseline's own spending."""
    variants = ordered(laws.points.variants)
    base = called(laws)
    panels, missing = [], list(without_law(laws, variants))
    for column, name in RESOURCES.items():
        found = laws.multipliers if column == "C" else multipliers_of(laws, column)
        if not found:
            way = "; structlin speeds measures it" if column == "decode" and "decode" not in laws.points.frame else ""
            missing.append(f"by {name}: not known for these runs, or too few points{way}")
        series = tuple(_curve(laws, found[v], v, variants) for v in ordered(found))
        unit = compute_label(laws) if column == "C" else UNITS[column]
        panels.append(Panel(f"by {name}", f"{base}: {unit}", f"multiplier against {base}", series, level=1.0))
    return Drawing(
        name="resources",
        title="Multipliers in five resources",
        caption=(
            f"What {base} needs over what a structure needs for the same loss, by training FLOPs, by seconds of one "
            "worker on the machine of training, by parameters, by the bytes of training (16 a parameter, and the "
            "activations that a step keeps), and by milliseconds a token of decoding one text, on "
            f"task={runs['task'].iloc[0]} ({runs_said(laws)}). The last three do not grow along a run: their frontier "
            "is the best loss that each size reached here."
        ),
        panels=tuple(panels),
        columns=2,
        shared_legend=True,
        missing=tuple(missing),
    )


def _curve(laws: Laws, found: Multiplier, variant: str, variants: list[str]) -> Series:
    look = (colour_of(variants, variant), marker_of(variants, variant))
    return Series(called(laws, variant), variant, found.flops, found.value, "band", *look, found.low, found.high)
