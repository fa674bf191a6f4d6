"""Which model size and how many tokens are best for a budget? Approach 2: one curve of loss over size per budget.

A slice is all models of a variant at one compute: finished runs of that budget, or constant-rate runs read off
where they pass it (log L linear in log C between two evaluations). Each slice gets a parabola in log N and an Akima
spline; the optima of all budgets give power laws of N, D and width in C. Both are biased when a grid is wide or
off-centre, even without noise (arXiv 2603.22339), so those are named.

Shapes: m models of a slice, b replicates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import Draws, Interval, corrected, interval

# Finished runs whose compute agrees within this belong to one budget.
_SAME_BUDGET = 0.05
_BUDGETS_PER_DECADE = 4
# A grid is wide above this ratio of sizes, off-centre where the optimum lies outside the middle of it.
WIDE_RATIO, CENTRE = 32.0, 0.25
MIN_MODELS = 3


@dataclass(frozen=True)
class Slice:
    """The models of one variant at one budget."""

    budget: float
    """FLOPs."""
    size: Array
    """N of each model, growing, (m,)."""
    tokens: Array
    """D of each model at this budget, (m,)."""
    loss: Array
    """Loss of each model, nats, mean over seeds, (m,)."""
    width: Array
    """Width of each model, NaN where unknown, (m,)."""
    weights: Array
    """Summed run weights of each model in every replicate, (b, m)."""
    best: int
    """Position of the lowest loss."""
    parabola: tuple[float, float, float]
    """Coefficients of the parabola in log N - mean, constant first; the curvature is positive at an optimum."""
    optimum: float
    """N at the lowest point of the parabola, NaN where it has none inside the grid."""
    akima: float
    """N at the lowest point of the Akima spline, NaN at an edge."""
    replicates: Array
    """Parabola optimum of every replicate, NaN where it has none, (b,)."""
    readings: tuple[np.ndarray, np.ndarray, Array, np.ndarray]
    """Of each run: two rows of the variant, the share of the second in its log loss here, and its model, (r,) each."""
    errors: Array = field(default_factory=lambda: np.empty(0))
    """What log N of the parabola is taken to be wrong by in simulated sweeps (``bias``), (s,)."""

    @property
    def edge(self) -> str | None:
        """``smallest`` or ``largest`` where the best model is the last of its kind; None inside."""
        if self.best == 0:
            return "smallest"
        return "largest" if self.best == len(self.size) - 1 else None

    def at(self, size: float, values: Array) -> float:
        """A column of the slice at a size, by interpolation in logarithms."""
        return float(np.exp(self.log_at(np.log(size), values)))

    def log_at(self, log_size: Array | float, values: Array) -> Array:
        """The logarithm of a column of the slice at log sizes."""
        return np.asarray(np.interp(log_size, np.log(self.size), np.log(values)))

    def interval(self, confidence: float, factor: float) -> Interval:
        """Interval of the parabola's optimum: corrected by simulated sweeps, else from the replicates."""
        if len(self.errors):
            return corrected(np.log(self.optimum), self.errors, confidence, log=True)
        return interval(self.replicates, self.optimum, confidence, factor, log=True)


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * C^exponent through the optima, with replicates of the exponent."""

    coefficient: float
    """At C = 1 FLOP."""
    exponent: float
    """Slope in log-log."""
    replicates: Array
    """Slope of every replicate, (b,)."""
    errors: Array = field(default_factory=lambda: np.empty(0))
    """What the slope is taken to be wrong by in simulated sweeps (``bias``), (s,)."""

    def interval(self, confidence: float, factor: float) -> Interval:
        """Interval of the exponent: corrected by simulated sweeps, else from the replicates."""
        if len(self.errors):
            return corrected(self.exponent, self.errors, confidence)
        return interval(self.replicates, self.exponent, confidence, factor)

    def at(self, flops: Array | float) -> Array:
        """y at a compute."""
        return np.asarray(self.coefficient * np.asarray(flops, float) ** self.exponent)


@dataclass(frozen=True)
class Isoflop:
    """All slices of a variant and the power laws through their optima."""

    slices: tuple[Slice, ...]
    """By growing budget; those without an optimum inside the grid too."""
    size: PowerLaw | None
    """N_opt(C) by parabolas."""
    tokens: PowerLaw | None
    """D_opt(C)."""
    width: PowerLaw | None
    """Width_opt(C), None where widths are not known."""
    akima: PowerLaw | None
    """N_opt(C) by Akima splines."""


def models_of(frame: pd.DataFrame) -> pd.Series:
    """What makes two runs points of one size on a curve: N to six digits."""
    return frame["N"].map("{:.6g}".format)


def find_budgets(frame: pd.DataFrame) -> list[float]:
    """Budgets at which at least MIN_MODELS models can be compared: groups of equal compute, or a grid over trunks."""
    single = frame.groupby("run")["C"].size().median() < 3
    if single:
        c = np.sort(np.log(frame["C"].to_numpy()))
        cuts = np.flatnonzero(np.diff(c) > _SAME_BUDGET) + 1
        groups = np.split(c, cuts)
        # Neighbours can chain into a wide group, and what is spread over four steps is no single budget.
        near = [g for g in groups if len(g) >= MIN_MODELS and np.ptp(g) < 4 * _SAME_BUDGET]
        return [float(np.exp(g.mean())) for g in near]
    spans = frame.assign(model=models_of(frame)).groupby("model")["C"].agg(["min", "max"])
    # From where MIN_MODELS models have begun to where MIN_MODELS still go on: outside there are too few for a slice.
    start = np.sort(spans["min"].to_numpy())[min(MIN_MODELS, len(spans)) - 1]
    end = np.sort(spans["max"].to_numpy())[-min(MIN_MODELS, len(spans))]
    # Budgets are whole quarters of a decade, not fractions of a span: variants then share them. The small number
    # keeps one that rounding has moved just outside.
    first = np.ceil(np.log10(start) * _BUDGETS_PER_DECADE - 1e-6)
    last = np.floor(np.log10(end) * _BUDGETS_PER_DECADE + 1e-6)
    return [float(10 ** (k / _BUDGETS_PER_DECADE)) for k in np.arange(first, last + 1)]


@dataclass(frozen=True)
class _Run:
    """One run as arrays, by growing compute."""

    model: str
    size: float
    width: float
    column: int
    start: int
    log_c: Array
    log_l: Array
    log_d: Array

    def read(self, values: Array, place: tuple[int, int, float]) -> float:
        """exp of a logarithmic column at a place between two evaluations."""
        i, j, share = place
        return float(np.exp(values[i] * (1.0 - share) + values[j] * share))


def _runs(frame: pd.DataFrame, draws: Draws) -> tuple[list[_Run], np.ndarray]:
    """All runs of a variant with the position of their weights, and the rows in their order."""
    order = np.lexsort((frame["C"].to_numpy(), draws.index))
    columns = draws.index[order]
    cuts = np.flatnonzero(np.diff(columns)) + 1
    log_c, log_l, log_d = (np.log(frame[name].to_numpy(dtype=float))[order] for name in ("C", "L", "D"))
    size, width = (frame[name].to_numpy(dtype=float)[order] for name in ("N", "width"))
    model = models_of(frame).to_numpy()[order]
    runs = [
        _Run(str(model[i]), size[i], width[i], int(columns[i]), i, log_c[i:j], log_l[i:j], log_d[i:j])
        for i, j in zip([0, *cuts], [*cuts, len(order)], strict=True)
    ]
    return runs, order


def _place(run: _Run, budget: float) -> tuple[int, int, float] | None:
    """Where a run passes a budget: an evaluation there (twice), else two and the share of the second; else None."""
    here = np.log(budget)
    gap = np.abs(run.log_c - here)
    nearest = int(np.argmin(gap))
    # A finished run belongs to a budget as its group does. Along a trunk the loss hardly falls over 2% of the compute.
    if gap[nearest] < (_SAME_BUDGET if len(gap) == 1 else 0.02):
        return nearest, nearest, 0.0
    # No run is extrapolated: what it would have reached is what a law is to find out.
    if not run.log_c[0] <= here <= run.log_c[-1]:
        return None
    j = int(np.searchsorted(run.log_c, here))
    return j - 1, j, float((here - run.log_c[j - 1]) / (run.log_c[j] - run.log_c[j - 1]))


def _slice(runs: list[_Run], order: np.ndarray, draws: Draws, budget: float) -> Slice | None:
    """One slice from the runs that pass a budget; None with fewer than MIN_MODELS models."""
    models: dict[str, list[tuple[_Run, tuple[int, int, float]]]] = {}
    for run in runs:
        place = _place(run, budget)
        if place is not None:
            models.setdefault(run.model, []).append((run, place))
    placed = sorted(models.values(), key=lambda group: group[0][0].size)
    if len(placed) < MIN_MODELS:
        return None
    groups = [[(run, run.read(run.log_d, at), run.read(run.log_l, at)) for run, at in group] for group in placed]
    all_ = [(run.start, *at, k) for k, group in enumerate(placed) for run, at in group]
    begin, first, second, share, model = (np.array(column) for column in zip(*all_, strict=True))
    size = np.array([group[0][0].size for group in groups])
    loss = np.array([np.mean([y for _, _, y in group]) for group in groups])
    columns = [[run.column for run, _, _ in group] for group in groups]
    weights = np.stack([draws.weights[:, chosen].sum(axis=1) for chosen in columns], axis=1)
    # The loss of a model moves between its seeds with their weights.
    sums = [
        draws.weights[:, chosen] @ np.array([y for _, _, y in group])
        for chosen, group in zip(columns, groups, strict=True)
    ]
    losses = np.stack(sums, axis=1) / np.maximum(weights, 1e-300)
    x = np.log(size) - np.log(size).mean()
    ones = np.ones((1, len(size)))
    coefficients = parabolas(x, loss[None], ones)[0]
    optimum = vertex(x, coefficients[None])[0]
    replicates = vertex(x, parabolas(x, losses, weights))
    centre = np.log(size).mean()
    return Slice(
        budget=budget,
        size=size,
        tokens=np.array([np.mean([d for _, d, _ in group]) for group in groups]),
        loss=loss,
        width=np.array([group[0][0].width for group in groups]),
        weights=weights,
        best=int(np.argmin(loss)),
        parabola=(float(coefficients[0]), float(coefficients[1]), float(coefficients[2])),
        optimum=float(np.exp(optimum + centre)),
        akima=_akima_optimum(np.log(size), loss),
        replicates=np.exp(replicates + centre),
        readings=(order[begin + first], order[begin + second], share, model),
    )


def parabolas(x: Array, loss: Array, weights: Array) -> Array:
    """Weighted least squares of 1, x, x^2: loss and weights (b, m) -> coefficients (b, 3)."""
    basis = np.stack([np.ones_like(x), x, x * x], axis=1)
    gram = np.einsum("bm,mi,mj->bij", weights, basis, basis)
    right = np.einsum("bm,bm,mi->bi", weights, loss, basis)
    gram = gram + 1e-12 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    answer: Array = np.linalg.solve(gram, right[:, :, None])[:, :, 0]
    return answer


def vertex(x: Array, coefficients: Array) -> Array:
    """Lowest point of each parabola, NaN outside the grid or where it opens downwards: (b, 3) -> (b,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -coefficients[:, 1] / (2.0 * coefficients[:, 2])
    inside = (coefficients[:, 2] > 0) & (vertex >= x.min()) & (vertex <= x.max())
    return np.where(inside, vertex, np.nan)


def akima_curve(x: Array, y: Array, at: Array) -> Array:
    """Akima's spline (J. ACM 17, 1970, with the modified weights of MATLAB's makima) through (x, y) at given points.

    x grows, (m,), m >= 3; y (..., m) -> (..., points). Tested against scipy's, whose import would take
    longer than the whole fit.
    """
    slope = np.diff(y) / np.diff(x)
    # Akima's ends: two more slopes on either side, continued in a straight line. The first two and last two points
    # have neighbours then, like all others.
    before = 2 * slope[..., :1] - slope[..., 1:2]
    after = 2 * slope[..., -1:] - slope[..., -2:-1]
    ends = 2 * before - slope[..., :1], 2 * after - slope[..., -1:]
    m = np.concatenate([ends[0], before, slope, after, ends[1]], axis=-1)
    # The second term is makima's. With the first alone a bend between two straight stretches has weights 0 / 0.
    turn = np.abs(np.diff(m)) + np.abs(m[..., :-1] + m[..., 1:]) / 2.0
    left, right = turn[..., 2:], turn[..., :-2]
    total = left + right
    # What is left of 0 / 0: points with no slope on either side, where any weight gives the tangent 0.
    flat = total < 1e-12 * np.maximum(total.max(axis=-1, keepdims=True), 1e-300)
    weight = np.where(flat, 0.5, left / np.where(flat, 1.0, total))
    tangent = weight * m[..., 1:-2] + (1.0 - weight) * m[..., 2:-1]
    # The last point closes the last piece: a piece of its own would need a point beyond it.
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = x[i + 1] - x[i]
    t = (at - x[i]) / h
    curve: Array = (
        (1 + 2 * t) * (1 - t) ** 2 * y[..., i]
        + t * (1 - t) ** 2 * h * tangent[..., i]
        + t * t * (3 - 2 * t) * y[..., i + 1]
        + t * t * (t - 1) * h * tangent[..., i + 1]
    )
    return curve


def _akima_optimum(log_size: Array, loss: Array) -> float:
    """N at the lowest point of the spline, NaN where that is the first or last model."""
    if np.argmin(loss) in (0, len(loss) - 1):
        return float("nan")
    fine = np.linspace(log_size[0], log_size[-1], 2001)
    return float(np.exp(fine[np.argmin(akima_curve(log_size, loss, fine))]))


def _power(budgets: Array, values: Array, replicates: Array) -> PowerLaw | None:
    """A straight line in log-log through the known optima: values (k,), replicates (k, b)."""
    known = np.isfinite(values)
    if known.sum() < 2:
        return None
    x, y = np.log(budgets[known]), np.log(values[known])
    slope, constant = np.polyfit(x, y, 1)
    return PowerLaw(float(np.exp(constant)), float(slope), slopes(x, np.log(replicates[known])))


def slopes(x: Array, y: Array) -> Array:
    """Slope of a straight line through the known values of each replicate, NaN with fewer than two: (k, b) -> (b,)."""
    here = np.isfinite(y)
    y = np.where(here, y, 0.0)
    count = np.maximum(here.sum(axis=0), 1)
    # Every replicate lacks other optima, so each has a mean of x of its own; y and dx at 0 leave a point out.
    mean_x = (here * x[:, None]).sum(axis=0) / count
    dx = np.where(here, x[:, None] - mean_x, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (dx * (y - y.sum(axis=0) / count)).sum(axis=0) / (dx * dx).sum(axis=0)
    return np.where(here.sum(axis=0) >= 2, found, np.nan)


def fit(frame: pd.DataFrame, draws: Draws, budgets: list[float] | None = None) -> Isoflop:
    """Slices and power laws of one variant. ``budgets`` in FLOPs, found from the data when not given.

    frame has columns run, N, D, C, L, width. A budget with fewer than MIN_MODELS models gives no slice.
    """
    runs, order = _runs(frame, draws)
    slices = []
    for budget in budgets or find_budgets(frame):
        found = _slice(runs, order, draws, budget)
        if found is not None:
            slices.append(found)
    if not slices:
        return Isoflop((), None, None, None, None)
    c = np.array([s.budget for s in slices])
    sizes = np.array([s.optimum if s.edge is None else np.nan for s in slices])
    replicates = np.stack([s.replicates for s in slices])
    tokens = np.array([s.at(n, s.tokens) if np.isfinite(n) else np.nan for s, n in zip(slices, sizes, strict=True)])
    widths = np.array([s.at(n, s.width) if np.isfinite(n) else np.nan for s, n in zip(slices, sizes, strict=True)])
    of_tokens = np.stack([np.exp(np.interp(np.log(s.replicates), np.log(s.size), np.log(s.tokens))) for s in slices])
    of_width = np.stack([np.exp(np.interp(np.log(s.replicates), np.log(s.size), np.log(s.width))) for s in slices])
    return Isoflop(
        slices=tuple(slices),
        size=_power(c, sizes, replicates),
        tokens=_power(c, tokens, of_tokens),
        width=_power(c, widths, of_width),
        akima=_power(c, np.array([s.akima for s in slices]), replicates),
    )
