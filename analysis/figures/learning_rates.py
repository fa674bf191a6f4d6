"""Does the best learning rate stay where it is as the width grows? Loss over rate, one curve a width.

Source: arXiv 2406.06248 (Compute Better Spent), the figure of the learning-rate landscape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.names import readable
from structlin.drawing.style import MARKERS, RING, colour_of, marker_of, ordered, shade
from structlin.laws.approaches.laws import Laws
from structlin.laws.checks.rates import law_of, optima_of
from structlin.laws.report.curves import loss_label

RULES = {"structure": "structure-aware", "naive": "naive"}
KEYS = ["structure", "rate_rule", "d_model"]
BEST = "best rate over the width"
SHOWN = 3.0
"""Losses up to so many times the lowest are shown."""
EDGE = "best at an end of its window"
NAIVE_MARKERS = ("v", "X", "P", "D")


def draw(runs: pd.DataFrame, laws: Laws | None = None) -> Drawing:
    """A panel a rate rule and structure: mean over seeds of the last loss, over lr0; then the best rates."""
    last, best = last_losses(runs), best_rates(runs)
    structures, rules = ordered(last["structure"].unique()), [r for r in RULES if r in set(last["rate_rule"])]
    panels, lowest = [], float(last["val_loss"].min())
    for rule in rules:
        for structure in structures:
            part = last[(last["structure"] == structure) & (last["rate_rule"] == rule)]
            widths = sorted(last["d_model"].unique())
            series = tuple(_curve(part, width, widths) for width in widths if (part["d_model"] == width).any())
            title = f"{readable(structure, structures)}, {RULES[rule]} rates"
            label = loss_label(runs)
            panels.append(Panel(title, "base learning rate lr0", label, series, y_most=SHOWN * lowest))
    seeds, steps = last["seed"].nunique(), int(last["step"].min())
    return Drawing(
        name="learning-rates",
        title="Learning-rate landscape",
        caption=(
            f"Validation loss on task={runs['task'].iloc[0]} after {steps:,} steps over the base rate, mean and range "
            f"of {seeds} seed{'s' * (seeds > 1)}; one curve a width, dark to light. Under the structure-aware rule "
            "every factor has its own multiplier, under the naive one the dense layer's. Runs that diverged are left "
            f"out ({diverged(runs)}), and losses above {SHOWN:g} times the lowest leave the panel. Last panel: rate "
            f"of lowest mean loss, with the range of the seeds' own best rates; dashed, the law through the optima of "
            f"parabolas. {_said(best)} {_laws_said(laws_of_rates(runs))}"
        ),
        panels=(
            *(panel for panel in panels if panel.series),
            _best_panel(best, structures, _law_lines(runs, structures)),
        ),
        columns=len(structures),
        shared_legend=True,
        shared_y=True,
    )


def last_losses(runs: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every run that did not diverge."""
    kept = runs[(runs["status"] != "diverged") & np.isfinite(runs["val_loss"])]
    last: pd.DataFrame = kept.sort_values("step").groupby("run_id", sort=False).tail(1)
    return last


def diverged(runs: pd.DataFrame) -> int:
    """Number of runs that diverged."""
    return int(runs.loc[runs["status"] == "diverged", "run_id"].nunique())


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The rate of lowest mean loss by structure, rule and width: a row each.

    Columns besides: ``low`` and ``high``, the range of the seeds' own best rates, and ``at_edge``, whether it is the
    lowest or highest rate that was tried. A rate at which a seed diverged is no best rate.
    """
    rows = []
    for structure in ordered(runs["structure"].unique()):
        for rule in RULES:
            part = runs[(runs["structure"] == structure) & (runs["rate_rule"] == rule)]
            for width in sorted(part["d_model"].unique()):
                rows += [(structure, rule, int(width), *found) for found in _best(part[part["d_model"] == width])]
    return pd.DataFrame(rows, columns=[*KEYS, "learning_rate", "low", "high", "at_edge"])


def _best(runs: pd.DataFrame) -> list[tuple[float, float, float, bool]]:
    """(rate, low, high, whether it is an end of the window) of runs of one kind; nothing where all diverged."""
    last = last_losses(runs)
    by_rate = last.groupby("learning_rate")["val_loss"].agg(["mean", "size"])
    stable = by_rate[by_rate["size"] == runs["seed"].nunique()]
    if stable.empty:
        return []
    rate = float(stable.index[int(stable["mean"].to_numpy().argmin())])
    seeds = [part for _, part in last.groupby("seed")]
    own = [float(part["learning_rate"].to_numpy()[part["val_loss"].to_numpy().argmin()]) for part in seeds]
    tried = runs["learning_rate"]
    return [(rate, min(rate, *own), max(rate, *own), rate in (tried.min(), tried.max()))]


def _said(best: pd.DataFrame) -> str:
    """How far the best rate moves over the widths, and where the window hides it."""
    moves = []
    for name, part in best.assign(name=_names(best)).groupby("name", sort=False):
        low, high = part["learning_rate"].min(), part["learning_rate"].max()
        moves.append(f"{name}: {low:.2g} to {high:.2g} (a factor {high / low:.2g})")
    edge = best[best["at_edge"]]
    edges = [f"{name}, width {width}" for name, width in zip(_names(edge), edge["d_model"], strict=True)]
    hidden = f"At an end of its window, so no more than a bound: {'; '.join(edges)}." if edges else ""
    return f"Best rates over the widths: {'; '.join(moves)}. {hidden or 'None lies at an end of its window.'}"


def laws_of_rates(runs: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """(structure, rule) -> the law of its best rate over width and steps (structlin.laws.checks.rates)."""
    last = last_losses(runs)
    frame = pd.DataFrame(
        {"N": last["d_model"].astype(float), "D": last["step"].astype(float), "L": last["val_loss"],
         "run": last["run_id"], "learning_rate": last["learning_rate"], "width": last["d_model"].astype(float),
         "structure": last["structure"], "rule": last["rate_rule"]}
    )  # fmt: skip
    # A rate at which a seed diverged is no candidate for the best.
    seeds = frame.groupby(["structure", "rule", "width", "learning_rate"])["run"].transform("size")
    frame = frame[seeds == runs["seed"].nunique()]
    found = {}
    for (structure, rule), part in frame.groupby(["structure", "rule"], sort=False):
        law = law_of(list(optima_of(part, "learning_rate")), 0.9)
        if law["size"] is not None:
            found[str(structure), str(rule)] = law
    return found


def _laws_said(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """btt, structure-aware: width^-0.02 [-0.10, 0.06]."""
    said = []
    for (structure, rule), law in found.items():
        ends = law["interval"]["size"]
        span = f" [{ends['low']:.2f}, {ends['high']:.2f}]" if ends else ""
        named = readable(structure, {one for one, _ in found})
        said.append(f"{named}, {RULES.get(rule, rule)}: width^{law['size']:.2f}{span}")
    return f"The best rate goes as {'; '.join(said)} (90% intervals)." if said else ""


def _law_lines(runs: pd.DataFrame, structures: list[str]) -> list[Series]:
    """The laws of the best rates over the widths that were trained."""
    lines = []
    for (structure, _), law in laws_of_rates(runs).items():
        width = np.unique(runs.loc[runs["structure"] == structure, "d_model"].to_numpy(float))
        rate = law["constant"] * width ** law["size"]
        lines.append(Series("", structure, width, rate, "dashed", colour_of(structures, structure)))
    return lines


def _best_panel(best: pd.DataFrame, structures: list[str], laws: list[Series]) -> Panel:
    """The best rate of every structure and rule over the width, and which of them are bounds."""
    series = list(laws)
    for name, part in best.assign(name=_names(best)).groupby("name", sort=False):
        structure, rule = str(part["structure"].iloc[0]), part["rate_rule"].iloc[0]
        x, rate, low, high = part[["d_model", "learning_rate", "low", "high"]].to_numpy(float).T
        # Structures keep their colours, so the rules are told apart by markers.
        place = structures.index(structure) % len(NAIVE_MARKERS)
        marker = marker_of(structures, structure) if rule == "structure" else NAIVE_MARKERS[place]
        own = (colour_of(structures, structure), marker)
        series.append(Series(str(name), structure, x, rate, "joined", *own, low, high))
    edge = best[best["at_edge"]]
    if len(edge):
        ends = (edge["d_model"].to_numpy(float), edge["learning_rate"].to_numpy(float))
        series.append(Series(EDGE, "edge", *ends, "points", "#888888", RING))
    widths = tuple(float(width) for width in sorted(best["d_model"].unique()))
    return Panel(BEST, "width d_model", "best lr0", tuple(series), ticks=widths, own_y=True)


def _names(best: pd.DataFrame) -> list[str]:
    """btt, naive."""
    pairs = zip(best["structure"], best["rate_rule"], strict=True)
    structures = set(best["structure"])
    return [f"{readable(structure, structures)}, {RULES[rule]}" for structure, rule in pairs]


def _curve(part: pd.DataFrame, width: int, widths: list[int]) -> Series:
    rates = part[part["d_model"] == width].groupby("learning_rate")["val_loss"].agg(["mean", "min", "max"]).sort_index()
    place = widths.index(width)
    x, mean, low, high = (np.asarray(values, dtype=float) for values in (rates.index, *rates.to_numpy().T))
    own = shade(place, 0, max(1, len(widths) - 1))
    return Series(f"width {width}", f"width {width}", x, mean, "joined", own, MARKERS[place % len(MARKERS)], low, high)
