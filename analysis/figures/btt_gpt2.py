"""GPT-2 with block tensor trains of rank 4 everywhere against dense (arXiv 2406.06248, figure of GPT-2)."""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing

from .head import panels_of, with_body
from .lines import ends

STUDY = "btt_gpt2"
LAWS = False


def draw(runs: pd.DataFrame) -> Drawing:
    """Loss at the end over compute, with the head and without."""
    last = with_body(ends(runs))
    return Drawing(
        name="btt-gpt2",
        title="GPT-2 with block tensor trains everywhere",
        caption=(
            f"Last evaluation of {last['run_id'].nunique()} runs on data={last['data'].iloc[0]} in byte-pair tokens: "
            "block tensor trains of rank 4 in every linear, the head too, under caps with learned scales, and dense."
        ),
        panels=tuple(panels_of(last)),
        columns=2,
        shared_legend=True,
    )
