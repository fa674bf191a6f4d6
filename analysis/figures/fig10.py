"""Does a BTT that knows the heads need less compute? Head-aware layouts against the naive one.

Source: arXiv 2410.02117, figure 10.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.report.curves import frontier_panel, multiplier_panel, runs_said, without_law

from ..published import Published
from ..published import of as published_of

BASELINE = "btt"


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Frontiers, and the compute of the naive layout over that of each head-aware one, beside the published mean."""
    variants = ordered(laws.points.variants)
    others = [variant for variant in variants if variant != laws.baseline]
    multiplier = multiplier_panel(laws, variants, others, "against the naive layout")
    for value in published_of("fig10"):
        multiplier = _overlaid(multiplier, value)
    return Drawing(
        name="fig10",
        title="Head-aware BTT",
        caption=(
            "BTT whose axes (alpha|gamma|epsilon|phi) of q, k, v and o are the number of heads n and the size of a "
            f"head d, in the order of its name, against the naive square factorisation ({runs_said(laws)})."
        ),
        panels=(frontier_panel(laws, variants, "frontiers"), multiplier),
        shared_legend=True,
        missing=without_law(laws, variants),
    )


def _overlaid(panel: Panel, published: Published) -> Panel:
    """The panel with a published ratio as a line; a ratio is the same under every convention of FLOPs."""
    x = np.concatenate([series.x for series in panel.series]) if panel.series else np.array([1.0])
    ends = np.array([x.min(), x.max()])
    line = Series(f"published: {published.note}", "published", ends, np.full(2, published.value), "dashed", "#555555")
    return replace(panel, series=(*panel.series, line))
