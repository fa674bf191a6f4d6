"""How much compute does a structure save? C_baseline(L) / C_x(L), where both reach the loss L.

From two frontier laws with paired replicates come the curve over C_baseline(L) with its band, the probability that
x is better, the compute at which they cross, and the paper's figure: mean and standard deviation over the frontier
observations of x (arXiv 2410.02117, section 5). A multiplier above 1 means x needs less.

The same function serves other resources: put seconds, parameters or bytes where FLOPs stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from structlin.laws.approaches.frontier import FrontierLaw
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import Interval, interval

_GRID = 41


@dataclass(frozen=True)
class Multiplier:
    """The multiplier of one variant against a baseline."""

    variant: str
    """Whose resource is the denominator."""
    baseline: str
    """Whose resource is the numerator."""
    loss: Array
    """Losses of the curve, falling, (k,)."""
    flops: Array
    """C_baseline at those losses, (k,)."""
    value: Array
    """The multiplier at those losses, (k,)."""
    low: Array
    """Lower end of its band, (k,)."""
    high: Array
    """Upper end of its band, (k,)."""
    better: Array
    """Share of replicates above 1, (k,)."""
    mean: float
    """Mean over the frontier observations of the variant."""
    std: float
    """Standard deviation over them."""
    observations: int
    """How many observations lie in the shared range of losses."""
    mean_interval: Interval
    """Interval of that mean."""
    crossing: float | None
    """C_baseline where the multiplier passes 1 (the largest such), or None inside the range."""
    crossing_interval: Interval | None
    """Interval of the crossing over the replicates that have one."""
    crossing_share: float
    """Share of replicates that cross inside the range."""

    @property
    def at_end(self) -> tuple[float, float, float]:
        """Value, low and high at the lowest shared loss."""
        return float(self.value[-1]), float(self.low[-1]), float(self.high[-1])


def compare(
    variant: str,
    law: FrontierLaw,
    observed: tuple[Array, Array],
    baseline: str,
    base: FrontierLaw,
    *,
    confidence: float = 0.9,
    factor: float = 1.0,
) -> Multiplier | None:
    """Multiplier of ``law`` against ``base``; ``observed`` is (C, L) of the variant's frontier rows.

    Replicates are paired by position. None when the two frontiers share no range of losses.
    """
    low = max(law.losses[0], base.losses[0])
    high = min(law.losses[1], base.losses[1])
    low = max(low, 1.0001 * max(law.E, base.E))
    if not low < high:
        return None
    # Equal steps in the baseline's log compute, from the highest loss down.
    edge = base.log_flops(base.theta[None], np.array([high, low]))[0]
    flops = np.exp(np.linspace(edge[0], edge[1], _GRID))
    loss = base.loss(flops)
    estimate = _log_ratio(law, base, law.theta[None], base.theta[None], loss)[0]
    count = min(len(law.replicates), len(base.replicates))
    samples = _log_ratio(law, base, law.replicates[:count], base.replicates[:count], loss)
    bands = [interval(samples[:, k], float(estimate[k]), confidence, factor) for k in range(len(loss))]
    c_x, l_x = observed
    inside = (l_x >= low) & (l_x <= high)
    ratios = base.flops(l_x[inside]) / c_x[inside] if inside.any() else np.array([np.exp(estimate.mean())])
    with np.errstate(over="ignore"):  # a replicate that all but levels out may need more than a float holds: infinite
        means = ratios.mean() * np.exp(samples.mean(axis=1) - estimate.mean())
    crossing, crossings = _crossing(flops, estimate), np.array([_crossing(flops, s) or np.nan for s in samples])
    return Multiplier(
        variant=variant,
        baseline=baseline,
        loss=loss,
        flops=flops,
        value=np.exp(estimate),
        low=np.exp([band.low for band in bands]),
        high=np.exp([band.high for band in bands]),
        better=np.mean(samples > 0, axis=0) if count else np.full(len(loss), np.nan),
        mean=float(ratios.mean()),
        std=float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0,
        observations=int(inside.sum()),
        mean_interval=interval(means, float(ratios.mean()), confidence, factor, log=True),
        crossing=crossing,
        crossing_interval=interval(crossings, crossing, confidence, factor, log=True) if crossing else None,
        crossing_share=float(np.mean(~np.isnan(crossings))) if count else 0.0,
    )


def _log_ratio(law: FrontierLaw, base: FrontierLaw, theta: Array, base_theta: Array, loss: Array) -> Array:
    """log C_base(L) - log C_x(L) for paired laws (b, 3): (b, l); a law that never reaches L counts as needing all."""
    top, bottom = base.log_flops(base_theta, loss), law.log_flops(theta, loss)
    both = np.isinf(top) & np.isinf(bottom)
    with np.errstate(invalid="ignore"):
        return np.where(both, 0.0, top - bottom)


def _crossing(flops: Array, log_ratio: Array) -> float | None:
    """The largest compute at which a curve changes sign, by interpolation in log C."""
    known = np.isfinite(log_ratio)
    x, y = np.log(flops[known]), log_ratio[known]
    change = np.flatnonzero((y[:-1] > 0) != (y[1:] > 0))
    if not len(change):
        return None
    i = change[-1]
    return float(np.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i])))
