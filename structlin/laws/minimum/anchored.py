"""How is E + sum_k A_k x_k^-alpha_k brought to its global minimum? Grid, anchored Newton, and E = 0 as a face.

``Axes`` holds the logarithms of the variables (one for a frontier in C, two for N and D), moved to [0, 1] and
centred. The constrained minimum (E >= 0) is either inside, where the anchored coordinates see it, or on the face
E = 0, which is a problem of its own; both are solved and the lower one counts.

theta here is always (E, log A'_1.., alpha_1..) with centred logarithms; K = 1 or 2 axes, n rows, b problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np

from structlin.laws.minimum.forms import AnchoredSum, SumOfPowers
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.minimum.solver import Solution, minimise

# Exponents of the grid: dense where laws live (0.1 to 1), sparse up to the bound.
EXPONENTS = np.concatenate(
    [np.array([0.002, 0.01]), np.arange(0.03, 1.0, 0.055), np.array([1.05, 1.2, 1.5, 2.0, 2.7, 3.6, 5.0, 7.0, 10.0])]
)
# Every second exponent, for the many fits of backtest and sensitivity.
COARSE = EXPONENTS[::2]
# Iterations after which a descent must be among the best two to go on; most need fewer than 20.
_SHORT = 40
MIN_EXPONENT, MAX_EXPONENT = 1e-4, 10.0


@dataclass(frozen=True)
class Axes:
    """The logarithms of the variables of a law."""

    logs: tuple[Array, ...]
    """Centred logarithms, each (n,)."""
    centre: tuple[float, ...]
    """What was taken out."""

    @classmethod
    def of(cls, *variables: Array) -> Axes:
        """Axes of positive variables, each (n,)."""
        logs = [np.log(np.asarray(v, dtype=float)) for v in variables]
        centre = tuple(float(x.mean()) for x in logs)
        return cls(tuple(x - c for x, c in zip(logs, centre, strict=True)), centre)

    @property
    def count(self) -> int:
        """Number of variables."""
        return len(self.logs)

    def ranges(self) -> list[tuple[float, float]]:
        """(lowest, length) of each centred logarithm."""
        return [(float(x.min()), max(float(np.ptp(x)), 1e-9)) for x in self.logs]

    def anchored(self) -> AnchoredSum:
        """The law with E free, even negative."""
        spans = self.ranges()
        units = tuple((x - low) / length for x, (low, length) in zip(self.logs, spans, strict=True))
        lower = [1e-9, *[0.0] * self.count, *[MIN_EXPONENT * length for _, length in spans]]
        upper = [np.inf, *[np.inf] * self.count, *[MAX_EXPONENT * length for _, length in spans]]
        return AnchoredSum(units, np.array(lower), np.array(upper))

    def powers(self, pinned: float | None = None) -> SumOfPowers:
        """The law with E held at a value, or free above zero."""
        k, n = self.count, len(self.logs[0])
        constant = np.zeros((n, 1 + 2 * k))
        constant[:, 0] = 1.0
        features = []
        for i, x in enumerate(self.logs):
            phi = np.zeros((n, 1 + 2 * k))
            phi[:, 1 + i], phi[:, 1 + k + i] = 1.0, -x
            features.append(phi)
        low, high = (0.0, np.inf) if pinned is None else (pinned, pinned)
        lower = np.array([low, *[-60.0] * k, *[MIN_EXPONENT] * k])
        upper = np.array([high, *[60.0] * k, *[MAX_EXPONENT] * k])
        return SumOfPowers(constant, tuple(features), lower, upper)

    def to_anchored(self, theta: Array) -> Array:
        """(E, log A', alpha) -> (m, drop, bend), (b, p)."""
        k = self.count
        out = np.empty_like(theta)
        out[:, 0] = theta[:, 0]
        for i, (low, length) in enumerate(self.ranges()):
            alpha = theta[:, 1 + k + i]
            # The term at either end of its axis. What it still is at the far end is part of m, and no drop.
            near = np.exp(theta[:, 1 + i] - alpha * low)
            far = near * np.exp(-alpha * length)
            out[:, 0] += far
            out[:, 1 + i], out[:, 1 + k + i] = near - far, alpha * length
        return out

    def from_anchored(self, theta: Array) -> Array:
        """(m, drop, bend) -> (E, log A', alpha); E may come out negative, (b, p)."""
        k = self.count
        out = np.empty_like(theta)
        out[:, 0] = theta[:, 0]
        for i, (low, length) in enumerate(self.ranges()):
            bend = theta[:, 1 + k + i]
            # expm1: a nearly straight term has a bend near zero, where 1 - exp(-bend) has lost its digits.
            near = theta[:, 1 + i] / -np.expm1(-bend)
            out[:, 0] -= near * np.exp(-bend)
            out[:, 1 + k + i] = bend / length
            # A drop of zero has no logarithm; the floor keeps a vanished term finite, and as good as zero.
            out[:, 1 + i] = np.log(np.maximum(near, 1e-26)) + bend / length * low
        return out


def project(
    axes: Axes, loss: Array, weights: Array, pinned: float | None = None, grid: Array = EXPONENTS
) -> tuple[Array, Array]:
    """The best non-negative (E, A') for each grid point of exponents in weighted squares.

    Returns theta (cells, p) and the sums of squares with one dimension per axis.
    """
    k = axes.count
    cells = len(grid) ** k
    terms = [np.exp(-grid[:, None] * x) for x in axes.logs]
    # Columns are scaled to unit weighted length: the systems stay well conditioned at any exponent.
    lengths = [np.sqrt(term**2 @ weights) for term in terms]
    units = [term / length[:, None] for term, length in zip(terms, lengths, strict=True)]
    length_e = float(np.sqrt(weights.sum()))
    target = loss - (pinned or 0.0)
    index = [mesh.ravel() for mesh in np.meshgrid(*[np.arange(len(grid))] * k, indexing="ij")]
    gram = np.empty((cells, k + 1, k + 1))
    gram[:, range(k + 1), range(k + 1)] = 1.0
    right = np.empty((cells, k + 1))
    right[:, 0] = float(target @ weights) / length_e
    for i in range(k):
        gram[:, 0, 1 + i] = gram[:, 1 + i, 0] = (units[i] @ weights / length_e)[index[i]]
        right[:, 1 + i] = (units[i] @ (weights * target))[index[i]]
        for j in range(i):
            both = ((units[i] * weights) @ units[j].T)[index[i], index[j]]
            gram[:, 1 + i, 1 + j] = gram[:, 1 + j, 1 + i] = both
    columns = range(k + 1) if pinned is None else range(1, k + 1)
    coefficients, sums = _non_negative(gram, right, float(weights @ target**2), list(columns))
    theta = np.empty((cells, 1 + 2 * k))
    theta[:, 0] = coefficients[:, 0] / length_e if pinned is None else pinned
    for i in range(k):
        theta[:, 1 + i] = np.log(np.maximum(coefficients[:, 1 + i] / lengths[i][index[i]], 1e-25))
        theta[:, 1 + k + i] = grid[index[i]]
    return theta, sums.reshape([len(grid)] * k)


def _non_negative(gram: Array, right: Array, square: float, columns: list[int]) -> tuple[Array, Array]:
    """Least squares with non-negative coefficients for many small systems, by trying every set of positive ones.

    gram (c, q, q), right (c, q), ``square`` the sum of squares of the target. Returns (c, q) and sums (c,).
    """
    best, coefficients = np.full(len(gram), np.inf), np.zeros(right.shape)
    # At most three coefficients, so seven sets: fewer operations than an active-set loop, and all cells share them.
    for count in range(1, len(columns) + 1):
        for chosen in combinations(columns, count):
            index = np.array(chosen)
            # Columns have unit length, so the small number is relative: equal exponents would make it singular.
            part = gram[:, index[:, None], index] + 1e-13 * np.eye(count)
            answer = np.linalg.solve(part, right[:, index, None])[:, :, 0]
            # At a least-squares answer the square of the residual is |y|^2 - answer . right.
            residual = square - np.sum(answer * right[:, index], axis=1)
            # A set with a negative coefficient is no candidate: its best allowed answer lies in a smaller set.
            take = (answer > 0).all(axis=1) & (residual < best)
            best[take] = residual[take]
            coefficients[take] = 0.0
            coefficients[np.ix_(take, index)] = answer[take]
    return coefficients, best


def _local_minima(surface: Array) -> np.ndarray:
    """Flat positions of cells not above any neighbour, lowest first."""
    padded = np.pad(surface, 1, constant_values=np.inf)
    lowest = np.isfinite(surface)
    for shift in product((0, 1, 2), repeat=surface.ndim):
        window = tuple(slice(s, s + n) for s, n in zip(shift, surface.shape, strict=True))
        lowest &= surface <= padded[window]
    flat = np.flatnonzero(lowest.ravel())
    return flat[np.argsort(surface.ravel()[flat], kind="stable")]


def starts(
    axes: Axes,
    loss: Array,
    objective: Objective,
    weights: Array,
    pinned: float | None = None,
    count: int = 8,
    grid: Array = EXPONENTS,
    few: bool = False,
) -> Array:
    """Starting points (b, p): local minima of the projected grid, in squares and in the objective itself.

    ``few``: only the lowest in the objective, and the lowest of those in which every term lives.
    """
    relative = weights / loss**2 if objective.logarithmic else weights
    theta, sums = project(axes, loss, relative, pinned, grid)
    residual = objective.residual(axes.powers().predict(theta), objective.target(loss))
    surface = (objective.value(residual) @ weights).reshape(sums.shape)
    # A term that is zero in a cell has no gradient in its exponent: cells where every term lives are starts too.
    living = np.where((theta[:, 1 : 1 + axes.count] > -50).all(axis=1), surface.ravel(), np.inf)
    if few:
        chosen = [_local_minima(surface)[:1], _local_minima(living.reshape(sums.shape))[:1]]
        return np.asarray(theta[np.unique(np.concatenate(chosen))])
    chosen = [
        _local_minima(surface)[: count - 2],
        _local_minima(sums)[:2],
        np.argsort(surface.ravel())[:2],
        _local_minima(living.reshape(sums.shape))[:3],
    ]
    return np.asarray(theta[np.unique(np.concatenate(chosen))])


def solve(
    axes: Axes,
    loss: Array,
    objective: Objective,
    begin: Array,
    *,
    weights: Array | None = None,
    pinned: float | None = None,
    tolerance: float = 1e-13,
    continuation: bool = True,
    max_iterations: int = 200,
) -> Solution:
    """Descend from each start (b, p) under E >= 0, or with E pinned. theta of the answer is (E, log A', alpha)."""
    options = {"tolerance": tolerance, "continuation": continuation, "max_iterations": max_iterations}
    if pinned is not None:
        return minimise(axes.powers(pinned), objective, loss, begin, weights=weights, **options)  # type: ignore[arg-type]
    inside = minimise(
        axes.anchored(),
        objective,
        loss,
        axes.to_anchored(begin),
        weights=weights,
        **options,  # type: ignore[arg-type]
    )
    theta = axes.from_anchored(inside.theta)
    outside = np.flatnonzero(theta[:, 0] < 0)
    if not len(outside):
        return Solution(theta, inside.value, inside.gradient_norm, inside.converged, inside.iterations)
    from_here = theta[outside]
    from_here[:, 0] = 0.0
    part = None if weights is None else np.broadcast_to(weights, (len(begin), loss.shape[-1]))[outside]
    loss = loss[outside] if loss.ndim > 1 else loss
    face = minimise(axes.powers(0.0), objective, loss, from_here, weights=part, **options)  # type: ignore[arg-type]
    value, norm, done = inside.value.copy(), inside.gradient_norm.copy(), inside.converged.copy()
    theta[outside], value[outside] = face.theta, face.value
    norm[outside], done[outside] = face.gradient_norm, face.converged
    return Solution(theta, value, norm, done, max(inside.iterations, face.iterations))


def search(
    axes: Axes,
    loss: Array,
    objective: Objective,
    weights: Array,
    pinned: float | None = None,
    grid: Array = EXPONENTS,
    near: Array | None = None,
    tolerance: float = 1e-13,
) -> Solution:
    """Every descent from the grid's best cells: the lowest is the global minimum as far as the grid can see.

    ``near`` (k, p) are further starts, such as the minimum of a problem that differs little: with them the grid, coarse
    then, gives only its best cell.
    """
    begin = starts(axes, loss, objective, weights, pinned, grid=grid, few=near is not None)
    if near is not None:
        begin = np.concatenate([near, begin])
    short: dict[str, Any] = {"weights": weights, "tolerance": tolerance, "max_iterations": _SHORT}
    found = solve(axes, loss, objective, begin, pinned=pinned, **short)
    if pinned is None and (found.theta[:, 0] <= 0).any():
        # Some descent ended on the face E = 0: the face has minima of its own.
        face = starts(axes, loss, objective, weights, 0.0, count=5, grid=grid)
        found = _together(found, minimise(axes.powers(0.0), objective, loss, face, **short))
    dead = _dead_terms(axes, found)
    if len(dead):
        found = _together(found, solve(axes, loss, objective, dead, pinned=pinned, **short))
    best = np.argsort(found.value)[:2]
    if not found.converged[best].all():
        # Data that hardly bend leave a long flat valley: only the best two descents walk on along it.
        options: dict[str, Any] = {"weights": weights, "tolerance": tolerance, "continuation": False}
        options["max_iterations"] = 200 if near is None else 2 * _SHORT
        found = _together(found, solve(axes, loss, objective, found.theta[best], pinned=pinned, **options))
    return found


def _dead_terms(axes: Axes, found: Solution) -> Array:
    """Starts that bring a vanished term of the winner back at other exponents: it has no gradient of its own there."""
    winner = found.theta[np.argmin(found.value)]
    alive = []
    for i in range(axes.count):
        # Below 1e-11 nats at the mean of the data the term is gone, and no gradient in its exponent leads back.
        if winner[1 + i] < -25.0:
            again = np.repeat(winner[None], len(EXPONENTS[::3]), axis=0)
            again[:, 1 + axes.count + i] = EXPONENTS[::3]
            low, _ = axes.ranges()[i]
            # 1e-4 of E at the low end, where the term is largest: enough for a gradient, too little to spoil the fit.
            again[:, 1 + i] = np.log(1e-4 * max(winner[0], 1e-2)) + EXPONENTS[::3] * low
            alive.append(again)
    return np.concatenate(alive) if alive else np.empty((0, 1 + 2 * axes.count))


def _together(first: Solution, second: Solution) -> Solution:
    """Two sets of descents as one."""
    return Solution(
        np.concatenate([first.theta, second.theta]),
        np.concatenate([first.value, second.value]),
        np.concatenate([first.gradient_norm, second.gradient_norm]),
        np.concatenate([first.converged, second.converged]),
        max(first.iterations, second.iterations),
    )
