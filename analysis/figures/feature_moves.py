"""Do features move as much at every width on images (arXiv 2406.06248, figure 2a)? From runs of the platform."""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.style import colour_of, marker_of, ordered

from .learning_rates import RULES
from .lines import curve, ends, family, slope

STUDY = "feature_updates"
LAWS = False


def draw(runs: pd.DataFrame) -> Drawing:
    """A panel a rate rule: RMS change since the start of what the head reads, over the width."""
    last = ends(runs).assign(family=lambda t: t["structure"].astype(str).map(family))
    families = ordered(last["family"].unique())
    widths = tuple(float(width) for width in sorted(last["d_model"].unique()))
    panels, said = [], []
    for rule in [rule for rule in RULES if rule in set(last["rate_rule"])]:
        part = last[last["rate_rule"] == rule]
        series = [
            curve(part[part["family"] == name], "d_model", "feature_update", name, name,
                  (colour_of(families, name), marker_of(families, name)))
            for name in families
        ]  # fmt: skip
        drawn = tuple(one for one in series if one is not None)
        panels.append(Panel(f"{RULES[rule]} rates", "width d_model", "RMS feature update", drawn, ticks=widths))
        said += [f"{RULES[rule]}: {_slopes(part, families)}"]
    return Drawing(
        name="feature-moves",
        title="Feature updates over the width, on images",
        caption=(
            f"RMS over held-out images and features of what the head reads less what it read at first, after "
            f"{int(last['step'].min()):,} steps of an MLP of {int(last['num_layers'].iloc[0])} blocks on "
            f"data={last['data'].iloc[0]}; mean and range of {last['seed'].nunique()} seeds. Slopes of the logarithms "
            f"over the width, with 90% intervals: {'. '.join(said)}."
        ),
        panels=tuple(panels),
        shared_legend=True,
        shared_y=True,
    )


def _slopes(part: pd.DataFrame, families: list[str]) -> str:
    said = []
    for name in families:
        own = part[part["family"] == name]
        found = slope(own["d_model"].to_numpy(float), own["feature_update"].to_numpy(float))
        said += [] if found is None else [f"{name} {found.said}"]
    return ", ".join(said)
