"""What is a token worth that was seen before? The effective data of arXiv 2305.16264, where epochs exceed one.

    D' = U + U R (1 - exp(-(D / U - 1) / R))          U unique tokens, D / U epochs

R is how many further epochs it takes until repeated tokens are worth 1 / e of fresh ones (15.4 there). L(N, D') is
fitted at every R of a grid, and R is where the objective is lowest; without repetition D' is D. Every draw of the runs
has an R of its own, with which its law is fitted anew: what R leaves open, beta and B leave open too.

Shapes: n rows, b draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from structlin.laws.approaches import parametric
from structlin.laws.approaches.forms import thinned
from structlin.laws.approaches.parametric import ParametricFit
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.sampling.bootstrap import Draws, Interval, interval, widening

# From so many epochs on repetition counts, in so many rows.
_EPOCHS, _ROWS = 1.1, 3
_GRID = np.geomspace(0.5, 300.0, 20)
_EVALUATIONS = 8
# Values of R that are tried in every draw, twice; draws that are looked at; how far from that of all runs they may be.
_NEAR, _DRAWS, _BEYOND = 7, 100, 2.5
# Values of R to which those of the draws are rounded, by rank, when their laws are fitted.
_VALUES = 8


@dataclass(frozen=True)
class Repetition:
    """What repeated tokens are worth."""

    value: float
    """R, in epochs."""
    interval: Interval
    """Its interval."""
    draws: Array
    """R of each draw of the runs, (b,)."""


def effective(frame: pd.DataFrame, repeat: float | None) -> Array:
    """D' of every row, (n,)."""
    tokens = frame["D"].to_numpy(float)
    if repeat is None:
        return tokens
    epochs = np.maximum(frame["epochs"].to_numpy(float), 1e-12)
    unique, further = tokens / epochs, np.maximum(epochs - 1.0, 0.0)
    worth = unique * (1.0 + repeat * -np.expm1(-further / repeat))
    return np.asarray(np.where(epochs > 1.0, worth, tokens))


def fit(
    frame: pd.DataFrame, objective: Objective, pinned: float | None, draws: Draws, confidence: float
) -> Repetition | None:
    """R with its interval over resampled runs; None where nothing was repeated."""
    if "epochs" not in frame or (frame["epochs"].fillna(0.0) > _EPOCHS).sum() < _ROWS or frame["epochs"].isna().any():
        return None
    seen = thinned(draws.index, frame["C"].to_numpy(float), _EVALUATIONS)
    part, index = frame.iloc[seen], draws.index[seen]
    size, loss = part["N"].to_numpy(float), part["L"].to_numpy(float)
    values, near = [], None
    for repeat in _GRID:
        near = parametric.fit(size, effective(part, float(repeat)), loss, objective, pinned=pinned, near=near)
        residual = objective.residual(near.law.loss(size, effective(part, float(repeat))), objective.target(loss))
        values.append(objective.value(residual))
    best = _vertex(_GRID, np.array(values).sum(axis=1))
    weights = draws.weights[:_DRAWS, index]
    lowest = _of_draws(part, loss, objective, pinned, weights, best)
    # Rows within runs tell R, as they tell beta.
    ends = interval(lowest, best, confidence, widening(len(draws.runs), 0, confidence), log=True)
    return Repetition(best, Interval(min(ends.low, best), max(ends.high, best)), lowest)


def unfitted(frame: pd.DataFrame) -> str:
    """Why the worth of repeated tokens cannot be fitted though there are such; empty where it can, or none are."""
    if "epochs" not in frame:
        return ""
    repeated, unknown = int((frame["epochs"].fillna(0.0) > _EPOCHS).sum()), int(frame["epochs"].isna().sum())
    if repeated < _ROWS or not unknown:
        return ""
    return f"{repeated} rows read their data more than once, and of {unknown} rows the epochs are not known"


def _of_draws(
    part: pd.DataFrame, loss: Array, objective: Objective, pinned: float | None, weights: Array, best: float
) -> Array:
    """R at the lowest objective of every draw with row weights (b, n): about that of all, then where draws have it."""
    grid = best * np.geomspace(1.0 / _BEYOND, _BEYOND, _NEAR)
    found = np.full(len(weights), best)
    for _ in range(2):
        values = np.array([_objectives(part, loss, objective, pinned, weights, repeat) for repeat in grid])
        found = np.array([_vertex(grid, one) for one in values.T])
        low, high = np.quantile(found, [0.02, 0.98])
        grid = np.geomspace(0.9 * low, 1.1 * high, _NEAR)
    return found


def _objectives(
    part: pd.DataFrame, loss: Array, objective: Objective, pinned: float | None, weights: Array, repeat: float
) -> Array:
    """The lowest objective of every draw at one R, (b,)."""
    size, tokens = part["N"].to_numpy(float), effective(part, float(repeat))
    fitted = parametric.fit(size, tokens, loss, objective, pinned=pinned)
    theta = parametric.refit(fitted, size, tokens, loss, objective, weights, pinned, tolerance=1e-6)
    predicted = np.array([parametric.law_of(one, fitted.centre).loss(size, tokens) for one in theta])
    residual = objective.residual(predicted, objective.target(loss))
    return np.asarray(np.sum(objective.value(residual) * weights, axis=1))


def samples(
    frame: pd.DataFrame,
    fitted: ParametricFit,
    objective: Objective,
    weights: Array,
    pinned: float | None,
    repetition: Repetition,
    tolerance: float,
) -> dict[str, Array]:
    """Named parameters of the law refitted with row weights, every draw of ``repetition`` with its own R; each (b,)."""
    size, loss = frame["N"].to_numpy(float), frame["L"].to_numpy(float)
    weights = weights[: len(repetition.draws)]
    found: dict[str, Array] = {}
    for rows in np.array_split(np.argsort(repetition.draws[: len(weights)], kind="stable"), _VALUES):
        if not len(rows):
            continue
        tokens = effective(frame, float(np.median(repetition.draws[rows])))
        theta = parametric.refit(
            fitted, size, tokens, loss, objective, weights[rows], pinned, tolerance=tolerance
        )  # fmt: skip
        centre = fitted.centre[0], float(np.log(tokens).mean())
        for name, values in parametric.samples_of(theta, centre, fitted.form).items():
            found.setdefault(name, np.empty(len(weights)))[rows] = values
    return found


def _vertex(grid: Array, values: Array) -> float:
    """Where a parabola through the lowest of values (r,) on an even log grid and its neighbours is lowest."""
    k = int(np.argmin(values))
    if k in (0, len(values) - 1):
        return float(grid[k])
    left, here, right = values[k - 1 : k + 2]
    shift = 0.5 * (left - right) / max(left - 2.0 * here + right, 1e-300)
    return float(np.exp(np.log(grid[k]) + shift * np.log(grid[1] / grid[0])))
