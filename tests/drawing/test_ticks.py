"""Labels of logarithmic axes: short, few, apart, each another."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from structlin.drawing.ticks import log_ticks, power_label


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (2e18, 1, "2e18"),
        (1e-5, 1, "1e-5"),
        (500.0, 1, "500"),
        (5e10, 1, "5e10"),
        (2.5e18, 2, "2.5e18"),
        (0.01, 1, "0.01"),
        (0.002, 1, "2e-3"),
        (9999.0, 1, "9999"),
        (10_000.0, 1, "1e4"),
    ],
)
def test_ticks_are_short(value: float, digits: int, said: str) -> None:
    assert power_label(value, digits) == said


def axis_of(limits: tuple[float, float], most: float, given: tuple[float, ...] = ()) -> Axis:
    """A logarithmic axis with its ticks."""
    axes = Figure().add_subplot()
    axes.set(xscale="log", xlim=limits)
    log_ticks(axes.xaxis, limits, most, given)
    return axes.xaxis


def labels_of(axis: Axis) -> list[str]:
    return [axis.get_major_formatter()(tick) for tick in axis.get_major_locator()()]


@pytest.mark.parametrize(
    ("most", "limits", "expected"),
    [
        (11.5, (1e15, 1e18), [f"{part}e{decade}" for decade in (15, 16, 17) for part in (1, 2, 5)] + ["1e18"]),
        (11.5, (1.5e15, 6e16), ["2e15", "5e15", "1e16", "2e16", "5e16"]),
        (11.5, (1e15, 1e20), [f"{part}e{decade}" for decade in range(15, 20) for part in (1, 3)] + ["1e20"]),
        (8, (1e15, 1e20), [f"1e{decade}" for decade in range(15, 21)]),
        (11.5, (1e4, 1e29), [f"1e{decade}" for decade in range(6, 30, 3)]),
        (1.2, (1e15, 1e18), ["1e16", "1e18"]),
        # Less than a decade has even steps, with as many digits as say the numbers.
        (8, (1.6e10, 4.2e10), ["2e10", "2.5e10", "3e10", "3.5e10", "4e10"]),
        (4.5, (1.6e10, 4.2e10), ["2e10", "3e10", "4e10"]),
        (13, (2.1e10, 4.4e10), [f"{part / 4:g}e10" for part in range(9, 18)]),
        (12, (2.1e10, 4.4e10), ["2.5e10", "3e10", "3.5e10", "4e10"]),
        (4.9, (2.1, 4.4), ["2.5", "3", "3.5", "4"]),
    ],
)
def test_ticks_have_room(most: float, limits: tuple[float, float], expected: list[str]) -> None:
    axis = axis_of(limits, most)
    assert labels_of(axis) == expected
    assert len(axis.get_minor_locator()()) == 0


def test_given_ticks_stand() -> None:
    assert labels_of(axis_of((0.5, 40.0), 2, (1.0, 8.0, 16.0, 32.0))) == ["1", "8", "16", "32"]


@pytest.mark.parametrize("case", range(60))
def test_ticks_of_any_axis_are_few_apart_and_different(case: int) -> None:
    generator = np.random.default_rng(case)
    low, span = 10 ** generator.uniform(-6, 20), 10 ** generator.uniform(0.25, 3.4) ** 2
    most = generator.uniform(2, 14)
    axis = axis_of((low, low * span), most)
    ticks, labels = axis.get_major_locator()(), labels_of(axis)
    assert len(ticks) >= 1
    assert len(set(labels)) == len(labels)
    assert all(low <= tick <= low * span * (1 + 1e-9) for tick in ticks)
    assert [float(label) for label in labels] == pytest.approx(list(ticks), rel=1e-3)
    if len(ticks) > 3:
        assert len(ticks) <= most
        assert min(np.log(b / a) for a, b in pairwise(ticks)) >= 0.7 / most * np.log(span)
