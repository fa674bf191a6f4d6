"""GPT-2 with block tensor trains of rank 4 everywhere against dense (arXiv 2406.06248, figure of GPT-2)."""

from __future__ import annotations

import math

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.names import readable
from structlin.drawing.style import colour_of, marker_of, ordered

from .lines import curve, ends

STUDY = "btt_gpt2"
LAWS = False


def draw(runs: pd.DataFrame) -> Drawing:
    """A panel a budget: loss at the end over parameters."""
    last = ends(runs)
    return Drawing(
        name="btt-gpt2",
        title="GPT-2 with block tensor trains everywhere",
        caption=(
            f"Last evaluation of {last['run_id'].nunique()} runs on data={last['data'].iloc[0]} in byte pairs, mean "
            "and range over seeds: block tensor trains of rank 4 in every linear, the head too, under caps with "
            "learned scales, and dense."
        ),
        panels=tuple(_panels(last)),
        columns=2,
        shared_legend=True,
    )


def _panels(last: pd.DataFrame) -> list[Panel]:
    variants = ordered(last["variant"].unique())
    panels = []
    # Runs of one budget differ in their FLOPs by a step.
    budgets = last["training_flops"].astype(float).map(math.log10).round(1)
    for budget in sorted(budgets.unique()):
        part = last[budgets == budget]
        series = [
            curve(part[part["variant"] == v], "params_total", "val_loss", readable(v, variants), v,
                  (colour_of(variants, v), marker_of(variants, v)))
            for v in variants
        ]  # fmt: skip
        drawn = tuple(one for one in series if one is not None)
        title = f"{10**budget:.0e} training FLOPs".replace("e+", "e")
        panels.append(Panel(title, "parameters", "validation loss, nats per token", drawn))
    return panels
