"""The curves that figures share: a structure's runs, frontier and law, and its multiplier against dense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from structlin.drawing.drawing import Panel, Series
from structlin.drawing.names import readable
from structlin.drawing.style import DENSE_COLOUR, colour_of, marker_of
from structlin.laws.approaches.fit import Laws

_MOST_RUNS = 40


def compute_label(laws: Laws) -> str:
    """Axis label of compute with its unit and convention."""
    counted = str(laws.points.choices["flops"]).replace("6 x", "6 ×").replace(" x ", " × ")
    kind = "paper" if laws.choices.convention == "paper" else "training"
    return f"compute, {kind} FLOPs\n({counted})"


def runs_said(laws: Laws) -> str:
    """How many runs and seeds a figure rests on."""
    frame = laws.points.frame
    seeds = frame["seed"].nunique() if "seed" in frame else 1
    return f"{laws.points.choices['runs']} runs, {seeds} seed{'s' * (seeds > 1)}"


def frontier_series(
    laws: Laws, variant: str, colour: str, marker: str, label: str = "", *, runs: bool = True
) -> Iterator[Series]:
    """Runs faint, evaluations on the frontier joined, the law L = E + A C^-a dashed."""
    if runs:
        for _, flops, loss in laws.points.runs_of(variant, _MOST_RUNS):
            yield Series("", variant, flops, loss, "faint", colour)
    law = laws.frontiers.get(variant)
    if law is None:
        return
    frame = laws.points.of(variant)
    flops, loss = (frame[name].to_numpy(float)[law.members] for name in ("C", "L"))
    order = np.argsort(flops)
    yield Series(label or readable(variant), variant, flops[order], loss[order], "joined", colour, marker)
    fine = np.geomspace(law.span[0], law.span[1] * 2, 60)
    yield Series("", variant, fine, np.asarray(law.loss(fine)), "dashed", colour)


def frontier_panel(laws: Laws, variants: Sequence[str], title: str, unit: str = "nats per token") -> Panel:
    """One frontier panel in the colours and markers of the variants' places."""
    series: list[Series] = []
    for variant in variants:
        series += frontier_series(laws, variant, colour_of(list(variants), variant), marker_of(list(variants), variant))
    return Panel(title, compute_label(laws), f"validation loss, {unit}", tuple(series))


def multiplier_panel(laws: Laws, variants: Sequence[str], chosen: Sequence[str], title: str) -> Panel:
    """Multipliers of the chosen ones of the variants against the baseline, with bands."""
    series = []
    for variant in chosen:
        found, places = laws.multipliers.get(variant), list(variants)
        if found is not None:
            look = (colour_of(places, variant), marker_of(places, variant))
            ends = (found.low, found.high)
            series.append(Series(readable(variant), variant, found.flops, found.value, "band", *look, *ends))
    base = readable(laws.baseline or laws.choices.baseline)
    label = f"{base}: {compute_label(laws)}"
    return Panel(title, label, f"compute multiplier against {base}", tuple(series), level=1.0)


def without_law(laws: Laws, variants: Sequence[str]) -> tuple[str, ...]:
    """What to say of variants that have runs but no frontier law."""
    lacking = [variant for variant in variants if variant not in laws.frontiers]
    return tuple(f"{readable(variant)}: too few points for a frontier" for variant in lacking)


def by_number(
    laws: Laws, variants: Sequence[str], values: Mapping[str, float], colours: Mapping[str, str], symbol: str
) -> tuple[Series, ...]:
    """Frontiers coloured by a number of each structure; dense as black triangles. Markers are those of the figure."""
    series: list[Series] = []
    for variant in sorted(variants, key=lambda name: (values[name], name)):
        own = DENSE_COLOUR if variant == "dense" else colours[variant]
        label = f"{readable(variant)}  {symbol} = {values[variant]:.2f}"
        series += frontier_series(laws, variant, own, marker_of(laws.points.variants, variant), label, runs=False)
    return tuple(series)
