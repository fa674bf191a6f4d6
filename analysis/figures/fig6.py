"""Is a mixture of structured experts better than the standard one? Frontiers and multipliers of dense and mixtures.

Source: arXiv 2410.02117, figure 6.
"""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.names import experts_of
from structlin.drawing.style import ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.report.curves import frontier_panel, multiplier_panel, runs_said, without_law


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Frontiers of all variants, and multipliers against dense for each number of experts."""
    variants = ordered(laws.points.variants)
    panels: list[Panel] = [frontier_panel(laws, variants, "frontiers")]
    counts = sorted({experts_of(variant) for variant in variants} - {0})
    for experts in counts:
        chosen = [v for v in variants if experts_of(v) in (0, experts) and v != laws.baseline]
        panels.append(multiplier_panel(laws, variants, chosen, f"multiplier, {experts} experts"))
    return Drawing(
        name="fig6",
        title="Mixtures of experts: BTT-MoE and standard MoE",
        caption=(
            f"Left: frontiers of {len(variants)} variants ({runs_said(laws)}); in parentheses the number of experts, "
            "two of which a token takes. Then the compute that dense layers need over what a variant needs for the "
            f"same loss, with {100 * laws.choices.confidence:.0f}% bands over resampled runs."
        ),
        panels=tuple(panels),
        shared_legend=True,
        missing=without_law(laws, variants),
    )
