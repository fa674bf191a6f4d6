"""What do structures share? Four nested laws over all variants, chosen by likelihood ratio, AICc and held-out error.

    shared      E, A, B, alpha, beta for all                                     5
    rescaled    E, alpha, beta for all; A_s = A rho_N^-alpha, B_s = B rho_D^-beta  3 + 2 S   (arXiv 2602.07712)
    floor       E for all; A_s, B_s, alpha_s, beta_s                             1 + 4 S
    free        everything by structure                                          5 S

Each contains the one before. Fits are in squares of log loss. Rows of one run are correlated, so likelihoods count
n / deff rows, deff = 1 + (m - 1) icc from the residuals of the free law (m rows a run, icc their correlation).
Held-out error leaves out whole runs. Separate free fits are ill-conditioned: the table gives condition numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from structlin.laws.approaches.laws import Laws
from structlin.laws.minimum.forms import SumOfPowers
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.minimum.solver import minimise
from structlin.laws.sampling.quantiles import chi2_tail, student_quantile

_SQUARES = Objective("log_squares")
NESTED = ("shared", "rescaled", "floor", "free")
# Which of (E, A, B, alpha, beta) a structure has of its own.
_OWN = {
    "shared": (False, False, False, False, False),
    "rescaled": (False, True, True, False, False),
    "floor": (False, True, True, True, True),
    "free": (True, True, True, True, True),
}
_MAX_ROWS, _FOLDS = 1500, 5
TAXONOMY = ("omega", "psi", "nu")


@dataclass(frozen=True)
class _Data:
    """Rows of all variants, N and D centred together."""

    log_n: Array
    log_d: Array
    loss: Array
    variant: np.ndarray
    run: np.ndarray
    names: list[str]
    centre: tuple[float, float]


def _data(laws: Laws) -> _Data:
    """Rows of every variant that has a parametric law, thinned evenly to _MAX_ROWS in all."""
    names = list(laws.parametrics)
    frame = laws.points.frame[laws.points.frame["variant"].isin(names)]
    keep = np.unique(np.linspace(0, len(frame) - 1, min(len(frame), _MAX_ROWS)).astype(int))
    frame = frame.iloc[keep]
    log_n, log_d = np.log(frame["N"].to_numpy(float)), np.log(frame["D"].to_numpy(float))
    centre = (float(log_n.mean()), float(log_d.mean()))
    return _Data(
        log_n - centre[0],
        log_d - centre[1],
        frame["L"].to_numpy(float),
        np.array([names.index(v) for v in frame["variant"]]),
        np.unique(frame["run"].astype(str), return_inverse=True)[1],
        names,
        centre,
    )


def _columns(name: str, count: int) -> list[np.ndarray]:
    """Position in theta of each of (E, log A, log B, alpha, beta) for every structure: five arrays (S,)."""
    at, out = 0, []
    for own in _OWN[name]:
        out.append(at + (np.arange(count) if own else np.zeros(count, dtype=int)))
        at += count if own else 1
    return out


def _model(name: str, data: _Data) -> SumOfPowers:
    """The law of all structures at once."""
    n, count = len(data.loss), len(data.names)
    e, a, b, alpha, beta = _columns(name, count)
    size = int(beta.max()) + 1
    rows = np.arange(n)
    constant, of_n, of_d = np.zeros((n, size)), np.zeros((n, size)), np.zeros((n, size))
    constant[rows, e[data.variant]] = 1.0
    of_n[rows, a[data.variant]], of_n[rows, alpha[data.variant]] = 1.0, -data.log_n
    of_d[rows, b[data.variant]], of_d[rows, beta[data.variant]] = 1.0, -data.log_d
    lower, upper = np.full(size, -60.0), np.full(size, 60.0)
    lower[e], upper[e] = 0.0, np.inf
    for exponent in (alpha, beta):
        lower[exponent], upper[exponent] = 1e-4, 10.0
    return SumOfPowers(constant, (of_n, of_d), lower, upper)


def _starts(laws: Laws, name: str, data: _Data) -> Array:
    """From the separate fits: shared entries at their median, and at each of the first structures' values."""
    own = np.empty((len(data.names), 5))
    for s, variant in enumerate(data.names):
        law = laws.parametrics[variant].additive.law
        # At the common centre of all structures: there their coefficients can be compared, and shared.
        at = [law.E, np.log(law.A) - law.alpha * data.centre[0], np.log(law.B) - law.beta * data.centre[1]]
        own[s] = [*at, law.alpha, law.beta]
    own[:, 1:3] = np.clip(own[:, 1:3], -20, 20)
    columns = _columns(name, len(data.names))
    starts = []
    # The median of each entry may be the law of no structure: the entries of two structures are starts of their own.
    for shared in (np.median(own, axis=0), *own[:2]):
        theta = np.zeros(int(columns[-1].max()) + 1)
        for k, place in enumerate(columns):
            theta[place] = own[:, k] if _OWN[name][k] else shared[k]
        starts.append(theta)
    return np.array(starts)


def _fit(laws: Laws, name: str, data: _Data) -> tuple[Array, float]:
    """theta and objective of one nested law."""
    start = _starts(laws, name, data)
    found = minimise(_model(name, data), _SQUARES, data.loss, start, tolerance=1e-10)
    best = int(np.argmin(found.value))
    return found.theta[best], float(found.value[best])


def design_effect(residuals: Array, run: np.ndarray) -> float:
    """1 + (m - 1) icc for residuals (n,) in runs (n,): how many correlated rows make one independent row."""
    counts = np.bincount(run).astype(float)
    counts = counts[counts > 0]
    m = len(run) / len(counts)
    # About one row a run: nothing within a run can be correlated, and its spread could not be estimated.
    if m <= 1.5:
        return 1.0
    means = np.bincount(run, weights=residuals) / np.maximum(np.bincount(run), 1)
    # Each run has spent one degree of freedom on its mean.
    within = float(np.sum((residuals - means[run]) ** 2)) / max(len(run) - len(counts), 1)
    total = float(np.var(residuals))
    # An estimate below zero is noise; taken at its word it would make more rows than there are.
    correlation = float(np.clip(1.0 - within / max(total, 1e-300), 0.0, 1.0))
    return 1.0 + (m - 1.0) * correlation


def _held_out(name: str, data: _Data, theta: Array) -> float:
    """Root mean square log error on runs left out, over _FOLDS folds of runs, refitted together from ``theta`` (p,)."""
    # Whole runs: a row says nothing new where other rows of its run, with the same luck, were fitted.
    fold = data.run % _FOLDS
    folds = [k for k in range(_FOLDS) if (fold == k).any() and not (fold == k).all()]
    kept = np.array([fold != k for k in folds])
    model = _model(name, data)
    start = np.repeat(theta[None], len(folds), axis=0)
    # Weights of zero leave a fold out, so that all folds are one batch over shared rows.
    found = minimise(model, _SQUARES, data.loss, start, weights=kept.astype(float), tolerance=1e-8)
    errors = np.log(model.predict(found.theta) / data.loss)[~kept]
    return float(np.sqrt(np.mean(errors**2)))


def joint(laws: Laws) -> dict[str, Any]:
    """The nested laws with their tests; empty with fewer than two structures that have a parametric law."""
    if len(laws.parametrics) < 2:
        return {}
    data = _data(laws)
    n = len(data.loss)
    fits = {name: _fit(laws, name, data) for name in NESTED}
    free = np.log(_model("free", data).predict(fits["free"][0][None])[0] / data.loss)
    effective = n / design_effect(free, data.run)
    models: dict[str, Any] = {}
    before: tuple[float, int] | None = None
    for name in NESTED:
        theta, value = fits[name]
        parameters = len(theta)
        square = max(2.0 * value, 1e-300)
        entry = {
            "parameters": parameters,
            "residual_std": float(np.sqrt(square / n)),
            "aicc": _aicc(square / n, effective, parameters),
            "held_out": _held_out(name, data, theta),
            "condition": _condition(_model(name, data), theta),
        }
        if before is not None:
            ratio = effective * np.log(before[0] / square)
            entry["likelihood_ratio"] = float(max(ratio, 0.0))
            entry["p_value"] = chi2_tail(max(ratio, 0.0), parameters - before[1])
        models[name] = entry
        before = (square, parameters)
    chosen = min(models, key=lambda name: models[name]["aicc"])
    return {
        "models": models,
        "chosen": chosen,
        "chosen_held_out": min(models, key=lambda name: models[name]["held_out"]),
        "effective_rows": effective,
        "rows": n,
        "rescaling": _rescaling(laws, data, fits["rescaled"][0]),
        "structures": _structures(data, "floor", fits["floor"][0]),
        "taxonomy": _taxonomy(laws, data, fits),
    }


def _aicc(mean_square: float, n: float, parameters: int) -> float | None:
    """Corrected Akaike criterion of Gaussian residuals; None where n is too small for so many parameters."""
    k = parameters + 1
    if n - k - 1 <= 0:
        return float("inf")
    return float(n * np.log(mean_square) + 2 * k + 2 * k * (k + 1) / (n - k - 1))


def _condition(model: SumOfPowers, theta: Array) -> float:
    """Condition number of the Gauss-Newton matrix with unit columns."""
    at = model.evaluate(theta[None])
    jacobian = (at.jacobian[0] / at.predicted[0]).T
    length = np.sqrt(np.sum(jacobian**2, axis=0))
    if (length <= 1e-12).any():
        return float("inf")
    return float(np.linalg.cond(jacobian / length) ** 2)


def _rescaling(laws: Laws, data: _Data, theta: Array) -> dict[str, Any]:
    """rho_N and rho_D of every structure against the baseline (or the first): effective size is rho_N N."""
    _, a, b, alpha, beta = _columns("rescaled", len(data.names))
    baseline = laws.choices.baseline_among(data.names)
    base = data.names.index(baseline) if baseline in data.names else 0
    return {
        "baseline": data.names[base],
        "E": float(theta[0]),
        "alpha": float(theta[alpha[0]]),
        "beta": float(theta[beta[0]]),
        "rho": {
            name: {
                "N": float(np.exp((theta[a[base]] - theta[a[s]]) / theta[alpha[0]])),
                "D": float(np.exp((theta[b[base]] - theta[b[s]]) / theta[beta[0]])),
            }
            for s, name in enumerate(data.names)
        },
    }


def _structures(data: _Data, name: str, theta: Array) -> dict[str, Any]:
    """Parameters of every structure under one nested law."""
    e, a, b, alpha, beta = _columns(name, len(data.names))
    out: dict[str, Any] = {}
    for s, variant in enumerate(data.names):
        al, be = theta[alpha[s]], theta[beta[s]]
        out[variant] = {
            "E": float(theta[e[s]]),
            "A": float(np.exp(theta[a[s]] + al * data.centre[0])),
            "B": float(np.exp(theta[b[s]] + be * data.centre[1])),
            "alpha": float(al),
            "beta": float(be),
        }
    return out


def _taxonomy(laws: Laws, data: _Data, fits: dict[str, tuple[Array, float]]) -> dict[str, Any]:
    """Least squares of exponents and offsets on (omega, psi, nu), with Student intervals over structures.

    Exponents come from L(N, D) with one E and from the frontiers (corrected where they are), offsets from the
    rescaled law.
    Only taxonomy values that vary are used. Empty where the table has none or too few structures.
    """
    frame = laws.points.frame
    if not set(TAXONOMY) <= set(frame.columns):
        return {}
    values = frame.groupby("variant")[list(TAXONOMY)].mean().loc[data.names]
    varying = [name for name in TAXONOMY if values[name].std() > 1e-6]
    if not varying or len(data.names) < len(varying) + 2:
        return {
            "note": f"{len(data.names)} structures are too few for a regression on {', '.join(varying or TAXONOMY)}"
        }
    design = np.column_stack([np.ones(len(values)), values[varying].to_numpy(float)])
    theta = fits["floor"][0]
    _, _, _, alpha, beta = _columns("floor", len(data.names))
    _, a, b, _, _ = _columns("rescaled", len(data.names))
    scaled = fits["rescaled"][0]
    targets = {"alpha": theta[alpha], "beta": theta[beta], "log_A": scaled[a], "log_B": scaled[b]}
    if set(data.names) <= laws.frontiers.keys():
        better = {name: laws.corrected(name) for name in data.names}
        targets["frontier_a"] = np.array([(better[v] or {"a": laws.frontiers[v].a})["a"] for v in data.names])
    return {name: _regress(design, ["constant", *varying], y, laws.choices.confidence) for name, y in targets.items()}


def _regress(design: Array, names: list[str], y: Array, confidence: float) -> dict[str, Any]:
    """Ordinary least squares with intervals."""
    answer, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    degrees = len(y) - int(rank)
    spread = float(np.sum((y - design @ answer) ** 2)) / float(max(degrees, 1))
    # A pseudo-inverse: over few structures two taxonomy values may move in step, and the design has no inverse.
    errors = np.sqrt(np.maximum(np.diag(np.linalg.pinv(design.T @ design)) * spread, 0.0))
    # Without a degree of freedom the residual is zero, and an interval of no width would look like certainty.
    t = student_quantile(degrees, 0.5 + confidence / 2) if degrees else float("nan")
    return {
        name: {"value": float(v), "low": float(v - t * e), "high": float(v + t * e)}
        for name, v, e in zip(names, answer, errors, strict=True)
    }
