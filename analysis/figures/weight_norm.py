"""Are caps on the RMS of factors worth having (arXiv 2406.06248, weight normalisation)? Error over the base rate."""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.style import COLOURS, MARKERS, ordered

from .learning_rates import diverged
from .lines import curve, ends, family

STUDY = "weight_norm"
LAWS = False
CAPS = {"none": "no caps", "fixed": "fixed caps", "learned": "caps with learned scales"}
METRICS = {
    "val_loss": "validation loss, nats",
    "val_error": "validation error",
    "feature_update": "RMS feature update",
}


def draw(runs: pd.DataFrame) -> Drawing:
    """A row a structure: loss, error and feature update at the end over the base rate, a line a cap."""
    last = ends(runs).assign(family=lambda t: t["structure"].astype(str).map(family))
    panels = []
    for name in ordered(last["family"].unique()):
        part = last[last["family"] == name]
        for metric, label in METRICS.items():
            lines = [
                curve(part[part["config.model.weight_norm"] == cap], "learning_rate", metric, words, cap, look)
                for (cap, words), look in zip(CAPS.items(), zip(COLOURS, MARKERS, strict=False), strict=False)
            ]
            drawn = tuple(line for line in lines if line is not None)
            panels.append(Panel(f"{name}: {label.split(',')[0]}", "base learning rate lr0", label, drawn))
    widths = ", ".join(f"{width:,}" for width in sorted(last["d_model"].unique()))
    return Drawing(
        name="weight-norm",
        title="Caps on the RMS of factors, on images",
        caption=(
            f"Last evaluation of {last['run_id'].nunique()} ViTs of width {widths} on data={last['data'].iloc[0]}, "
            f"mean and range of {last['seed'].nunique()} seeds, over the base rate: without caps, under caps on the "
            "RMS of every factor at what it starts with, and under caps times a learned scale. "
            f"{diverged(runs)} runs diverged, and are left out. Feature update: RMS change since the start of what the "
            "head reads."
        ),
        panels=tuple(panels),
        columns=3,
        shared_legend=True,
    )
