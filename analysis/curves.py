"""The curves that figures share: a structure's runs, frontier and law, and its multiplier against dense."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from analysis.drawing import Array, Panel, Series
from analysis.style import colour_of, marker_of
from structlin.laws.fit import Laws

_MOST_RUNS = 80


def compute_label(laws: Laws) -> str:
    """Axis label of compute with its unit and convention."""
    return f"compute, FLOPs ({laws.points.choices['flops']})"


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
    yield Series(label or variant, variant, flops[order], loss[order], "joined", colour, marker)
    fine = np.geomspace(law.span[0], law.span[1] * 2, 60)
    yield Series("", variant, fine, np.asarray(law.loss(fine)), "dashed", colour)


def multiplier_series(laws: Laws, variant: str, colour: str, label: str = "") -> Iterator[Series]:
    """The multiplier of a variant over the baseline's compute, with its band."""
    found = laws.multipliers.get(variant)
    if found is not None:
        yield Series(label or variant, variant, found.flops, found.value, "band", colour, "o", found.low, found.high)


def frontier_panel(
    laws: Laws, variants: list[str], title: str, *, names: dict[str, str] | None = None, loss: str = "nats per token"
) -> Panel:
    """One frontier panel in the colours and markers of the variants' places."""
    series: list[Series] = []
    for variant in variants:
        own = (colour_of(variants, variant), marker_of(variants, variant))
        series += frontier_series(laws, variant, *own, (names or {}).get(variant, variant))
    return Panel(title, compute_label(laws), f"validation loss, {loss}", tuple(series))


def multiplier_panel(laws: Laws, variants: list[str], title: str, names: dict[str, str] | None = None) -> Panel:
    """Multipliers against the baseline, with bands."""
    series: list[Series] = []
    for variant in variants:
        series += multiplier_series(laws, variant, colour_of(variants, variant), (names or {}).get(variant, variant))
    label = f"{laws.baseline}: {compute_label(laws)}"
    return Panel(title, label, f"compute multiplier against {laws.baseline}", tuple(series), y_log=False, level=1.0)


def without_law(laws: Laws, variants: list[str]) -> tuple[str, ...]:
    """What to say of variants that have runs but no frontier law."""
    return tuple(f"{variant}: too few points for a frontier" for variant in variants if variant not in laws.frontiers)


def by_number(
    laws: Laws, variants: list[str], value: Callable[[str], float], colour: Callable[[float], str], symbol: str
) -> tuple[Series, ...]:
    """Frontiers coloured by a number of each structure; dense as black triangles."""
    series: list[Series] = []
    for variant in sorted(variants, key=lambda name: (value(name), name)):
        dense = variant == "dense"
        own = "#000000" if dense else colour(value(variant))
        label = "dense" if dense else f"{variant}  {symbol} = {value(variant):.2f}"
        marker = marker_of(variants, variant)
        series += frontier_series(laws, variant, own, marker, label, runs=False)
    return tuple(series)


def ends(interval: tuple[float, float, float]) -> tuple[Array, Array, Array]:
    """(value, low, high) as arrays of one."""
    value, low, high = interval
    return np.array([value]), np.array([low]), np.array([high])
