"""How do all arms learn? One law over them, in which each arm differs from the others by as much as the data say.

    log L = log(E + (exp(a_s - alpha_s n) + exp(b_s - beta_s d))^gamma) + luck of the run + noise of the evaluation

with n = log N and d = log D about their means; one E and gamma for all, and for each arm s

    a_s ~ N(a, tau^2)   b_s ~ N(b, tau^2)   log alpha_s ~ N(log alpha, kappa^2)   log beta_s ~ N(log beta, kappa^2)

``pooled``: gamma = 1, kappa = 0 (the law `rescaled` of arXiv 2602.07712); ``own``: gamma = 1, kappa from the data;
``powered``: kappa = 0, gamma from the data. Spreads and noise are found by turns with the parameters (expectation and
maximisation, the arms' own uncertainty counted), so that few or noisy data pull the arms together. Rows of a run share
its luck: they are whitened by it. Parameters that all arms share and those of each arm part in every Newton step
(Schur's complement), so that a fit of thirty arms takes some hundredths of a second.

Shapes: A arms, R rows an arm (padded), p shared and q own parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from structlin.laws.minimum.objective import Array
from structlin.search.measurements import Measured

KINDS = ("pooled", "own", "powered")
_ROWS_A_RUN = 6
# Shared parameters: e (E = lowest loss x logistic(e)), a, b, log alpha, log beta, log gamma.
_PRIOR_MEAN = np.array([0.5, 0.0, 0.0, np.log(0.35), np.log(0.35), 0.0])
_PRIOR_SPREAD = np.array([1.5, 10.0, 10.0, 0.7, 0.7, 0.4])
_TURNS, _STEPS, _DONE = 4, 12, 1e-7
_LEAST_TAU, _LEAST_KAPPA, _MOST_KAPPA, _LEAST_NOISE = 0.02, 0.01, 0.5, 1e-3
_TAU, _KAPPA = 0.3, 0.05


@dataclass(frozen=True)
class Rows:
    """The evaluations of all arms, padded to (A, R)."""

    arms: np.ndarray
    n: Array
    d: Array
    y: Array
    """log L."""
    weight: Array
    """1, or 0 where there is no row."""
    same: Array
    """(A, R, R): 1 / m where two rows are of one run of m rows."""
    count: Array
    """(A, R): rows of the run of a row; 1 where there is none."""
    centre: tuple[float, float]
    lowest: float
    per: float
    """FLOPs per N D."""

    @property
    def num_runs(self) -> float:
        """Runs of all arms."""
        return float(np.sum(self.weight / self.count))


@dataclass(frozen=True)
class _Spread:
    """What is found by turns with the parameters."""

    run: float = 0.005
    row: float = 0.005
    tau: float = _TAU
    kappa: float = _KAPPA


def rows_of(measured: Measured) -> Rows:
    """The evaluations that the joint laws are fitted to, arm by arm and padded to the longest of them."""
    kept = _thinned(measured)
    arms = kept.arms
    members = [np.flatnonzero(kept.arm == arm) for arm in arms]
    most = max(map(len, members))
    place = np.full((len(arms), most), -1)
    for s, rows in enumerate(members):
        place[s, : len(rows)] = rows
    has = place >= 0
    log_n, log_d = np.log(kept.size), np.log(kept.tokens)
    centre = (float(log_n.mean()), float(log_d.mean()))
    run = np.where(has, kept.run[place], -1)
    same = ((run[:, :, None] == run[:, None, :]) & has[:, :, None] & has[:, None, :]).astype(float)
    count = np.maximum(same.sum(axis=2), 1.0)
    y = np.where(has, np.log(kept.loss)[place], 0.0)
    return Rows(
        arms, np.where(has, (log_n - centre[0])[place], 0.0), np.where(has, (log_d - centre[1])[place], 0.0), y,
        has.astype(float), same / count[:, :, None], count, centre, float(kept.loss.min()),
        float(np.median(kept.flops / (kept.size * kept.tokens))),
    )  # fmt: skip


def _thinned(measured: Measured) -> Measured:
    """At most so many rows of each run, evenly over its evaluations, the last among them."""
    order = np.lexsort((measured.tokens, measured.run))
    edges = np.flatnonzero(np.diff(measured.run[order])) + 1
    keep = [
        rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _ROWS_A_RUN)).round().astype(int))]
        for rows in np.split(order, edges)
    ]
    mask = np.zeros(len(measured), bool)
    mask[np.concatenate(keep)] = True
    return measured.where(mask)


@dataclass(frozen=True)
class Joint:
    """The fitted law of all arms."""

    kind: str
    arms: np.ndarray
    shared: Array
    """(6,): e, a, b, log alpha, log beta, log gamma."""
    own: Array
    """(A, q): what an arm adds to a, b, and under ``own`` to log alpha and log beta."""
    spread: _Spread
    rows: Rows
    covariance: tuple[Array, Array, Array]
    """Of the shared parameters (p, p); of the own ones given the shared (A, q, q); and d own / d shared (A, q, p)."""

    def log_loss(self, flops: float) -> Array:
        """log of the lowest loss of each arm over all sizes at a compute, (A,)."""
        found: Array = _optimal(self.shared[None], self.own[None], self.rows, flops)[0]
        return found

    def draws(self, flops: float, number: int, generator: np.random.Generator) -> Array:
        """The same with the uncertainty of the parameters, (number, A): shared ones move all arms together."""
        found: Array = self.draws_at([flops], number, generator)[0]
        return found

    def draws_at(self, flops: Sequence[float], number: int, generator: np.random.Generator) -> Array:
        """The same at several computes c under the same draws, (c, number, A)."""
        of_shared, of_own, slope = self.covariance
        free = _free(self.kind)
        moves = generator.standard_normal((number, len(of_shared))) @ _root(of_shared).T
        shared = np.repeat(self.shared[None], number, axis=0)
        shared[:, free] += moves
        own = self.own + np.einsum("aqp,sp->saq", slope, moves)
        noise = generator.standard_normal((number, *self.own.shape))
        own = own + np.einsum("aqr,sar->saq", np.stack([_root(one) for one in of_own]), noise)
        return np.asarray(np.stack([_optimal(shared, own, self.rows, one) for one in flops]))

    def exponents(self) -> Array:
        """alpha and beta of each arm, (A, 2)."""
        both = np.repeat(self.shared[None, 3:5], len(self.arms), axis=0)
        if self.own.shape[1] == 4:
            both = both + self.own[:, 2:]
        return np.exp(both)

    def best_ratio(self, flops: float) -> Array:
        """Tokens per MAC of the best size at a compute, (A,)."""
        log_n = _optimum(self.shared[None], self.own[None], self.rows, flops)[0][0]
        log_d = np.log(flops / self.rows.per) - log_n
        return np.asarray(np.exp(log_d - log_n))


def _root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _optimum(shared: Array, own: Array, rows: Rows, flops: float) -> tuple[Array, ...]:
    """log N of the lowest loss, and a, b, alpha, beta: (s, A) each."""
    a, b = shared[:, 1, None] + own[..., 0], shared[:, 2, None] + own[..., 1]
    log_alpha, log_beta = np.repeat(shared[:, 3:4], own.shape[1], 1), np.repeat(shared[:, 4:5], own.shape[1], 1)
    if own.shape[-1] == 4:
        log_alpha, log_beta = log_alpha + own[..., 2], log_beta + own[..., 3]
    alpha, beta = np.exp(np.clip(log_alpha, -5, 1.5)), np.exp(np.clip(log_beta, -5, 1.5))
    # About the means of log N and log D; n + d = log of what the compute buys.
    total = np.log(flops / rows.per) - rows.centre[0] - rows.centre[1]
    n = (a - b + beta * total + np.log(alpha / beta)) / (alpha + beta)
    return n + rows.centre[0], a, b, alpha, beta


def _optimal(shared: Array, own: Array, rows: Rows, flops: float) -> Array:
    log_n, a, b, alpha, beta = _optimum(shared, own, rows, flops)
    n = log_n - rows.centre[0]
    d = np.log(flops / rows.per) - log_n - rows.centre[1]
    inner = np.logaddexp(a - alpha * n, b - beta * d)
    floor = rows.lowest / (1.0 + np.exp(-shared[:, 0, None]))
    return np.asarray(np.log(floor + np.exp(np.exp(shared[:, 5, None]) * inner)))


def _free(kind: str) -> np.ndarray:
    """Which shared parameters are fitted."""
    return np.arange(6 if kind == "powered" else 5)


def fit(measured: Measured, kind: str) -> Joint:
    """The joint law of one of KINDS."""
    return fit_rows(rows_of(measured), kind)


def fit_rows(rows: Rows, kind: str) -> Joint:
    """The same of evaluations that several laws are fitted to."""
    count = 4 if kind == "own" else 2
    shared, own, spread = _start(rows), np.zeros((len(rows.arms), count)), _Spread()
    if kind != "powered":
        shared[5] = 0.0
    for _ in range(_TURNS):
        shared, own, covariance = _descend(rows, kind, spread, shared, own)
        spread = _spread_of(rows, shared, own, covariance, spread)
    return Joint(kind, rows.arms, shared, own, spread, rows, covariance)


def _start(rows: Rows) -> Array:
    """E half of the lowest loss, the rest in equal parts at the middle of the data."""
    middle = float(np.exp(np.sum(rows.y * rows.weight) / np.sum(rows.weight)))
    part = np.log(max(middle - 0.6 * rows.lowest, 1e-3) / 2)
    return np.array([np.log(1.5), part, part, np.log(0.35), np.log(0.35), 0.0])


def _model(rows: Rows, shared: Array, own: Array, derive: bool = True) -> tuple[Array, Array]:
    """log L, (A, R), and its derivatives in the 6 shared and in the own parameters, (A, R, 6 + q)."""
    count = own.shape[1]
    log_alpha, log_beta = np.full(len(own), shared[3]), np.full(len(own), shared[4])
    if count == 4:
        log_alpha, log_beta = log_alpha + own[:, 2], log_beta + own[:, 3]
    alpha, beta = np.exp(np.clip(log_alpha, -5, 1.5))[:, None], np.exp(np.clip(log_beta, -5, 1.5))[:, None]
    first = (shared[1] + own[:, 0])[:, None] - alpha * rows.n
    second = (shared[2] + own[:, 1])[:, None] - beta * rows.d
    inner = np.logaddexp(first, second)
    gamma = np.exp(shared[5])
    powered = np.exp(np.clip(gamma * inner, -60, 60))
    share = 1.0 / (1.0 + np.exp(-shared[0]))
    floor = rows.lowest * share
    total = floor + powered
    if not derive:
        return np.log(total), np.empty(0)
    scale = gamma * powered / total
    of_a = scale * np.exp(first - inner)
    of_b = scale * np.exp(second - inner)
    of_alpha, of_beta = -of_a * alpha * rows.n, -of_b * beta * rows.d
    slopes = [floor * (1.0 - share) / total, of_a, of_b, of_alpha, of_beta, scale * inner]
    slopes += [of_a, of_b, of_alpha, of_beta][:count]
    return np.log(total), np.stack(slopes, axis=2)


def _whitened(rows: Rows, spread: _Spread, values: Array) -> Array:
    """Rows (A, R, k) whose noise is independent and of size one: the luck of a run is mostly its mean."""
    factor = 1.0 - spread.row / np.sqrt(spread.row**2 + rows.count * spread.run**2)
    found = values * rows.weight[:, :, None]
    return np.asarray((found - factor[:, :, None] * (rows.same @ found)) / spread.row)


def _own_spread(spread: _Spread, count: int) -> Array:
    return np.array([spread.tau, spread.tau, spread.kappa, spread.kappa][:count])


def _descend(
    rows: Rows, kind: str, spread: _Spread, shared: Array, own: Array
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Levenberg and Marquardt's steps; the covariances at the end."""
    free, damping = _free(kind), 1e-2
    here = _system(rows, kind, spread, shared, own)
    for _ in range(_STEPS):
        step, step_own = _solved(here, damping)
        moved = shared.copy()
        moved[free] += np.clip(step, -2, 2)
        moved_own = own + np.clip(step_own, -2, 2)
        there = _system(rows, kind, spread, moved, moved_own)
        if there.cost < here.cost:
            small = here.cost - there.cost < _DONE * max(here.cost, 1.0)
            shared, own, here, damping = moved, moved_own, there, damping * 0.2
            if small:
                break
        else:
            damping = max(damping, 1e-6) * 8
            if damping > 1e8:
                break
    return shared, own, _covariance(here)


@dataclass(frozen=True)
class _System:
    """Gauss and Newton's matrix in blocks, the gradient, and what is made least."""

    both: Array
    """Of the shared parameters, (p, p)."""
    cross: Array
    """(A, q, p)."""
    inside: Array
    """Of the own ones, (A, q, q)."""
    gradient: Array
    gradient_own: Array
    cost: float


def _system(rows: Rows, kind: str, spread: _Spread, shared: Array, own: Array) -> _System:
    predicted, slopes = _model(rows, shared, own)
    free, sizes = _free(kind), _own_spread(spread, own.shape[1])
    white = _whitened(rows, spread, np.concatenate([(predicted - rows.y)[:, :, None], slopes], axis=2))
    of_own, turned = white[:, :, 7:], np.swapaxes(white[:, :, 7:], 1, 2)
    # All rows of all arms below one another: one product instead of many.
    flat = white.reshape(-1, white.shape[2])
    of_shared, residual = flat[:, 1 + free], flat[:, 0]
    offset = ((shared - _PRIOR_MEAN) / _PRIOR_SPREAD)[free]
    both = of_shared.T @ of_shared + np.diag(_PRIOR_SPREAD[free] ** -2.0)
    gradient = of_shared.T @ residual + offset / _PRIOR_SPREAD[free]
    gradient_own = (turned @ white[:, :, :1])[:, :, 0] + own / sizes**2
    cost = float(residual @ residual + offset @ offset + np.sum((own / sizes) ** 2))
    return _System(
        both, turned @ white[:, :, 1 + free], turned @ of_own + np.diag(sizes**-2.0), gradient, gradient_own,
        cost if math.isfinite(cost) else math.inf,
    )  # fmt: skip


def _solved(system: _System, damping: float) -> tuple[Array, Array]:
    both = system.both + damping * np.diag(np.diag(system.both))
    inside = system.inside * (1.0 + damping * np.eye(system.inside.shape[1]))
    solved = np.linalg.solve(inside, np.concatenate([system.cross, system.gradient_own[:, :, None]], axis=2))
    kept, plain = solved[:, :, :-1], solved[:, :, -1]
    # Rows of all arms below one another: the sum over arms is one product.
    flat = system.cross.reshape(-1, len(both)).T
    left = both - flat @ kept.reshape(-1, len(both))
    right = system.gradient - flat @ plain.reshape(-1)
    step = -np.linalg.solve(left, right)
    return np.asarray(step, float), np.asarray(-plain - kept @ step)


def _covariance(system: _System) -> tuple[Array, Array, Array]:
    inverse = np.linalg.inv(system.inside)
    slope = -inverse @ system.cross
    left = system.both + np.einsum("aqp,aqr->pr", system.cross, slope)
    return np.asarray(np.linalg.inv((left + left.T) / 2), float), np.asarray(inverse, float), np.asarray(slope)


def _spread_of(
    rows: Rows, shared: Array, own: Array, covariance: tuple[Array, Array, Array], before: _Spread
) -> _Spread:
    """Noise by the residuals, spreads of the arms by their own parameters and what is not known of them."""
    predicted, _ = _model(rows, shared, own, derive=False)
    residual = (rows.y - predicted) * rows.weight
    mean = (rows.same @ residual[:, :, None])[:, :, 0]
    total, runs = float(np.sum(rows.weight)), rows.num_runs
    within = float(np.sum((residual - mean) ** 2)) / max(total - runs, 1.0)
    # Each run counts once; about one degree of freedom for each parameter is spent.
    spent = max(runs - own.size * 0.7 - 5, 0.3 * runs)
    between = float(np.sum(mean**2 * rows.weight / rows.count)) / spent - within * runs / total
    _, of_own, slope = covariance
    full = of_own + slope @ covariance[0] @ np.swapaxes(slope, 1, 2)
    variance = np.diagonal(full, axis1=1, axis2=2)
    second = np.mean(own**2 + variance, axis=0)
    tau = float(np.sqrt(np.mean(second[:2])))
    kappa = float(np.sqrt(np.mean(second[2:]))) if own.shape[1] == 4 else before.kappa
    return replace(
        before,
        run=float(np.sqrt(max(between, _LEAST_NOISE**2))),
        row=float(np.sqrt(max(within, _LEAST_NOISE**2))),
        tau=max(tau, _LEAST_TAU),
        kappa=float(np.clip(kappa, _LEAST_KAPPA, _MOST_KAPPA)),
    )


def multipliers(
    joint: Joint, arm: int, base: int, flops: float, more: float, number: int, generator: np.random.Generator
) -> Array:
    """Draws of the compute at which arm ``base`` reaches the loss of ``arm`` at ``flops``, over ``flops``: (number,).

    ``more``: standard deviation of log loss between the two that the law does not know. What lies beyond a factor of
    1,000 either way is that factor.
    """
    place = np.searchsorted(joint.arms, [arm, base])
    computes = flops * np.geomspace(1e-3, 1e3, 61)
    draws = joint.draws_at([*computes, flops], number, generator)
    wanted = draws[-1, :, place[0]] + more * np.sqrt(2.0) * generator.standard_normal(number)
    curves = draws[:-1, :, place[1]]
    # np.interp needs a rising abscissa: losses fall.
    logs = [np.interp(-wanted[s], -curves[:, s], np.log(computes / flops)) for s in range(number)]
    return np.asarray(np.exp(np.array(logs)))
