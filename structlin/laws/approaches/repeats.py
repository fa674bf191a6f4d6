"""What is a token worth that was seen before? The effective data of arXiv 2305.16264, where epochs exceed one.

    D' = U + U R (1 - exp(-(D / U - 1) / R))          U unique tokens, D / U epochs

R is how many further epochs it takes until repeated tokens are worth 1 / e of fresh ones (15.4 there). L(N, D') is
fitted at every R of a grid, and R is where the objective is lowest; without repetition D' is D.

Shapes: n rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from structlin.laws.approaches import parametric
from structlin.laws.approaches.forms import thinned
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.sampling.bootstrap import Draws, Interval

# From so many epochs on repetition counts, in so many rows.
_EPOCHS, _ROWS = 1.1, 3
_GRID = np.geomspace(0.5, 300.0, 20)
_EVALUATIONS = 8


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
) -> tuple[float | None, Interval | None]:
    """R and its interval over resampled runs; None and None where nothing was repeated."""
    if "epochs" not in frame or (frame["epochs"].fillna(0.0) > _EPOCHS).sum() < _ROWS or frame["epochs"].isna().any():
        return None, None
    seen = thinned(draws.index, frame["C"].to_numpy(float), _EVALUATIONS)
    part, index = frame.iloc[seen], draws.index[seen]
    size, loss = part["N"].to_numpy(float), part["L"].to_numpy(float)
    values, near = [], None
    for repeat in _GRID:
        near = parametric.fit(size, effective(part, float(repeat)), loss, objective, pinned=pinned, near=near)
        residual = objective.residual(near.law.loss(size, effective(part, float(repeat))), objective.target(loss))
        values.append(objective.value(residual))
    # Of every draw of the runs the R of its lowest objective: the laws themselves hardly move.
    sums = np.array(values) @ draws.weights[:, index].T
    lowest = np.log(_GRID[np.argmin(sums, axis=0)])
    best = _vertex(np.array(values).sum(axis=1))
    tail = 0.5 - 0.5 * confidence
    low, high = np.exp(np.quantile(lowest, [tail, 1.0 - tail])).tolist()
    return best, Interval(min(low, best), max(high, best))


def _vertex(values: Array) -> float:
    """Where a parabola through the lowest value and its neighbours has its lowest point, in log R."""
    k = int(np.argmin(values))
    if k in (0, len(values) - 1):
        return float(_GRID[k])
    left, here, right = values[k - 1 : k + 2]
    shift = 0.5 * (left - right) / max(left - 2.0 * here + right, 1e-300)
    return float(np.exp(np.log(_GRID[k]) + shift * np.log(_GRID[1] / _GRID[0])))
