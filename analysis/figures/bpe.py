"""Does it hold on byte-pair tokens? GPT-2 on OpenWebText in 50,304 tokens, each run decayed to a tenth of its rate.

Source: arXiv 2410.02117, the replication on the original OpenWebText.
"""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing
from structlin.drawing.style import ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.report.curves import frontier_panel, multiplier_panel, runs_said, without_law


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Frontiers of the ends of the runs, and multipliers against dense."""
    variants = ordered(laws.points.variants)
    others = [variant for variant in variants if variant != laws.baseline]
    return Drawing(
        name="bpe",
        title="GPT-2 on byte-pair tokens",
        caption=(
            f"Ends of cosine runs on data={runs['data'].iloc[0]} in {runs['tokenizer'].iloc[0]} tokens "
            f"({runs_said(laws)}), fitted laws dashed, and the compute that dense layers need over what a structure "
            f"needs for the same loss, with {100 * laws.choices.confidence:.0f}% bands over resampled runs."
        ),
        panels=(frontier_panel(laws, variants, "frontiers"), multiplier_panel(laws, variants, others, "multipliers")),
        shared_legend=True,
        missing=without_law(laws, variants),
    )
