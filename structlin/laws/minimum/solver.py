"""Where is the minimum? A damped Newton method for many problems at once, with a certificate for each answer.

Every problem of a batch shares the rows of a model and has its own weights (a bootstrap draw), its own start, or
both. A step solves (H + damping * M) s = -g: H is the exact second derivative of the objective, M the positive
matrix of iteratively reweighted least squares. Small damping is Newton's method (quadratic at the end), large
damping is a majorise-minimise step that always descends, so no line search can stall on the kinks of a Huber loss.
A narrow Huber loss is entered from a wide one (``continuation``): the minimum of the wide one leads into the basin.

A library's success flag is not a certificate. ``Solution`` carries the scaled gradient norm, the bounds that are
active and the condition number of the Hessian; the caller compares basins.

Shapes: b problems, n rows, p parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from structlin.laws.minimum.forms import Model
from structlin.laws.minimum.objective import Array, Objective

# Rows of one chunk: the working arrays of a chunk then stay inside a core's cache. Measured, see bench/laws.py.
_CHUNK_ELEMENTS = 60_000
_TINY = 1e-300
# Damping at the start, after a step that was taken and after one that was not: the fewest iterations of refits.
_DAMPING, _EASE, _TIGHTEN = 0.1, 0.3, 4.0


@dataclass(frozen=True)
class Solution:
    """The end of each of b descents."""

    theta: Array
    """Parameters, (b, p)."""
    value: Array
    """Objective, (b,)."""
    gradient_norm: Array
    """Decrease that a Newton step still promises, relative to the objective, (b,): 0 at a minimum."""
    converged: NDArrayBool
    """Whether the promised decrease fell below the tolerance, (b,)."""
    iterations: int
    """Newton iterations of the slowest problem."""


NDArrayBool = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass
class _Batch:
    """The state of the problems that still move."""

    theta: Array
    weights: Array
    delta: Array
    damping: Array


@dataclass(frozen=True)
class _Local:
    """The objective around the parameters of a batch."""

    value: Array
    """Objective, (b,)."""
    gradient: Array
    """Its gradient, (b, p)."""
    matrix: Array
    """Hessian + damping * majoriser, (b, p, p)."""
    jacobian: Array
    """df/dtheta, (b, p, n)."""
    major: Array
    """Weights of the majoriser J diag(major) J^T, (b, n)."""

    def majoriser(self, chosen: NDArrayBool) -> Array:
        """The positive matrix of iteratively reweighted least squares of some problems."""
        jac = self.jacobian[chosen]
        return (jac * self.major[chosen, None, :]) @ np.swapaxes(jac, 1, 2)


def _around(model: Model, objective: Objective, target: Array, batch: _Batch) -> _Local:
    """Objective, gradient and damped Hessian: one product of Jacobians serves Hessian and majoriser."""
    at = model.evaluate(batch.theta)
    f, jac = at.predicted, at.jacobian
    width = batch.delta[:, None]
    r = objective.residual(f, target)
    value = np.add.reduce(batch.weights * objective.value(r, width), axis=1)
    psi = batch.weights * objective.slope(r, width)
    inside = major = batch.weights
    if objective.robust:
        size = np.abs(r)
        # The Huber loss is a square up to delta and straight beyond: its second derivative is 1, then 0. The majoriser
        # is the parabola that touches it at r from above, of curvature delta / |r|.
        inside = batch.weights * (size <= width)
        major = batch.weights * np.minimum(1.0, width / np.maximum(size, _TINY))
    newton, first = inside, psi
    if objective.logarithmic:
        # log f has the slope 1 / f, and its own curvature -1 / f^2 takes psi off the exact Hessian. The majoriser goes
        # without, so that it stays positive.
        scale = 1.0 / f
        first = psi * scale
        square = scale * scale
        newton, major = (inside - psi) * square, major * square
    gradient = (jac @ first[:, :, None])[:, :, 0]
    both = newton + batch.damping[:, None] * major
    matrix = (jac * both[:, None, :]) @ np.swapaxes(jac, 1, 2) + model.curvature(at, first)
    return _Local(value, gradient, matrix, jac, major)


def _free(theta: Array, gradient: Array, lower: Array, upper: Array) -> NDArrayBool:
    """Parameters that are not held at a bound by a gradient that pushes outwards, (b, p)."""
    held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
    return ~held


def _step(gradient: Array, matrix: Array, free: NDArrayBool) -> Array:
    """-matrix^-1 gradient in the free parameters, scaled by the diagonal; zero elsewhere."""
    p = gradient.shape[1]
    # A unit diagonal: E, log A and exponents differ by orders of magnitude, and rounding would decide the small ones.
    diagonal = np.sqrt(np.maximum(np.abs(np.einsum("bpp->bp", matrix)), _TINY))
    scaled = matrix / (diagonal[:, :, None] * diagonal[:, None, :])
    if not free.all():
        scaled = np.where(free[:, :, None] & free[:, None, :], scaled, 0.0)
    # 1 where a parameter is held: one batched solve serves problems that hold different ones. The small number keeps a
    # vanished term, whose row is zero, from making the matrix singular.
    scaled[:, range(p), range(p)] += ~free + 1e-13
    right = np.where(free, gradient / diagonal, 0.0)
    try:
        step: Array = -np.linalg.solve(scaled, right[:, :, None])[:, :, 0] / diagonal
    except np.linalg.LinAlgError:
        # Terms of one variable twice (D = k N) may cancel to the last digit: the shortest step of all that fit.
        step = -(np.linalg.pinv(scaled, hermitian=True) @ right[:, :, None])[:, :, 0] / diagonal
    return np.where(free, step, 0.0)


def _propose(here: _Local, damping: Array, free: NDArrayBool) -> tuple[Array, Array]:
    """A descent step and the decrease its quadratic model promises, (b, p) and (b,)."""
    step = _step(here.gradient, here.matrix, free)
    curved = np.add.reduce((here.matrix @ step[:, :, None])[:, :, 0] * step, axis=1)
    slope = np.add.reduce(step * here.gradient, axis=1)
    # Away from a minimum the Hessian may be indefinite. The majoriser is positive there too, and its step descends.
    bad = ~np.isfinite(slope) | (slope >= 0) | (curved <= 0)
    if bad.any():
        fallback = (1.0 + damping[bad, None, None]) * here.majoriser(bad)
        step[bad] = _step(here.gradient[bad], fallback, free[bad])
        slope[bad] = np.sum(step[bad] * here.gradient[bad], axis=1)
    # g^T M^-1 g: twice the decrease of the quadratic model, and so a bound of it that is zero at a minimum only.
    return step, -slope


def _values(model: Model, objective: Objective, target: Array, batch: _Batch, theta: Array) -> Array:
    """The objective at theta (b, p), infinite where the law is not positive."""
    with np.errstate(all="ignore"):
        r = objective.residual(model.predict(theta), target)
        value = np.add.reduce(batch.weights * objective.value(r, batch.delta[:, None]), axis=1)
    return np.where(np.isfinite(value), value, np.inf)


def _descend(
    model: Model,
    objective: Objective,
    target: Array,
    batch: _Batch,
    tolerance: float,
    max_iterations: int,
) -> tuple[Array, Array, NDArrayBool, int]:
    """Newton until each promised decrease is below tolerance * objective. Mutates batch.theta and damping."""
    b = len(batch.theta)
    value, promised = np.full(b, np.inf), np.full(b, np.inf)
    done = np.zeros(b, dtype=bool)
    active = np.arange(b)
    count = 0
    while len(active) and count < max_iterations:
        count += 1
        rows = target[active] if target.ndim > 1 else target
        part = _Batch(batch.theta[active], batch.weights[active], batch.delta[active], batch.damping[active])
        local = _around(model, objective, rows, part)
        here = value[active] = local.value
        free = _free(part.theta, local.gradient, model.lower, model.upper)
        step, decrease = _propose(local, part.damping, free)
        promised[active] = decrease
        finished = (decrease <= tolerance * np.maximum(here, _TINY)) | (part.damping > 1e12)
        moved = np.clip(part.theta + step, model.lower, model.upper)
        there = _values(model, objective, rows, part, moved)
        better = there < here
        batch.theta[active[better]] = moved[better]
        value[active[better]] = there[better]
        batch.damping[active] = np.where(better, part.damping * _EASE, np.maximum(part.damping, 1e-6) * _TIGHTEN)
        done[active[finished]] = decrease[finished] <= tolerance * np.maximum(here[finished], _TINY)
        active = active[~finished]
    return value, promised, done, count


def _deltas(objective: Objective, wide: float, tolerance: float) -> list[tuple[float, float]]:
    """(delta, tolerance) from a wide Huber loss down to the wanted one."""
    stages = []
    width = wide
    while objective.robust and width > 2 * objective.delta:
        stages.append((width, 1e-4))
        width /= 4.0
    return [*stages, (objective.delta, tolerance)]


def minimise(
    model: Model,
    objective: Objective,
    loss: Array,
    start: Array,
    *,
    weights: Array | None = None,
    tolerance: float = 1e-13,
    max_iterations: int = 200,
    continuation: bool = True,
) -> Solution:
    """Minimise sum_i w_i objective(f_i(theta), L_i) from each start.

    loss (n,) or (b, n), start (b, p), weights (b, n) or None for ones; bounds come from the model. A problem that
    did not converge says so in its ``Solution``. Raises nothing: a law that is not positive is never accepted.
    """
    target = objective.target(loss)
    start = np.clip(np.atleast_2d(np.asarray(start, dtype=float)), model.lower, model.upper)
    b, n = len(start), target.shape[-1]
    rows = np.ones((b, n)) if weights is None else np.broadcast_to(weights, (b, n))
    size = max(1, _CHUNK_ELEMENTS // max(n, 1))
    parts = [
        _minimise_chunk(model, objective, target[i : i + size] if target.ndim > 1 else target, start[i : i + size],
                        rows[i : i + size], tolerance, max_iterations, continuation)
        for i in range(0, b, size)
    ]  # fmt: skip
    return Solution(
        theta=np.concatenate([part.theta for part in parts]),
        value=np.concatenate([part.value for part in parts]),
        gradient_norm=np.concatenate([part.gradient_norm for part in parts]),
        converged=np.concatenate([part.converged for part in parts]),
        iterations=max(part.iterations for part in parts),
    )


def _minimise_chunk(
    model: Model,
    objective: Objective,
    target: Array,
    start: Array,
    weights: Array,
    tolerance: float,
    max_iterations: int,
    continuation: bool,
) -> Solution:
    """``minimise`` for as many problems as fit a cache."""
    wide = objective.delta
    if continuation and objective.robust:
        with np.errstate(all="ignore"):
            spread = np.abs(objective.residual(model.predict(start), target))
        wide = float(np.nanmedian(np.where(np.isfinite(spread), spread, np.nan)))
    batch = _Batch(start.copy(), np.asarray(weights), np.empty(len(start)), np.full(len(start), _DAMPING))
    used = 0
    value = promised = np.full(len(start), np.inf)
    done: NDArrayBool = np.zeros(len(start), dtype=bool)
    for delta, within in _deltas(objective, wide, tolerance):
        batch.delta[:] = delta
        batch.damping = np.clip(batch.damping, 1e-4, 1e-1)
        limit = max_iterations if within == tolerance else 8
        value, promised, done, count = _descend(model, objective, target, batch, within, limit)
        used += count
    return Solution(batch.theta, value, promised / np.maximum(value, _TINY), done, used)
