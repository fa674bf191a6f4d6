"""How much compute does a structure save? C_baseline(L) / C_x(L), where both reach the loss L.

From two frontier laws with paired replicates come the curve over C_baseline(L) with its band, the probability that
x is better, the compute at which they cross, and a mean. A multiplier above 1 means x needs less. The mean of

    uniform     the curve, uniformly in log C_baseline over the losses both reached, hence the same for many
                observations and for few, wherever they crowd
    published   C_baseline(L) / C at the frontier observations (C, L) of x (arXiv 2410.02117, section 5), hence of
                wherever they crowd: it hangs on the tolerance of the hull and on how often a run was evaluated

The curve goes over what was measured: losses both reached, at computes up to the largest measured on either side.
Beyond lies ``extrapolated``, a result of its own. A crossing is one where the share of replicates that are worse before
and better after (or the reverse) reaches the confidence.

The same function serves other resources: put seconds, parameters or bytes where FLOPs stand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from structlin.laws.approaches.frontier import FrontierLaw
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import NO_INTERVAL, Interval, interval

_GRID = 41
# A replicate's compute at a loss that was reached may lie so far outside the measured computes, as a factor.
_OUTSIDE = 4.0
# Where the multiplier beyond the data is read, in units of the baseline's largest compute.
_BEYOND = 10.0
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
    confidence: float
    """Probability of the intervals and of a crossing."""
    crossing: float | None
    """C_baseline where the multiplier passes 1 (the largest such), or None inside the range."""
    crossing_interval: Interval | None
    """Interval of the crossing over the replicates that have one."""
    crossing_share: float
    """Share of replicates that are on one side of 1 at the start of the range and on the other at its end."""
    beyond: tuple[float, float, Interval]
    """Beyond the data: (C_baseline, the multiplier by both laws there, its interval)."""

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
    pair = law.replicates[:count], base.replicates[:count]
    samples = _log_ratio(law, base, *pair, loss, bounded=True)
    # Gaps between the sizes move the two hulls differently, which resampling repeats and does not see: where L(N, D)
    # knows by how much, intervals reach as far on the side it says.
    shift = base.bias(loss) - law.bias(loss)
    bands = [
        _reaching(interval(samples[:, k], float(estimate[k]), confidence, factor), float(shift[k]))
        for k in range(len(loss))
    ]
    mean, std = average(law, observed, base, procedure)
    with np.errstate(over="ignore"):  # a replicate that all but levels out may need more than a float holds: infinite
        if procedure == "uniform":
            means = np.exp(samples) @ _WEIGHTS
        else:
            means = mean * np.exp(samples.mean(axis=1) - estimate.mean())
    wide = estimate + min(factor, 1e6) * (samples - estimate)
    share = _sides(estimate, wide) if np.isfinite(factor) else 0.0
    # Laws without replicates know no doubt.
    crossing = _crossing(flops, estimate) if share >= confidence or not count else None
    crossings = np.array([_crossing(flops, s) or np.nan for s in samples]) if crossing else np.empty(0)
    return Multiplier(
        variant=variant,
        baseline=baseline,
        loss=loss,
        flops=flops,
        value=np.exp(estimate),
        low=np.exp([band.low for band in bands]),
        high=np.exp([band.high for band in bands]),
        better=np.mean((wide if np.isfinite(factor) else samples) > 0, axis=0) if count else np.full(len(loss), np.nan),
        mean=mean,
        std=std,
        procedure=procedure,
        observations=int(_inside(observed, shared).sum()),
        confidence=confidence,
        mean_interval=_scaled(interval(means, mean, confidence, factor, log=True), float(shift @ _WEIGHTS)),
        crossing=crossing,
        crossing_interval=interval(crossings, crossing, confidence, factor, log=True) if crossing else None,
        crossing_share=share,
        beyond=_extrapolated(law, base, pair, confidence, factor),
    )


def _reaching(ends: Interval, shift: float) -> Interval:
    """An interval of a logarithm that is taken to be too high by ``shift``."""
    return Interval(ends.low - max(shift, 0.0), ends.high - min(shift, 0.0))


def _scaled(ends: Interval, shift: float) -> Interval:
    """The same of an interval that is no logarithm."""
    return Interval(ends.low * float(np.exp(-max(shift, 0.0))), ends.high * float(np.exp(-min(shift, 0.0))))


def _sides(estimate: Array, samples: Array) -> float:
    """Share of replicates (b, k) on the side of the estimate (k,) at both ends, where it is on either; else 0."""
    first, last = estimate[0], estimate[-1]
    if not len(samples) or (first > 0) == (last > 0):
        return 0.0
    return float(np.mean(((samples[:, 0] > 0) == (first > 0)) & ((samples[:, -1] > 0) == (last > 0))))


def _extrapolated(
    law: FrontierLaw, base: FrontierLaw, pair: tuple[Array, Array], confidence: float, factor: float
) -> tuple[float, float, Interval]:
    """The multiplier at _BEYOND times the baseline's largest compute, by the laws alone."""
    flops = _BEYOND * base.span[1]
    loss = base.loss(np.array([flops]))
    value = float(_log_ratio(law, base, law.theta[None], base.theta[None], loss)[0, 0])
    samples = _log_ratio(law, base, *pair, loss)[:, 0]
    ends = interval(samples, value, confidence, factor)
    with np.errstate(over="ignore"):
        return flops, float(np.exp(value)), Interval(float(np.exp(ends.low)), float(np.exp(ends.high)))


def without_intervals(found: Multiplier) -> Multiplier:
    """The multiplier where nothing says how sure it is."""
    unknown = np.full(len(found.loss), np.nan)
    return replace(
        found, low=unknown, high=unknown, better=unknown, mean_interval=NO_INTERVAL, crossing=None,
        crossing_interval=None, crossing_share=0.0, beyond=(*found.beyond[:2], NO_INTERVAL),
    )  # fmt: skip


def shared_losses(law: FrontierLaw, base: FrontierLaw) -> tuple[float, float] | None:
    """Lowest and highest loss that both reached, each by its law at a measured compute; None where they share none."""
    # A law may ask for more compute at a loss than the run that reached it took: such a loss is no measured one.
    ends = [one.loss(np.array([one.span[1], one.span[0]])) for one in (law, base)]
    low = max(law.losses[0], base.losses[0], 1.0001 * max(law.E, base.E), *(float(end[0]) for end in ends))
    high = min(law.losses[1], base.losses[1], *(float(end[1]) for end in ends))
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


def _log_ratio(
    law: FrontierLaw, base: FrontierLaw, theta: Array, base_theta: Array, loss: Array, *, bounded: bool = False
) -> Array:
    """log C_base(L) - log C_x(L) for paired laws (b, 3): (b, l); a law that never reaches L counts as needing all.

    ``bounded``: the losses were reached, so no law is taken at its word further than _OUTSIDE beyond the computes.
    """
    top, bottom = base.log_flops(base_theta, loss), law.log_flops(theta, loss)
    if bounded:
        top, bottom = (_near(values, one.span) for values, one in ((top, base), (bottom, law)))
    # Neither reaches the loss: infinity minus infinity says nothing for either, so the ratio is 1.
    both = np.isinf(top) & np.isinf(bottom)
    with np.errstate(invalid="ignore"):
        return np.where(both, 0.0, top - bottom)


def _near(log_flops: Array, span: tuple[float, float]) -> Array:
    reach = np.log(_OUTSIDE)
    return np.asarray(np.clip(log_flops, np.log(span[0]) - reach, np.log(span[1]) + reach))


def _crossing(flops: Array, log_ratio: Array) -> float | None:
    """The largest compute at which a curve changes sign, by interpolation in log C."""
    known = np.isfinite(log_ratio)
    x, y = np.log(flops[known]), log_ratio[known]
    change = np.flatnonzero((y[:-1] > 0) != (y[1:] > 0))
    if not len(change):
        return None
    i = change[-1]
    return float(np.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i])))
