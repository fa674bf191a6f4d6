"""How much compute does a structure save? C_baseline(L) / C_x(L), where both reach the loss L.

From two frontier laws with paired replicates come the curve over C_baseline(L) with its band, the probability that
x is better, the compute at which they cross, and a mean. A multiplier above 1 means x needs less. The mean of

    uniform     the curve, uniformly in log C_baseline over the losses both reached, hence the same for many
                observations and for few, wherever they crowd
    published   C_baseline(L) / C at the frontier observations (C, L) of x (arXiv 2410.02117, section 5), hence of
                wherever they crowd: it hangs on the tolerance of the hull and on how often a run was evaluated

The same function serves other resources: put seconds, parameters or bytes where FLOPs stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from structlin.laws.approaches.frontier import FrontierLaw
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import Interval, interval

_GRID = 41
# Of the grid: by trapezoids the mean over log C_baseline.
_WEIGHTS = np.r_[0.5, np.ones(_GRID - 2), 0.5] / (_GRID - 1)

MEANS = {
    "uniform": "uniform in log C of the baseline, over the losses both reached",
    "published": "over the frontier observations of the variant, as published",
}
"""Procedure -> what its mean goes over, as laws.json, tables and captions name it."""


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
    """Arithmetic mean over what ``MEANS`` says of the procedure."""
    std: float
    """Standard deviation over the same; with n - 1 where ``published`` takes n observations."""
    procedure: str
    """A key of MEANS."""
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
    procedure: str = "uniform",
) -> Multiplier | None:
    """Multiplier of ``law`` against ``base``; ``observed`` is (C, L) of the variant's frontier rows.

    Replicates are paired by position. ``procedure``, a key of MEANS, says what the mean is. None when the two
    frontiers share no range of losses.
    """
    shared = shared_losses(law, base)
    if shared is None:
        return None
    flops = _flops(base, shared)
    loss = base.loss(flops)
    estimate = _log_ratio(law, base, law.theta[None], base.theta[None], loss)[0]
    count = min(len(law.replicates), len(base.replicates))
    samples = _log_ratio(law, base, law.replicates[:count], base.replicates[:count], loss)
    bands = [interval(samples[:, k], float(estimate[k]), confidence, factor) for k in range(len(loss))]
    mean, std = average(law, observed, base, procedure)
    with np.errstate(over="ignore"):  # a replicate that all but levels out may need more than a float holds: infinite
        if procedure == "uniform":
            means = np.exp(samples) @ _WEIGHTS
        else:
            means = mean * np.exp(samples.mean(axis=1) - estimate.mean())
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
        mean=mean,
        std=std,
        procedure=procedure,
        observations=int(_inside(observed, shared).sum()),
        mean_interval=interval(means, mean, confidence, factor, log=True),
        crossing=crossing,
        crossing_interval=interval(crossings, crossing, confidence, factor, log=True) if crossing else None,
        crossing_share=float(np.mean(~np.isnan(crossings))) if count else 0.0,
    )


def shared_losses(law: FrontierLaw, base: FrontierLaw) -> tuple[float, float] | None:
    """Lowest and highest loss that both frontiers reached and both laws hold for; None where they share none."""
    low = max(law.losses[0], base.losses[0], 1.0001 * max(law.E, base.E))
    high = min(law.losses[1], base.losses[1])
    return (low, high) if low < high else None


def average(
    law: FrontierLaw, observed: tuple[Array, Array], base: FrontierLaw, procedure: str = "uniform"
) -> tuple[float, float]:
    """Mean and standard deviation of the multiplier by a procedure of MEANS; NaN where no loss is shared.

    ``observed`` is (C, L) of the variant's frontier rows. Where none of them is in the shared range, ``published``
    takes the geometric mean of the curve.
    """
    shared = shared_losses(law, base)
    if shared is None:
        return float("nan"), float("nan")
    curve = np.exp(_log_ratio(law, base, law.theta[None], base.theta[None], base.loss(_flops(base, shared)))[0])
    if procedure == "uniform":
        mean = float(curve @ _WEIGHTS)
        return mean, float(np.sqrt((curve - mean) ** 2 @ _WEIGHTS))
    inside = _inside(observed, shared)
    # The range is that of the laws; few observations may all lie beside it.
    if not inside.any():
        return float(np.exp(np.log(curve).mean())), 0.0
    # What the variant needed itself, not by its law, against the baseline's law: measurements, hence n - 1.
    ratios = base.flops(observed[1][inside]) / observed[0][inside]
    return float(ratios.mean()), float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0


def _flops(base: FrontierLaw, shared: tuple[float, float]) -> Array:
    """Equal steps in the baseline's log compute over the shared losses, from the highest loss down."""
    edge = base.log_flops(base.theta[None], np.array(shared[::-1]))[0]
    return np.exp(np.linspace(edge[0], edge[1], _GRID))


def _inside(observed: tuple[Array, Array], shared: tuple[float, float]) -> np.ndarray:
    """Which observations have a shared loss."""
    return np.asarray((observed[1] >= shared[0]) & (observed[1] <= shared[1]))


def _log_ratio(law: FrontierLaw, base: FrontierLaw, theta: Array, base_theta: Array, loss: Array) -> Array:
    """log C_base(L) - log C_x(L) for paired laws (b, 3): (b, l); a law that never reaches L counts as needing all."""
    top, bottom = base.log_flops(base_theta, loss), law.log_flops(theta, loss)
    # Neither reaches the loss: infinity minus infinity says nothing for either, so the ratio is 1.
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
