"""What do figures of the ends of runs share? Means over seeds, slopes with intervals, families by name."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from structlin.drawing.drawing import Series

Array = npt.NDArray[np.float64]

# Quantiles of Student's t at 95% for 1 to 10 degrees of freedom: both ends of a 90% interval.
STUDENT = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)


@dataclass(frozen=True)
class Slope:
    """Least squares of log y on log x: y = exp(level) (x / centre)^slope."""

    value: float
    half: float
    """Half of the 90% interval; NaN of two points."""
    centre: float
    level: float

    @property
    def said(self) -> str:
        """-0.10 ± 0.02."""
        return f"{self.value:+.3f}" + (f" ± {self.half:.3f}" if math.isfinite(self.half) else "")


def ends(runs: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of every run that did not diverge."""
    kept = runs[runs["status"] != "diverged"]
    last: pd.DataFrame = kept.sort_values("step").groupby("run_id", sort=False, observed=True).tail(1)
    return last


def family(structure: str) -> str:
    """btt-r4-c3 -> btt, 3 factors; monarch-b4/paper -> monarch; mpo-c2-r8 -> tt."""
    plain = structure.split("/")[0]
    name, *options = plain.split("-")
    if name == "mpo":
        return "tt"
    factors = [one[1:] for one in options if one.startswith("c") and one[1:].isdigit()]
    return f"{name}, {factors[0]} factors" if factors else name


def curve(part: pd.DataFrame, x: str, y: str, label: str, variant: str, look: tuple[str, str]) -> Series | None:
    """Mean and range of y over seeds, over x; None where there is none above zero."""
    found = part.groupby(x, observed=True)[y].agg(["mean", "min", "max"]).sort_index()
    found = found[found["min"] > 0]
    if found.empty:
        return None
    at, mean, low, high = (np.asarray(values, dtype=float) for values in (found.index, *found.to_numpy().T))
    return Series(label, variant, at, mean, "joined", *look, low, high)


BINS = 10
"""A decade of compute, of a frontier."""
SHOWN = 1.5
"""Decades of compute below the largest."""


def frontier(part: pd.DataFrame, x: str, y: str, label: str, variant: str, look: tuple[str, str]) -> Series | None:
    """The lowest y that any run of a seed has had up to x: mean and range over seeds; None of no rows.

    At the compute, in bins of a tenth of a decade, that every seed has reached.
    """
    if part.empty:
        return None
    places = np.ceil(np.log10(part[x].astype(float)) * BINS - 1e-9)
    best = part.assign(place=places).groupby(["seed", "place"], observed=True)[y].min().unstack("seed").sort_index()
    best = best.cummin()[best.index > best.index.max() - SHOWN * BINS].dropna()
    at = 10 ** (best.index.to_numpy(dtype=float) / BINS)
    low, mean, high = (
        np.asarray(values, dtype=float) for values in (best.min(axis=1), best.mean(axis=1), best.max(axis=1))
    )
    return Series(label, variant, at, mean, "joined", *look, low, high)


def slope(x: Array, y: Array) -> Slope | None:
    """Of points above zero; None of fewer than two places."""
    kept = (x > 0) & (y > 0)
    a, b = np.log(x[kept]), np.log(y[kept])
    if len(np.unique(a)) < 2:
        return None
    value, offset = (float(one) for one in np.polyfit(a - a.mean(), b, 1))
    free = len(a) - 2
    residual = b - offset - value * (a - a.mean())
    spread = float(np.sum((a - a.mean()) ** 2))
    half = math.nan
    if free > 0:
        quantile = STUDENT[min(free, len(STUDENT)) - 1]
        half = quantile * math.sqrt(float(np.sum(residual**2)) / free / spread)
    return Slope(value, half, float(np.exp(a.mean())), offset)
