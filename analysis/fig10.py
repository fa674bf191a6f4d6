"""Does a BTT that knows the heads need less compute? Head-aware layouts against the naive one.

Source: arXiv 2410.02117, figure 10.
"""

from __future__ import annotations

import pandas as pd

from analysis.curves import frontier_panel, multiplier_panel, without_law
from analysis.drawing import Drawing
from structlin.laws.fit import Laws

STUDY = "fig10"
BASELINE = "btt"


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Frontiers, and the compute of the naive layout over that of each head-aware one."""
    variants = laws.points.variants
    names = {variant: variant.replace("btt@", "head-aware ").replace("btt", "naive") for variant in variants}
    others = [variant for variant in variants if variant != laws.baseline]
    return Drawing(
        name="fig10",
        title="Head-aware BTT",
        caption=(
            "BTT whose axes (alpha|gamma|epsilon|phi) of q, k, v and o are the number of heads n and the size of a "
            f"head d, against the naive square factorisation ({laws.points.choices['runs']} runs)."
        ),
        panels=(
            frontier_panel(laws, variants, "frontiers", names=names),
            multiplier_panel(laws, others, "against the naive layout", names),
        ),
        missing=without_law(laws, variants),
    )
