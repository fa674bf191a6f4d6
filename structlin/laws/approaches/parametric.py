"""What is L(N, D)? Approach 3 of arXiv 2203.15556, fitted to the global minimum of a robust objective.

    additive    L = E + A / N^alpha + B / D^beta
    powered     L = E + (A / N^alpha + B / D^beta)^gamma          (gamma = 1 is the additive law)

Given the exponents the additive law is linear in (E, A, B): on a dense grid of exponents that linear part is solved
in closed form with non-negative coefficients (variable projection), all cells at once. The best cells and the local
minima of the grid start a damped Newton method (``anchored``, ``solver``) that ends at 1e-13 of the objective.
A and B are given for the units of the input.

For this project's own runs N is forward multiply-accumulates per token, so the training compute is exactly 6 N D.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from structlin.laws.minimum.anchored import COARSE, Axes, search, solve
from structlin.laws.minimum.forms import Model, PoweredSum
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.minimum.solver import Solution, minimise

_GAMMAS = (0.3, 0.6, 1.0, 1.6, 3.0)


@dataclass(frozen=True)
class ParametricLaw:
    """L(N, D) with its parameters in the units of the input."""

    E: float
    """Irreducible loss, nats per token."""
    A: float
    """Coefficient of the model term."""
    B: float
    """Coefficient of the data term."""
    alpha: float
    """Exponent of the model size."""
    beta: float
    """Exponent of the data size."""
    gamma: float = 1.0
    """Outer exponent; 1 is the additive law."""

    def loss(self, size: Array | float, tokens: Array | float) -> Array:
        """L at a model size and a number of tokens (broadcast)."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            inner = self.A / np.asarray(size, float) ** self.alpha + self.B / np.asarray(tokens, float) ** self.beta
            return np.asarray(self.E + inner**self.gamma)

    @property
    def size_exponent(self) -> float:
        """a in N_opt ~ C^a for C proportional to N D: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def tokens_exponent(self) -> float:
        """b in D_opt ~ C^b: alpha / (alpha + beta)."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def compute_exponent(self) -> float:
        """a in L = E + K C^-a along the compute-optimal frontier: gamma alpha beta / (alpha + beta)."""
        return self.gamma * self.alpha * self.beta / (self.alpha + self.beta)

    def optimum(self, flops: Array | float, flops_per_nd: float = 6.0) -> tuple[Array, Array]:
        """(N, D) that minimise L with flops_per_nd * N * D = flops (arXiv 2203.15556, eq. 4)."""
        log_product = np.log(np.asarray(flops, float) / flops_per_nd)
        # In logarithms: with an exponent near zero the powers leave the range of floats.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            log_ratio = np.log(self.alpha * self.A) - np.log(self.beta * self.B)
            log_size = (log_ratio + self.beta * log_product) / (self.alpha + self.beta)
            return np.exp(log_size), np.exp(log_product - log_size)

    def frontier(self, flops: Array | float, flops_per_nd: float = 6.0) -> Array:
        """The lowest loss at a compute."""
        return self.loss(*self.optimum(flops, flops_per_nd))


@dataclass(frozen=True)
class ParametricFit:
    """A fitted law and the evidence that it is the minimum."""

    law: ParametricLaw
    """The law at the lowest objective found."""
    theta: Array
    """(E, log A', log B', alpha, beta[, gamma]) with N and D centred."""
    centre: tuple[float, float]
    """Means of log N and log D that were taken out."""
    objective: float
    """The objective at the minimum: a sum over rows."""
    gradient_norm: float
    """Largest absolute derivative of the objective in theta, bounds that hold taken out."""
    converged: bool
    """Whether a further Newton step promises less than 1e-13 of the objective."""
    condition: float
    """Condition number of the scaled Gauss-Newton matrix: above 1e4 single parameters mean little."""
    bound_distance: dict[str, float]
    """How far each bounded parameter is from its nearest bound."""
    basins: tuple[float, ...]
    """Objectives of the other minima found, lowest first."""
    residuals: Array
    """log(predicted / measured) of each row, (n,)."""


def powered_model(axes: Axes, pinned: float | None = None) -> PoweredSum:
    """The powered law on two axes; theta = (E, log A', log B', alpha, beta, gamma)."""
    plain = axes.powers(pinned)
    pad = np.zeros((len(axes.logs[0]), 1))
    return PoweredSum(
        np.hstack([plain.constant, pad]),
        tuple(np.hstack([phi, pad]) for phi in plain.powers),
        np.append(plain.lower, 0.05),
        np.append(plain.upper, 20.0),
    )


def fit(
    size: Array,
    tokens: Array,
    loss: Array,
    objective: Objective | None = None,
    *,
    weights: Array | None = None,
    form: str = "additive",
    pinned: float | None = None,
    near: ParametricFit | None = None,
) -> ParametricFit:
    """Fit L(N, D) to rows (n,): the lowest minimum of the objective over the whole box of parameters.

    ``pinned`` fixes E in nats. ``near`` is the fit of nearly the same problem: its law is a start too, beside the best
    cells of a coarser grid, and descents end at 1e-8 of the objective. Needs at least six rows; the caller checks that
    N and D vary.
    """
    objective = objective or Objective()
    loss = np.asarray(loss, dtype=float)
    rows = np.ones(len(loss)) if weights is None else weights
    axes = Axes.of(size, tokens)
    if near is None:
        found = search(axes, loss, objective, rows, pinned)
    else:
        begin = _recentred(near, axes)[None]
        found = search(axes, loss, objective, rows, pinned, COARSE, begin, tolerance=1e-8)
    model: Model = axes.powers(pinned)
    if form == "powered":
        best = found.theta[np.argsort(found.value)[:2]]
        begin = np.concatenate([_powered_starts(best, gamma) for gamma in _GAMMAS])
        model = powered_model(axes, pinned)
        found = minimise(model, objective, loss, begin, weights=rows)
    return _report(model, objective, loss, rows, found, (axes.centre[0], axes.centre[1]))


def refit(
    fitted: ParametricFit,
    size: Array,
    tokens: Array,
    loss: Array,
    objective: Objective,
    weights: Array,
    pinned: float | None = None,
    *,
    rows: np.ndarray | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 60,
) -> Array:
    """The law refitted with other row weights (b, n), from its own minimum: theta (b, p), centred as in ``fitted``.

    loss (n,), or (b, n) for tables of their own; ``rows`` are the positions that count, all when not given. A descent
    ends when a step promises less than ``tolerance`` of the objective, or after ``max_iterations``.
    """
    axes = Axes.of(size, tokens)
    if rows is not None:
        axes = Axes(tuple(x[rows] for x in axes.logs), axes.centre)
        loss, weights = loss[..., rows], weights[:, rows]
    begin = np.repeat(fitted.theta[None], len(weights), axis=0)
    options: dict[str, Any] = {"weights": weights, "tolerance": tolerance, "max_iterations": max_iterations}
    if len(fitted.theta) > 5:
        return minimise(powered_model(axes, pinned), objective, loss, begin, continuation=False, **options).theta
    return solve(axes, loss, objective, begin, pinned=pinned, continuation=False, **options).theta


def samples_of(theta: Array, centre: tuple[float, float]) -> dict[str, Array]:
    """Named parameters of a batch theta (b, p) in the units of the input, and the exponents that follow from them."""
    alpha, beta = theta[:, 3], theta[:, 4]
    gamma = theta[:, 5] if theta.shape[1] > 5 else np.ones(len(theta))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return {
            "E": theta[:, 0],
            "A": np.exp(theta[:, 1] + alpha * centre[0]),
            "B": np.exp(theta[:, 2] + beta * centre[1]),
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
            "size_exponent": beta / (alpha + beta),
            "tokens_exponent": alpha / (alpha + beta),
            "compute_exponent": gamma * alpha * beta / (alpha + beta),
        }


def _recentred(near: ParametricFit, axes: Axes) -> Array:
    """theta (5,) of the additive terms of a fit, moved to other centres of log N and log D."""
    theta = near.theta[:5].copy()
    for k in (0, 1):
        theta[1 + k] += theta[3 + k] * (near.centre[k] - axes.centre[k])
    return theta


def _powered_starts(theta: Array, gamma: float) -> Array:
    """The additive law's parameters moved to an outer exponent: both terms to the power 1 / gamma."""
    moved = theta.copy()
    moved[:, 1:5] /= gamma
    return np.column_stack([moved, np.full(len(theta), gamma)])


def _report(
    model: Model, objective: Objective, loss: Array, weights: Array, found: Solution, centre: tuple[float, float]
) -> ParametricFit:
    """The best of several descents with its certificate."""
    order = np.argsort(found.value)
    winner = order[0]
    theta, value = found.theta[winner], float(found.value[winner])
    at = model.evaluate(theta[None])
    residual = objective.residual(at.predicted[0], objective.target(loss))
    # Of log f where logarithms are compared: the chain rule brings 1 / f.
    slope = weights * objective.slope(residual) / (at.predicted[0] if objective.logarithmic else 1.0)
    gradient = at.jacobian[0] @ slope
    # At a bound a gradient that pushes outwards is no sign of an unfinished descent.
    held = ((theta <= model.lower) & (gradient > 0)) | ((theta >= model.upper) & (gradient < 0))
    return ParametricFit(
        law=law_of(theta, centre),
        theta=theta,
        centre=centre,
        objective=value,
        gradient_norm=float(np.max(np.abs(np.where(held, 0.0, gradient)))),
        converged=bool(found.converged[winner]),
        condition=_condition((at.jacobian[0] / at.predicted[0]).T, weights),
        bound_distance=_distances(theta, model),
        basins=_basins(found.value[order], value),
        residuals=np.log(at.predicted[0] / loss),
    )


def law_of(theta: Array, centre: tuple[float, float]) -> ParametricLaw:
    """Parameters of the centred law -> the law in the units of the input."""
    alpha, beta = float(theta[3]), float(theta[4])
    with np.errstate(over="ignore"):
        a = float(np.exp(theta[1] + alpha * centre[0]))
        b = float(np.exp(theta[2] + beta * centre[1]))
    return ParametricLaw(float(theta[0]), a, b, alpha, beta, float(theta[5]) if len(theta) > 5 else 1.0)


def _condition(jacobian: Array, weights: Array) -> float:
    """Condition number of J^T W J with columns scaled to unit length."""
    scaled = jacobian * np.sqrt(weights)[:, None]
    length = np.sqrt(np.sum(scaled**2, axis=0))
    if (length <= 0).any():
        return float("inf")
    return float(np.linalg.cond(scaled / length) ** 2)


def _distances(theta: Array, model: Model) -> dict[str, float]:
    """Distance of E and of each exponent to its nearest bound."""
    names = {"E": 0, "alpha": 3, "beta": 4, "gamma": 5}
    gap = np.minimum(theta - model.lower, model.upper - theta)
    return {name: float(gap[i]) for name, i in names.items() if i < len(theta)}


def _basins(values: Array, best: float) -> tuple[float, ...]:
    """Distinct objectives above the best, lowest first."""
    others: list[float] = []
    for value in values:
        last = others[-1] if others else best
        if np.isfinite(value) and value > last * (1 + 1e-6) + 1e-15:
            others.append(float(value))
    return tuple(others)
