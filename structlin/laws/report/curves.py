"""How does a law become curves? Panels of runs, frontiers, multipliers, isoFLOP parabolas, residuals and backtests.

Every figure and page that shows a law takes its series from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Panel, Series
from structlin.drawing.names import readable
from structlin.drawing.style import STAR, colour_of, look_of, marker_of, ordered, shade
from structlin.drawing.ticks import power_label
from structlin.laws.approaches.isoflop import Slice
from structlin.laws.approaches.laws import Laws, Parametric
from structlin.laws.approaches.multiplier import MEANS

# Runs of a variant drawn faintly behind a frontier; more are no longer told apart.
MOST_RUNS = 150
# Decades of compute between two points of a frontier, over which no line is drawn: half, and what 1, 3, 10, .. need.
MOST_GAP = 0.53
# Budgets of a variant in a panel of isoFLOP curves.
MOST_SLICES = 8
UNITS = {
    "regression": "mean squared error",
    "pixels": "nats per channel of a pixel",
    "classification": "nats per image",
}
METRICS = {
    "val_error": "validation error",
    "train_error": "training error, augmented images",
    "clean_error": "training error",
    "train_loss": "training loss, augmented images",
    "clean_loss": "training loss",
}
"""What ``metric`` says on an axis; errors have no unit."""


# --- words ----------------------------------------------------------------------------------------------------------


def compute_label(laws: Laws) -> str:
    """Axis label of compute with its unit and convention."""
    # A table of others has its own convention, whichever was chosen for runs of this project.
    own = f"{laws.choices.convention} " if "MACs" in counted(laws) else ""
    return f"compute, {own}FLOPs\n({counted(laws)})"


def counted(laws: Laws) -> str:
    """How the FLOPs are counted: 6 × forward MACs × tokens."""
    return str(laws.points.choices["flops"]).replace(" x ", " × ")


def loss_label(runs: pd.DataFrame) -> str:
    """Axis label of the loss with the unit of the runs' task."""
    task = str(runs["task"].iloc[0]) if "task" in runs else ""
    metric = str(runs["metric"].iloc[0]) if "metric" in runs else "val_loss"
    if metric.endswith("error"):
        return METRICS[metric]
    return f"{METRICS.get(metric, 'validation loss')}, {UNITS.get(task, 'nats per token')}"


def runs_said(laws: Laws) -> str:
    """How many runs and seeds a figure rests on."""
    frame = laws.points.frame
    seeds = frame["seed"].nunique() if "seed" in frame else 1
    return f"{laws.points.choices['runs']} runs, {seeds} seed{'s' * (seeds > 1)}"


def called(laws: Laws, variant: str = "") -> str:
    """A variant (the baseline without one) in words, by what tells it apart from the others."""
    return readable(variant or laws.baseline or laws.choices.baseline, laws.points.variants)


def mean_said(laws: Laws) -> str:
    """What the mean and the standard deviation of the multipliers go over."""
    return f"Mean ± standard deviation {MEANS[laws.choices.procedure]}"


def without_law(laws: Laws, variants: Sequence[str]) -> tuple[str, ...]:
    """What to say of variants that have runs but no frontier law."""
    lacking = [variant for variant in variants if variant not in laws.frontiers]
    return tuple(f"{called(laws, variant)}: too few points for a frontier" for variant in lacking)


# --- frontiers ------------------------------------------------------------------------------------------------------


def frontier_panel(laws: Laws, variants: Sequence[str], title: str) -> Panel:
    """One frontier panel in the colours and markers of the variants' places."""
    series: list[Series] = []
    for variant in variants:
        colour, marker = colour_of(variants, variant), marker_of(variants, variant)
        series += [*_runs(laws, variant, colour), *frontier_series(laws, variant, colour, marker)]
    return Panel(title, compute_label(laws), loss_label(laws.points.frame), tuple(series))


def frontier_series(laws: Laws, variant: str, colour: str, marker: str, label: str = "") -> Iterator[Series]:
    """Evaluations on the frontier joined, the law L = E + A C^-a dashed to twice the largest compute."""
    law = laws.frontiers.get(variant)
    if law is None:
        return
    frame = laws.points.of(variant)
    flops, loss = (frame[name].to_numpy(float)[law.members] for name in ("C", "L"))
    order = np.argsort(flops)
    said = f"{called(laws, variant)}: frontier"
    named = label or called(laws, variant)
    # No line over a gap: between the two ends of half a decade nothing was measured on the frontier.
    cuts = np.flatnonzero(np.diff(np.log10(flops[order])) > MOST_GAP) + 1
    for part in np.split(order, cuts):
        yield Series(named, variant, flops[part], loss[part], "joined", colour, marker, said=said)
        named = ""
    fine = np.geomspace(law.span[0], law.span[1] * 2, 60)
    floor = "E" if laws.withholds(variant, "floor") else f"{law.E:.3f}"
    said = f"{called(laws, variant)}: {floor} + {law.A:.3g} C^-{law.a:.3f}"
    yield Series("", variant, fine, np.asarray(law.loss(fine)), "dashed", colour, said=said)


def by_number(laws: Laws, variants: Sequence[str], values: Mapping[str, float], symbol: str) -> tuple[Series, ...]:
    """Frontiers in the order of a number of each structure, which stands in the legend; looks are those everywhere."""
    series: list[Series] = []
    for variant in sorted(variants, key=lambda name: (values[name], name)):
        label = f"{called(laws, variant)}  {symbol} = {values[variant]:.2f}"
        series += frontier_series(laws, variant, *look_of(tuple(laws.points.variants), variant), label)
    return tuple(series)


def _runs(laws: Laws, variant: str, colour: str) -> Iterator[Series]:
    """Faint lines; runs of one evaluation, which a line would not show, as the dots of one series."""
    runs = laws.points.runs_of(variant)
    lines = [run for run in runs if len(run[1]) > 1]
    dots = np.array([(flops[0], loss[0]) for _, flops, loss in runs if len(flops) == 1])
    if len(dots):
        yield Series("", variant, dots[:, 0], dots[:, 1], "dots", colour, said=f"{called(laws, variant)}: runs")
    for run, flops, loss in lines[:: max(1, -(-len(lines) // MOST_RUNS))]:
        yield Series("", variant, flops, loss, "faint", colour, said=run)


# --- multipliers ----------------------------------------------------------------------------------------------------


def multiplier_panel(laws: Laws, variants: Sequence[str], chosen: Sequence[str], title: str) -> Panel:
    """Multipliers of the chosen ones of the variants against the baseline, with bands."""
    series = []
    for variant in chosen:
        found = laws.multipliers.get(variant)
        if found is not None:
            look = (colour_of(variants, variant), marker_of(variants, variant))
            ends = (found.low, found.high)
            series.append(Series(called(laws, variant), variant, found.flops, found.value, "band", *look, *ends))
    base = called(laws)
    label = f"{base}: {compute_label(laws)}"
    return Panel(title, label, f"compute multiplier against {base}", tuple(series), level=1.0)


# --- isoFLOP curves -------------------------------------------------------------------------------------------------


def isoflop_panels(laws: Laws, variants: Sequence[str]) -> tuple[Panel, ...]:
    """Loss over model size at each budget, one panel a variant; a budget has one colour in all of them."""
    slices = {variant: _spaced(laws.isoflops[variant].slices) for variant in variants}
    budgets = [np.log(one.budget) for found in slices.values() for one in found]
    low, high = min(budgets), max(budgets)
    panels = []
    for variant, found in slices.items():
        series = [part for one in found for part in _slice(one, variant, shade(np.log(one.budget), low, high))]
        label = f"model size N\n({laws.points.choices['size']})"
        panels.append(Panel(called(laws, variant), label, loss_label(laws.points.frame), tuple(series), y_log=False))
    return tuple(panels)


def _spaced(slices: Sequence[Slice]) -> Sequence[Slice]:
    return slices[:: -(-len(slices) // MOST_SLICES)]


def _slice(found: Slice, variant: str, colour: str) -> Iterator[Series]:
    """The models of a budget, their parabola, and a star where it has its optimum inside the sizes."""
    budget = f"{power_label(found.budget, 2)} FLOPs"
    yield Series(budget, variant, found.size, found.loss, "points", colour)
    centre = np.log(found.size).mean()
    x = np.linspace(np.log(found.size[0]), np.log(found.size[-1]), 60)
    parabola = np.polyval(found.parabola[::-1], x - centre)
    yield Series("", variant, np.exp(x), parabola, "line", colour, said=f"{budget}: parabola")
    if found.edge is None and np.isfinite(found.optimum):
        at = np.array([found.optimum])
        lowest = np.polyval(found.parabola[::-1], np.log(at) - centre)
        yield Series("", variant, at, lowest, "points", colour, STAR, said=f"{budget}: optimum")


# --- checks ---------------------------------------------------------------------------------------------------------


def residual_panel(laws: Laws, variants: Sequence[str], title: str) -> Panel:
    """Relative error of the parametric law at every evaluation."""
    series = [_residuals(laws, variant, laws.parametrics[variant], colour_of(variants, variant))
              for variant in ordered(laws.parametrics)]  # fmt: skip
    label = "predicted / measured - 1, %"
    return Panel(title, compute_label(laws), label, tuple(series), y_log=False, level=0.0)


def _residuals(laws: Laws, variant: str, found: Parametric, colour: str) -> Series:
    flops = laws.points.of(variant)["C"].to_numpy(float)
    order = np.argsort(flops)
    return Series(called(laws, variant), variant, flops[order], 100 * found.fit.residuals[order], "points", colour)


def backtest_panel(laws: Laws, variants: Sequence[str], title: str) -> Panel:
    """Error of the laws fitted below each cut, over how far they had to reach; empty where none was made."""
    found = (laws.checked.backtest or {}).get("variants", {})
    series = []
    for variant in ordered(found):
        for law, style in (("frontier", "joined"), ("parametric", "dashed")):
            rows = [(row["reach"], 100 * row[law]["error"]) for row in found[variant][::-1] if row[law]]
            if rows:
                reach, error = np.array(rows).T
                said = f"{called(laws, variant)}: {law}"
                series.append(Series(said, variant, reach, error, style, colour_of(variants, variant)))
    return Panel(title, "largest compute / cut", "error of predicted loss, %", tuple(series), y_log=False)
