"""Does the best learning rate stay where it is as the width grows? Loss over rate, one curve a width.

Source: arXiv 2406.06248 (Compute Better Spent), the figure of the learning-rate landscape.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.drawing import Drawing, Panel, Series
from analysis.fig4 import loss_unit
from analysis.names import readable
from analysis.style import MARKERS, shade
from structlin.laws.fit import Laws

RULES = {"structure": "structure-aware", "naive": "naive"}
KEYS = ["structure", "rate_rule"]


def draw(runs: pd.DataFrame, laws: Laws | None = None) -> Drawing:
    """A row a rate rule, a panel a structure: mean over seeds of the last loss, over lr0."""
    last = last_losses(runs)
    structures, rules = list(dict.fromkeys(last["structure"])), [r for r in RULES if r in set(last["rate_rule"])]
    panels = []
    for rule in rules:
        for structure in structures:
            part = last[(last["structure"] == structure) & (last["rate_rule"] == rule)]
            widths = sorted(last["d_model"].unique())
            series = tuple(_curve(part, width, widths) for width in widths if (part["d_model"] == width).any())
            title = f"{readable(structure)}, {RULES[rule]} rates"
            panels.append(Panel(title, "base learning rate lr0", f"validation loss, {loss_unit(runs)}", series))
    seeds, steps = last["seed"].nunique(), int(last["step"].min())
    return Drawing(
        name="learning-rates",
        title="Learning-rate landscape",
        caption=(
            f"Validation loss on task={runs['task'].iloc[0]} after {steps:,} steps over the base rate, mean and range "
            f"of {seeds} seed{'s' * (seeds > 1)}; one curve a width, dark to light. Under the structure-aware rule "
            "every factor has its own multiplier, under the naive one the dense layer's. Runs that diverged are left "
            f"out ({diverged(runs)})."
        ),
        panels=tuple(panel for panel in panels if panel.series),
        columns=len(structures),
        shared_legend=True,
        shared_y=True,
    )


def last_losses(runs: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every run that did not diverge."""
    kept = runs[(runs["status"] != "diverged") & np.isfinite(runs["val_loss"])]
    return kept.sort_values("step").groupby("run_id", sort=False).tail(1)


def diverged(runs: pd.DataFrame) -> int:
    """Number of runs that diverged."""
    return int(runs.loc[runs["status"] == "diverged", "run_id"].nunique())


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The rate of lowest mean loss by structure, rule and width."""
    keys = [*KEYS, "d_model"]
    mean = last_losses(runs).groupby([*keys, "learning_rate"], as_index=False)["val_loss"].mean()
    return mean.loc[mean.groupby(keys)["val_loss"].idxmin()].reset_index(drop=True)


def _curve(part: pd.DataFrame, width: int, widths: list[int]) -> Series:
    rates = part[part["d_model"] == width].groupby("learning_rate")["val_loss"].agg(["mean", "min", "max"]).sort_index()
    place = widths.index(width)
    x, mean, low, high = (np.asarray(values, dtype=float) for values in (rates.index, *rates.to_numpy().T))
    own = shade(place, 0, max(1, len(widths) - 1))
    return Series(f"width {width}", f"width {width}", x, mean, "joined", own, MARKERS[place % len(MARKERS)], low, high)
