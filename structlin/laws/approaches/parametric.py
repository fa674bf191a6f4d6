"""What is L(N, D)? Approach 3 of arXiv 2203.15556, fitted to the global minimum of a robust objective.

    additive    L = E + A / N^alpha + B / D^beta
    powered     L = E + (A / N^alpha + B / D^beta)^gamma          (gamma = 1 is the additive law)
    coupled     L = E + A / N^alpha + B N^kappa / D^beta          (kappa = 0 is the additive law)

The powered law holds the form of arXiv 2001.08361 (eq. 1.5); the coupled one is the first order of arXiv 2506.10972, in
which the data term depends on the size of the model.

Given the exponents the additive law is linear in (E, A, B): on a dense grid of exponents that linear part is solved
in closed form with non-negative coefficients (variable projection), all cells at once. The best cells and the local
minima of the grid start a damped Newton method (``anchored``, ``solver``) that ends at 1e-13 of the objective.
A and B are given for the units of the input.

For this project's own runs N is forward multiply-accumulates per token, so the training compute is exactly 6 N D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from structlin.laws.minimum.anchored import COARSE, Axes, search, solve
from structlin.laws.minimum.forms import Model, PoweredSum, SumOfPowers
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.minimum.solver import Solution, minimise

_GAMMAS = (0.3, 0.6, 1.0, 1.6, 3.0)
# Iterations of a form's descents after which only the best go on.
_SHORT = 30
_KAPPAS = (-0.1, 0.0, 0.1)
FORMS = ("additive", "powered", "coupled")
"""Forms of the law, the simplest first."""
EXTRA = {"powered": "gamma", "coupled": "kappa"}
"""The sixth parameter of a form."""
_NOTHING = math.log(1e6)
"""A term that is so much smaller than the other one, in logarithms, is none."""


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
    kappa: float = 0.0
    """Exponent of N in the data term; 0 is the additive law."""

    def loss(self, size: Array | float, tokens: Array | float) -> Array:
        """L at a model size and a number of tokens (broadcast)."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            size, tokens = np.asarray(size, float), np.asarray(tokens, float)
            inner = self.A / size**self.alpha + self.B * size**self.kappa / tokens**self.beta
            return np.asarray(self.E + inner**self.gamma)

    @property
    def size_exponent(self) -> float:
        """a in N_opt ~ C^a for C proportional to N D: beta / (alpha + beta), of a coupled law / (.. + kappa)."""
        return self.beta / (self.alpha + self.beta + self.kappa)

    @property
    def tokens_exponent(self) -> float:
        """b in D_opt ~ C^b: one less the size exponent."""
        return (self.alpha + self.kappa) / (self.alpha + self.beta + self.kappa)

    @property
    def compute_exponent(self) -> float:
        """a in L = E + K C^-a along the compute-optimal frontier: gamma alpha beta / (alpha + beta + kappa)."""
        return self.gamma * self.alpha * self.beta / (self.alpha + self.beta + self.kappa)

    def optimum(self, flops: Array | float, flops_per_nd: float = 6.0) -> tuple[Array, Array]:
        """(N, D) that minimise L with flops_per_nd * N * D = flops (arXiv 2203.15556, eq. 4)."""
        log_product = np.log(np.asarray(flops, float) / flops_per_nd)
        # In logarithms: with an exponent near zero the powers leave the range of floats.
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            # At equal compute the data term grows as N^(beta + kappa).
            log_ratio = np.log(self.alpha * self.A) - np.log((self.beta + self.kappa) * self.B)
            log_size = (log_ratio + self.beta * log_product) / (self.alpha + self.beta + self.kappa)
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
    """(E, log A', log B', alpha, beta[, gamma or kappa]) with N and D centred."""
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
    form: str = "additive"
    """One of FORMS."""

    @property
    def at_bounds(self) -> tuple[str, ...]:
        """Parameters that ended at a bound."""
        return tuple(name for name, gap in self.bound_distance.items() if gap < 1e-6)

    @property
    def has_no_optimum(self) -> bool:
        """Whether these rows show one term alone, so that no size is the best of a compute.

        The exponent of the other one ended at a bound, or in the middle of the rows it is nothing beside this one.
        """
        return bool({"alpha", "beta"} & set(self.at_bounds)) or abs(float(self.theta[1] - self.theta[2])) > _NOTHING


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


def coupled_model(axes: Axes, pinned: float | None = None) -> SumOfPowers:
    """The coupled law on two axes; theta = (E, log A', log B', alpha, beta, kappa)."""
    plain = axes.powers(pinned)
    n = len(axes.logs[0])
    zero = np.zeros((n, 1))
    powers = (np.hstack([plain.powers[0], zero]), np.hstack([plain.powers[1], axes.logs[0][:, None]]))
    return SumOfPowers(
        np.hstack([plain.constant, zero]), powers, np.append(plain.lower, -1.0), np.append(plain.upper, 1.0)
    )


def model_of(form: str, axes: Axes, pinned: float | None = None) -> Model:
    """The law of a form on two axes."""
    if form == "powered":
        return powered_model(axes, pinned)
    return coupled_model(axes, pinned) if form == "coupled" else axes.powers(pinned)


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
    additive: ParametricFit | None = None,
) -> ParametricFit:
    """Fit L(N, D) to rows (n,): the lowest minimum of the objective over the whole box of parameters.

    ``pinned`` fixes E in nats. ``near`` is the fit of nearly the same problem: its law is a start too, beside the best
    cells of a coarser grid, and descents end at 1e-8 of the objective. ``additive`` is the additive law of the same
    rows, from which other forms start without a search of their own. Needs at least six rows; the caller checks that N
    and D vary.
    """
    objective = objective or Objective()
    loss = np.asarray(loss, dtype=float)
    rows = np.ones(len(loss)) if weights is None else weights
    axes = Axes.of(size, tokens)
    if near is not None and form != "additive" and near.form == form:
        return _report(*_nearby(near, axes, objective, loss, rows, pinned), (axes.centre[0], axes.centre[1]), form)
    if additive is not None and form != "additive":
        best = additive.theta[None]
    elif near is None:
        found = search(axes, loss, objective, rows, pinned)
    else:
        begin = _recentred(near, axes)[None]
        found = search(axes, loss, objective, rows, pinned, COARSE, begin, tolerance=1e-8)
    model = model_of(form, axes, pinned)
    if form != "additive":
        if additive is None:
            best = found.theta[np.argsort(found.value)[:2]]
        found = _other_form(model, objective, loss, rows, form, best)
    return _report(model, objective, loss, rows, found, (axes.centre[0], axes.centre[1]), form)


def _other_form(
    model: Model,
    objective: Objective,
    loss: Array,
    rows: Array,
    form: str,
    best: Array,
) -> Solution:
    """The minimum of a form of six parameters, from additive laws (b, 5)."""
    if form == "powered":
        begin = np.concatenate([_powered_starts(best, gamma) for gamma in _GAMMAS])
    else:
        begin = np.concatenate([np.column_stack([best, np.full(len(best), kappa)]) for kappa in _KAPPAS])
    found = minimise(model, objective, loss, begin, weights=rows, max_iterations=_SHORT)
    # Sums with an outer exponent have long flat valleys: only the best two descents walk on along them.
    lowest = np.argsort(found.value)[:2]
    return minimise(model, objective, loss, found.theta[lowest], weights=rows, continuation=False)


def _nearby(
    near: ParametricFit, axes: Axes, objective: Objective, loss: Array, rows: Array, pinned: float | None
) -> tuple[Model, Objective, Array, Array, Solution]:
    """The minimum of a form of six parameters from that of nearly the same rows, as ``_report`` takes it."""
    model = model_of(near.form, axes, pinned)
    begin = np.append(_recentred(near, axes), near.theta[5])[None]
    found = minimise(model, objective, loss, begin, weights=rows, tolerance=1e-8, max_iterations=2 * _SHORT)
    return model, objective, loss, rows, found


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
    if fitted.form != "additive":
        model = model_of(fitted.form, axes, pinned)
        return minimise(model, objective, loss, begin, continuation=False, **options).theta
    return solve(axes, loss, objective, begin, pinned=pinned, continuation=False, **options).theta


def samples_of(theta: Array, centre: tuple[float, float], form: str = "additive") -> dict[str, Array]:
    """Named parameters of a batch theta (b, p) in the units of the input, and the exponents that follow from them."""
    alpha, beta = theta[:, 3], theta[:, 4]
    gamma = theta[:, 5] if form == "powered" else np.ones(len(theta))
    kappa = theta[:, 5] if form == "coupled" else np.zeros(len(theta))
    total = alpha + beta + kappa
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return {
            "E": theta[:, 0],
            "A": np.exp(theta[:, 1] + alpha * centre[0]),
            "B": np.exp(theta[:, 2] + beta * centre[1] - kappa * centre[0]),
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
            "kappa": kappa,
            "size_exponent": beta / total,
            "tokens_exponent": (alpha + kappa) / total,
            "compute_exponent": gamma * alpha * beta / total,
        }


def _recentred(near: ParametricFit, axes: Axes) -> Array:
    """theta (5,) of the additive terms of a fit, moved to other centres of log N and log D."""
    theta = near.theta[:5].copy()
    for k in (0, 1):
        theta[1 + k] += theta[3 + k] * (near.centre[k] - axes.centre[k])
    if near.form == "coupled":
        theta[2] -= near.theta[5] * (near.centre[0] - axes.centre[0])
    return theta


def _powered_starts(theta: Array, gamma: float) -> Array:
    """The additive law's parameters moved to an outer exponent: both terms to the power 1 / gamma."""
    moved = theta.copy()
    moved[:, 1:5] /= gamma
    return np.column_stack([moved, np.full(len(theta), gamma)])


def _report(
    model: Model,
    objective: Objective,
    loss: Array,
    weights: Array,
    found: Solution,
    centre: tuple[float, float],
    form: str,
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
        law=law_of(theta, centre, form),
        theta=theta,
        centre=centre,
        objective=value,
        gradient_norm=float(np.max(np.abs(np.where(held, 0.0, gradient)))),
        converged=bool(found.converged[winner]),
        condition=_condition((at.jacobian[0] / at.predicted[0]).T, weights),
        bound_distance=_distances(theta, model, form),
        basins=_basins(found.value[order], value),
        residuals=np.log(at.predicted[0] / loss),
        form=form,
    )


def law_of(theta: Array, centre: tuple[float, float], form: str = "additive") -> ParametricLaw:
    """Parameters of the centred law -> the law in the units of the input."""
    alpha, beta = float(theta[3]), float(theta[4])
    with np.errstate(over="ignore"):
        a = float(np.exp(theta[1] + alpha * centre[0]))
        kappa = float(theta[5]) if form == "coupled" else 0.0
        b = float(np.exp(theta[2] + beta * centre[1] - kappa * centre[0]))
    return ParametricLaw(float(theta[0]), a, b, alpha, beta, float(theta[5]) if form == "powered" else 1.0, kappa)


def _condition(jacobian: Array, weights: Array) -> float:
    """Condition number of J^T W J with columns scaled to unit length."""
    scaled = jacobian * np.sqrt(weights)[:, None]
    length = np.sqrt(np.sum(scaled**2, axis=0))
    if (length <= 0).any():
        return float("inf")
    return float(np.linalg.cond(scaled / length) ** 2)


def _distances(theta: Array, model: Model, form: str) -> dict[str, float]:
    """Distance of E and of each exponent to its nearest bound."""
    names = {"E": 0, "alpha": 3, "beta": 4, EXTRA.get(form, "gamma"): 5}
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
