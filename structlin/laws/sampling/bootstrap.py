"""How sure is a number? Resampling whole runs, as weight vectors, the same draw for every fit of a replicate.

Evaluations of one run share its seed and its luck, so rows are not independent: an i.i.d. bootstrap of public
constant-rate checkpoints is several times too narrow. The unit here is the run; runs of different variants that
share size and seed (``pair``) get the same weight, so a ratio between variants keeps what they have in common.

Weights are exponential (the Bayesian bootstrap, Rubin 1981): no run ever vanishes, so a replicate of four runs is
still a fit of four runs. With few runs any bootstrap is too narrow; ``interval`` widens the spread about the
estimate by sqrt(runs / (runs - q)) and Student's t over the normal, as for a regression, q being what a fit learns
from differences between runs. The coverage this gives is measured in bench/planted/coverage.py and stated in
docs/laws.md.

Shapes: b replicates, g runs, n rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
import pandas as pd

from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.quantiles import normal_quantile, student_quantile


@dataclass(frozen=True)
class Interval:
    """A two-sided interval."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""

    def record(self) -> dict[str, float] | None:
        """As it stands in laws.json: null where no interval is stated."""
        return None if self.low != self.low or self.high != self.high else {"low": self.low, "high": self.high}


NO_INTERVAL = Interval(float("nan"), float("nan"))
"""What is stated where the data carry none."""


@dataclass(frozen=True)
class Draws:
    """Weights of the runs of one variant over all replicates."""

    runs: tuple[str, ...]
    """Runs, in the order of the columns of ``weights``."""
    weights: Array
    """(b, g), each row summing to g."""
    index: np.ndarray
    """Position of each row's run, (n,)."""

    @property
    def rows(self) -> Array:
        """Weights of the rows, (b, n)."""
        rows: Array = self.weights[:, self.index]
        return rows


def draw(frame: pd.DataFrame, count: int, seed: int) -> dict[str, Draws]:
    """Weights for every variant of a frame with columns variant, run and pair: variant -> Draws."""
    generator = np.random.default_rng(seed)
    pairs, pair_index = np.unique(frame["pair"].astype(str), return_inverse=True)
    shared = generator.standard_exponential((count, len(pairs)))
    draws = {}
    for variant, rows in frame.groupby("variant", sort=False).indices.items():
        runs, index = np.unique(frame["run"].to_numpy()[rows].astype(str), return_inverse=True)
        _, first_row = np.unique(index, return_index=True)
        first = pair_index[np.asarray(rows)[first_row]]
        weights = shared[:, first]
        if len(np.unique(first)) < len(first):
            # Runs that share size and seed (other depths, other rates) still differ from each other.
            weights = weights * generator.standard_exponential(weights.shape)
        weights = weights * (len(runs) / weights.sum(axis=1, keepdims=True))
        draws[str(variant)] = Draws(tuple(runs), weights, index)
    return draws


@lru_cache(maxsize=256)
def widening(runs: int, between: int, confidence: float) -> float:
    """How much wider than its bootstrap spread an interval of few runs has to be; 1 for many runs.

    Infinite for one run, which tells nothing about the next: its intervals come out as NaN.
    """
    if runs < 2:
        return float("inf")
    degrees = max(runs - between, 1)
    tail = 0.5 + 0.5 * confidence
    return float(sqrt(runs / degrees) * student_quantile(degrees, tail) / normal_quantile(tail))


def interval(samples: Array, estimate: float, confidence: float, factor: float = 1.0, *, log: bool = False) -> Interval:
    """Percentiles of replicates (b,), moved away from the estimate by ``factor`` (on a log scale for ratios).

    Infinite replicates count as far away; NaN ones are left out. All NaN, or an infinite
    factor, gives an interval of NaN.
    """
    known = samples[~np.isnan(samples)]
    if not len(known) or not np.isfinite(estimate) or not np.isfinite(factor):
        return Interval(float("nan"), float("nan"))
    with np.errstate(all="ignore"):
        middle = np.log(estimate) if log else estimate
        values = np.log(known) if log else known
        # A replicate as it is: between a finite and an infinite one interpolation would give infinity or NaN.
        ends = np.quantile(values, [0.5 - 0.5 * confidence, 0.5 + 0.5 * confidence], method="nearest")
        ends = middle + factor * (ends - middle)
        low, high = (np.exp(ends) if log else ends).tolist()
    return Interval(float(low), float(high))


def corrected(estimate: float, errors: Array, confidence: float, *, log: bool = False) -> Interval:
    """Interval of a quantity from the errors (s,) of its estimates in simulated sweeps (``bias``), NaN ones left out.

    Estimate less error is the basic bootstrap interval (Davison and Hinkley 1997, section 5.2): it moves with the
    bias. Quantiles are those whose expected coverage is exact, p (s + 1). ``log``: the estimate and its errors are
    logarithms, the interval is not. Fewer than half of the errors known gives an interval of NaN.
    """
    known = errors[np.isfinite(errors)]
    if 2 * len(known) < len(errors) or not len(known) or not np.isfinite(estimate):
        return Interval(float("nan"), float("nan"))
    tail = 0.5 + 0.5 * confidence
    ends = estimate - np.quantile(known, [tail, 1.0 - tail], method="weibull")
    low, high = (np.exp(np.clip(ends, -700.0, 700.0)) if log else ends).tolist()
    return Interval(low, high)
