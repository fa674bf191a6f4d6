"""Which numbers stand on a logarithmic axis? Few that are read at a glance: 2e18, 500, never a small raised 18."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any


def log_ticks(axis: Any, limits: tuple[float, float], most: float, given: Sequence[float]) -> None:
    """Labels that are read: 2e18 and not a small raised 18, few enough to stand apart."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = list(given) or next(found for found in _candidates(*limits) if _stand_apart(found, limits, most))
    axis.set_major_locator(FixedLocator(ticks))
    digits = _digits(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_label(float(f"{value:.6g}"), digits)))
    axis.set_minor_locator(NullLocator())


def _stand_apart(ticks: Sequence[float], limits: tuple[float, float], most: float) -> bool:
    """Whether there is room for their labels: even steps crowd towards the end of a logarithmic axis."""
    if len(ticks) <= 3:
        return True
    length = math.log(limits[1] / limits[0])
    gap = min(math.log(right / left) for left, right in pairwise(ticks)) / length
    # A label of three digits (2.75e10) takes all the room of a tick.
    return len(ticks) <= most and gap >= (1.0 if _digits(ticks) == 3 else 0.7) / most


def _digits(ticks: Sequence[float]) -> int:
    """The fewest with which labels say their numbers; three at most."""
    for digits in (1, 2):
        if all(math.isclose(float(power_label(tick, digits)), tick, rel_tol=1e-5) for tick in ticks):
            return digits
    return 3


def _candidates(low: float, high: float) -> Iterator[list[float]]:
    """Sets of ticks from many to few; even steps where less than a decade is spanned."""
    if high / low < 12:
        for parts in (10, 8, 6, 5, 4, 3, 2):
            yield _even(low, high, parts)
    for subs, every in [((1, 2, 5), 1), ((1, 3), 1), *(((1,), every) for every in range(1, 40))]:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [sub * 10.0**decade for decade in decades if decade % every == 0 for sub in subs]
        yield [tick for tick in ticks if low <= tick <= high]


def _even(low: float, high: float, parts: int) -> list[float]:
    raw = (high - low) / parts
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw)
    return [float(f"{place * step:.10g}") for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def power_label(value: float, digits: int = 1) -> str:
    """``2e18`` (``2.5e18`` with two digits), ``500``: a tick of a logarithmic axis."""
    if 0.01 <= value < 10_000:
        return f"{value:g}"
    number, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(number):g}e{int(exponent)}"
