"""What is the lowest loss at a compute? Approach 1: the lower hull of all evaluations and L = E + A C^-a through it.

The points are (log C, log(L - L0)) of arXiv 2410.02117: their lower convex hull, and every point within a tolerance
of it (``hull``). L0 is the offset of the law when it is given; when it is fitted the hull is taken of log L, in which
a law with E > 0 is convex. The law is fitted to those points in squares of log loss, E >= 0, to the global minimum
(``anchored``).

A hull is biased: it lies above the true frontier between the sizes that were trained and outside them, and below it
where it picks lucky runs. ``bias`` measures both, and the intervals of E, A and a are corrected by them.

Shapes: n rows, b replicates; a batch of laws is theta (b, 3) = (E, log A', a) with log C centred.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from structlin.laws.approaches.hull import hulls, lower_hull, members
from structlin.laws.choices import Choices
from structlin.laws.minimum.anchored import Axes, search, solve
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.sampling.bootstrap import Draws, Interval, corrected, interval

_SQUARES = Objective("log_squares")
MIN_POINTS = 4
# A bias in log C beyond this is that of a law which all but levels out there, and no number to widen by.
_MOST_BIAS = 0.5
# Below this many frontier points the tolerance grows.
WANTED_POINTS = 8


@dataclass(frozen=True)
class FrontierLaw:
    """L = E + A C^-a, and a batch of its bootstrap replicates."""

    E: float
    """Irreducible loss, nats."""
    A: float
    """Coefficient, for C in FLOPs."""
    a: float
    """Exponent of compute."""
    centre: float
    """Mean of log C that was taken out of theta."""
    theta: Array
    """(E, log A', a) of the estimate, (3,)."""
    replicates: Array
    """theta of the bootstrap refits, (b, 3)."""
    members: np.ndarray
    """Rows of the frontier, positions in the table of the variant."""
    objective: float
    """Sum of squared log residuals over two."""
    span: tuple[float, float]
    """Computes of the first and last member, FLOPs."""
    losses: tuple[float, float]
    """Lowest and highest loss among the members, nats."""
    tolerance: float = 0.0
    """How far above the hull, in log loss, members may lie."""
    errors: Array = field(default_factory=lambda: np.empty((0, 3)))
    """What theta is taken to be wrong by in simulated sweeps (``bias``), (s, 3); empty without L(N, D)."""
    size_errors: Array = field(default_factory=lambda: np.empty(0))
    """The same for the slope of log N in log C over the members, (s,)."""
    ideal: tuple[Array, Array] | None = None
    """theta of the hull of L(N, D) without noise, and of its true frontier, (3,) each: what gaps between sizes do."""
    is_one_curve: bool = False
    """Whether one run has all members: its learning curve, about which other runs would say nothing."""

    @property
    def corrected(self) -> dict[str, float]:
        """E, A and a with their median error taken off; the estimates themselves where errors are not known."""
        return self._named(self.theta - (np.median(self.errors, axis=0) if len(self.errors) else 0.0))

    def intervals(self, confidence: float, factor: float) -> dict[str, Interval]:
        """Intervals of E, A and a: corrected by the errors of simulated sweeps, else from ``replicates``.

        NaN where one run is the whole frontier and nothing simulates others.
        """
        # A in logarithms, at C = 1 FLOP: linear in theta.
        turn = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, self.centre, 1.0]])
        here, errors, replicates = self.theta @ turn, self.errors @ turn, self.replicates @ turn
        found = {}
        for k, name in enumerate(("E", "A", "a")):
            log, middle = name == "A", float(here[k])
            if len(errors):
                ends = corrected(middle, errors[:, k], confidence, log=log)
            elif self.is_one_curve:
                ends = Interval(float("nan"), float("nan"))
            else:
                samples, at = (np.exp(replicates[:, k]), self.A) if log else (replicates[:, k], middle)
                ends = interval(samples, at, confidence, factor, log=log)
            found[name] = Interval(max(ends.low, 0.0), max(ends.high, 0.0)) if ends.low == ends.low else ends
        return found

    def _named(self, theta: Array) -> dict[str, float]:
        """theta (3,) as E, A for C in FLOPs, and a; E and a not below zero."""
        floor, constant, slope = theta.tolist()
        return {"E": max(floor, 0.0), "A": float(np.exp(constant + slope * self.centre)), "a": max(slope, 0.0)}

    def loss(self, flops: Array | float) -> Array:
        """L at a compute."""
        return np.asarray(self.E + self.A * np.asarray(flops, float) ** -self.a)

    def flops(self, loss: Array | float) -> Array:
        """The compute that reaches a loss; infinite at or below E."""
        return np.asarray(np.exp(self.log_flops(self.theta[None], np.atleast_1d(loss))[0]))

    def log_flops(self, theta: Array, loss: Array) -> Array:
        """log C at each loss (l,) for each law (b, 3): (b, l), infinite at or below E."""
        above = loss[None, :] - theta[:, :1]
        with np.errstate(divide="ignore", invalid="ignore"):
            # In logarithms: C itself leaves the range of floats for a law that all but levels out.
            answer = self.centre + (theta[:, 1:2] - np.log(above)) / theta[:, 2:3]
        return np.where(above > 0, answer, np.inf)

    def bias(self, loss: Array) -> Array:
        """How far gaps between the sizes move log C at each loss (l,), by L(N, D); 0 where that is not known."""
        if self.ideal is None:
            return np.zeros(len(loss))
        moved, true = (self.log_flops(theta[None], loss)[0] for theta in self.ideal)
        with np.errstate(invalid="ignore"):
            shift = moved - true
        return np.where(np.isfinite(shift), np.clip(shift, -_MOST_BIAS, _MOST_BIAS), 0.0)

    def replicate_losses(self, flops: Array) -> Array:
        """L at each compute (c,) for every replicate: (b, c)."""
        theta = self.replicates
        x = np.log(flops)[None, :] - self.centre
        return theta[:, :1] + np.exp(theta[:, 1:2] - theta[:, 2:3] * x)


def tolerance_for(flops: Array, loss: Array, choices: Choices) -> float:
    """The chosen tolerance, doubled (three times at most) until the frontier has WANTED_POINTS points.

    Noise lifts points off a hull of few corners, and few trunks give few corners. The published procedure has one
    tolerance.
    """
    tolerance = choices.hull_tolerance
    if choices.procedure == "published":
        return tolerance
    for _ in range(3):
        rows = members(flops, loss, tolerance=tolerance, offset=choices.frontier_offset or 0.0)
        if choices.frontier != "hull" or len(rows) >= WANTED_POINTS or not tolerance:
            break
        tolerance *= 2.0
    return tolerance


def enough(flops: Array, rows: np.ndarray) -> bool:
    """Whether a law can be fitted to these rows: MIN_POINTS of them, at different computes."""
    return len(rows) >= MIN_POINTS and float(np.ptp(np.log(flops[rows]))) > 1e-6


def fit(
    flops: Array,
    loss: Array,
    rows: np.ndarray,
    *,
    offset: float | None = None,
    tolerance: float = 0.0,
) -> FrontierLaw:
    """L = E + A C^-a through the given rows, without replicates yet (``resample``).

    ``offset`` pins E; ``tolerance`` is the one that chose the rows. Raises ValueError where ``enough`` says no.
    """
    c, y = flops[rows], loss[rows]
    if not enough(flops, rows):
        raise ValueError(f"a frontier of {len(rows)} points; the law needs {MIN_POINTS} at different computes")
    axes = Axes.of(c)
    found = search(axes, y, _SQUARES, np.ones(len(y)), offset)
    best = found.theta[np.argmin(found.value)]
    return FrontierLaw(
        E=float(best[0]),
        A=float(np.exp(best[1] + best[2] * axes.centre[0])),
        a=float(best[2]),
        centre=axes.centre[0],
        theta=best,
        replicates=np.empty((0, 3)),
        members=rows,
        objective=float(found.value.min()),
        span=(float(c.min()), float(c.max())),
        losses=(float(y.min()), float(y.max())),
        tolerance=tolerance,
    )


def resample(
    law: FrontierLaw, flops: Array, loss: Array, draws: Draws, effects: Array, choices: Choices, count: int
) -> FrontierLaw:
    """The law with replicates: every run moved by its own luck, the frontier taken anew, the fit weighted.

    A frontier picks lucky runs, so weights alone see only the scatter that is left after the picking: on synthetic
    sweeps their 90% interval of a multiplier held the truth 35-70% of the time. Each replicate therefore also moves
    run r by (w_r - 1) u_r in log loss, u_r its mean residual from L(N, D) (``effects``, (g,)) and w_r its weight: a
    wild bootstrap of runs (Cameron, Gelbach and Miller 2008) with the same draw.
    """
    weights = draws.weights[:count]
    moves = (weights - 1.0) * effects
    x, y = np.log(flops), np.log(loss)
    # Only rows that some replicate can bring to the hull: the rest would slow every hull down.
    low = lower_hull(x, y)
    gap = y - np.interp(x, x[low], y[low])
    near = np.flatnonzero(gap <= law.tolerance + 6.0 * float(np.std(effects)) + 1e-9)
    keep = near[np.argsort(x[near], kind="stable")]
    runs, offset = draws.index[keep], choices.frontier_offset
    moved = np.exp(y[keep] + moves[:, runs])
    member = membership(flops[keep], moved, law.tolerance, choices) * weights[:, runs]
    theta = np.repeat(law.theta[None], count, axis=0)
    return replace(law, replicates=refit(law.centre, flops[keep], moved, member, theta, offset))


def membership(flops: Array, loss: Array, tolerance: float, choices: Choices) -> Array:
    """1 where a row is a member of its replicate's frontier, else 0: loss (b, n) -> (b, n)."""
    offset = choices.frontier_offset or 0.0
    if choices.frontier == "hull":
        return hulls(flops, loss, tolerance=tolerance, offset=offset).astype(float)
    member = np.zeros(loss.shape)
    for b, one in enumerate(loss):
        member[b, members(flops, one, kind=choices.frontier, window=choices.window, offset=offset)] = 1.0
    return member


def refit(
    centre: float,
    flops: Array,
    loss: Array,
    member: Array,
    start: Array,
    offset: float | None,
    *,
    tolerance: float = 1e-9,
    max_iterations: int = 60,
) -> Array:
    """The law of each replicate through its weighted members (b, n), from ``start`` (b, 3); too few leave it there."""
    usable = (member > 0).sum(axis=1) >= MIN_POINTS
    used = np.flatnonzero(member.any(axis=0))
    axes = Axes((np.log(flops[used]) - centre,), (centre,))
    found = solve(
        axes, loss[:, used], _SQUARES, start, weights=member[:, used], pinned=offset, tolerance=tolerance,
        max_iterations=max_iterations,
    )  # fmt: skip
    return np.where(usable[:, None], found.theta, start)
