"""Do structured feed-forward networks gain on dense ones as models grow? Slopes of log loss over log training FLOPs.

Source: arXiv 2406.16450, its figure of scaling curves.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import colour_of, marker_of, ordered

from .gaps import NAMES, Gap, mean_of, of_gaps, published, with_kinds
from .lines import Slope, curve, ends, slope

STUDY = "ffn_slopes"
LAWS = False


def draw(runs: pd.DataFrame) -> Drawing:
    """Loss over training FLOPs with a fitted line a structure; slopes with intervals, beside the published ones."""
    last = with_kinds(ends(runs))
    families = ordered(last["family"].unique())
    curves, slopes, said = [], [], []
    for place, family in enumerate(families):
        part, look = last[last["family"] == family], (colour_of(families, family), marker_of(families, family))
        words = NAMES.get(family, family)
        found = slope(part["training_flops"].to_numpy(float), part["val_loss"].to_numpy(float))
        drawn = curve(part, "training_flops", "val_loss", words, family, look)
        curves += [] if drawn is None else [drawn]
        if found is None or drawn is None:
            continue
        curves.append(_fitted(found, drawn, look))
        slopes.append(of_gaps("", family, [place], [Gap(found.value, found.half, len(part))], look))
        said.append(f"{words} {found.value:+.4f} ± {found.half:.4f}")
    apart = [f"{NAMES.get(one, one)} {_said(last, one)}" for one in families if one != "dense" and _said(last, one)]
    return Drawing(
        name="ffn-slopes",
        title="Slopes of loss over training FLOPs",
        caption=(
            f"{last['run_id'].nunique()} runs of widths {', '.join(map(str, sorted(last['d_model'].unique())))} on "
            f"data={last['data'].iloc[0]}, 20 tokens a parameter of the dense model, {last['seed'].nunique()} seeds "
            "(mean and range); structures at 32% of a feed-forward network's parameters. Dashed: least squares of log "
            f"loss on log training FLOPs. Slopes with 90% intervals: {', '.join(said)}. Differences to dense by seed: "
            f"{', '.join(apart)}. Published (arXiv 2406.16450): four sizes from 110M to 1.3 billion parameters, at "
            "other losses, so that only differences between structures compare."
        ),
        panels=(
            Panel("loss", "training FLOPs", "nats per token", tuple(curves)),
            Panel("slopes", "", "d log loss / d log FLOPs", (*slopes, _published(families)), x_log=False, y_log=False,
                  names=tuple(NAMES.get(one, one) for one in families)),
        ),
        shared_legend=True,
    )  # fmt: skip


def _fitted(found: Slope, drawn: Series, look: tuple[str, str]) -> Series:
    x = np.array([drawn.x.min(), drawn.x.max()])
    y = np.exp(found.level) * (x / found.centre) ** found.value
    return Series("", drawn.variant, x, y, "dashed", look[0])


def _published(families: list[str]) -> Series:
    table = published()
    table = table[table["quantity"].str.startswith("slope")]
    rows = (table["structure"] == "dense", table["percent"] == 32)
    dense, own = (float(table.loc[chosen, "value"].iloc[0]) for chosen in rows)
    y = np.array([dense if family == "dense" else own for family in families])
    x = np.array([place + 0.25 for place in range(len(families))])
    return Series("published", "published", x, y, "points", "#777777", "v")


def _said(last: pd.DataFrame, family: str) -> str:
    """-0.002 ± 0.001: the slope of each seed less that of dense, where every seed has two sizes."""
    found = []
    for seed in sorted(last["seed"].unique()):
        pair = [_slope(last[(last["family"] == name) & (last["seed"] == seed)]) for name in (family, "dense")]
        if pair[0] is not None and pair[1] is not None:
            found.append(pair[0].value - pair[1].value)
    one = mean_of(np.array(found)) if found else None
    return "" if one is None else f"{one.mean:+.4f} ± {one.half:.4f}"


def _slope(part: pd.DataFrame) -> Slope | None:
    return slope(part["training_flops"].to_numpy(float), part["val_loss"].to_numpy(float))
