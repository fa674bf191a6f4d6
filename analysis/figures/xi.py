"""What do error and memory do at given compute per dimension? Ranks and blocks of families (arXiv 2406.06248)."""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.style import MARKERS, colour_of, ordered

from .lines import curve, ends, family

STUDY = "xi"
LAWS = False
XI = "compute per dimension xi, MACs"
BYTES = "bytes of training: 16 a parameter, and activations"


def draw(runs: pd.DataFrame) -> Drawing:
    """Error over xi, memory over xi, error over memory and over compute: a line a family and width."""
    last = ends(runs).assign(
        family=lambda t: t["structure"].astype(str).map(family),
        memory=lambda t: 4.0 * t["weight_bytes"].astype(float) + t["activation_bytes"].astype(float),
    )
    families, widths = ordered(last["family"].unique()), sorted(last["d_model"].unique())
    axes = (
        ("error over xi", "xi", XI, "val_error", "validation error"),
        ("memory over xi", "xi", XI, "memory", BYTES),
        ("error over memory", "memory", BYTES, "val_error", "validation error"),
        ("error over compute", "paper_flops", "forward MACs x images", "val_error", "validation error"),
    )
    panels = []
    for title, x, x_label, y, y_label in axes:
        series = []
        for name in families:
            for place, width in enumerate(widths):
                part = last[(last["family"] == name) & (last["d_model"] == width)]
                look = (colour_of(families, name), MARKERS[place % len(MARKERS)])
                series.append(curve(part, x, y, f"{name}, width {width}", name, look))
        drawn = tuple(one for one in series if one is not None)
        panels.append(Panel(title, x_label, y_label, drawn))
    return Drawing(
        name="xi",
        title="Error and memory at given compute per dimension",
        caption=(
            f"Last evaluation of {last['run_id'].nunique()} MLPs on data={last['data'].iloc[0]}; xi is the forward "
            "MACs of the structured layers over the mean of their features in and out: the width for dense layers, "
            "2 R for rank R. A line joins the ranks or blocks of a family at one width; markers are widths. Memory: "
            "weights, gradients and two moments, 16 bytes a parameter, and the activations that a step keeps."
        ),
        panels=tuple(panels),
        columns=2,
        shared_legend=True,
    )
