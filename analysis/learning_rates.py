"""Does the best learning rate stay where it is as the width grows? Loss over rate, one curve a width.

Source: arXiv 2406.06248 (Compute Better Spent), the figure of the learning-rate landscape.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.drawing import Drawing, Panel, Series
from analysis.style import MARKERS, shade
from structlin.laws.fit import Laws

STUDY = "learning_rates"


def draw(runs: pd.DataFrame, laws: Laws | None = None) -> Drawing:
    """One panel a structure and rate rule: mean over seeds of the last loss, over lr0."""
    last = last_losses(runs)
    panels = []
    for (structure, rule), part in last.groupby(["structure", "rate_rule"], sort=False):
        widths = sorted(part["d_model"].unique())
        series = tuple(_curve(part, width, widths) for width in widths)
        panels.append(Panel(f"{structure}, {rule} rule", "learning rate lr0", "validation loss", series))
    rules = last["rate_rule"].nunique()
    return Drawing(
        name="learning-rates",
        title="Learning-rate landscape",
        caption=(
            f"Validation loss after {int(last['step'].min()):,} steps over the base rate, mean and range of "
            f"{last['seed'].nunique()} seeds; one curve a width. Under the structure-aware rule the optimum "
            "should stay."
        ),
        panels=tuple(panels),
        columns=max(1, len(panels) // max(1, rules)) if len(panels) > 3 else 0,
    )


def last_losses(runs: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every run."""
    return runs.sort_values("step").groupby("run_id", sort=False).tail(1)


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The rate of lowest mean loss by structure, rule and width."""
    mean = (
        last_losses(runs)
        .groupby(["structure", "rate_rule", "d_model", "learning_rate"], as_index=False)["val_loss"]
        .mean()
    )
    return mean.loc[mean.groupby(["structure", "rate_rule", "d_model"])["val_loss"].idxmin()].reset_index(drop=True)


def _curve(part: pd.DataFrame, width: int, widths: list[int]) -> Series:
    rates = part[part["d_model"] == width].groupby("learning_rate")["val_loss"].agg(["mean", "min", "max"]).sort_index()
    place = widths.index(width)
    x, mean, low, high = (np.asarray(values, dtype=float) for values in (rates.index, *rates.to_numpy().T))
    own = shade(place, 0, max(1, len(widths) - 1))
    return Series(f"width {width}", f"width {width}", x, mean, "joined", own, MARKERS[place % len(MARKERS)], low, high)
