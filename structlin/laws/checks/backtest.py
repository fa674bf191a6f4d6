"""Would these laws have told the future? Fit below a compute cut, predict above it, and move the cut up.

For every cut: error and bias of the frontier law on the frontier above the cut and of L(N, D) on all rows above it,
and how often the stated interval of a new evaluation held it. Across structures: would the winner at ten times less
compute have won, and would the laws have named it?
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from structlin.laws.approaches import frontier, hull, parametric
from structlin.laws.approaches.laws import LAW, Laws
from structlin.laws.minimum.objective import Array

# Share of the range of log compute below the cut.
CUTS = (0.4, 0.55, 0.7, 0.85)
_REPLICATES, _MIN_ROWS, _MAX_ROWS = 50, 8, 500
MIN_HELD = 0.75
"""Share of foretold evaluations that 90% intervals have to hold."""
# Foretold evaluations that judge a law.
_JUDGED = 10


def backtest(laws: Laws) -> dict[str, Any]:
    """Per variant a list of cuts, and rank stability over all variants; may add cautions and withhold intervals."""
    found = {v: _variant(laws, v) for v in laws.points.variants}
    for variant, cuts in found.items():
        _judge(laws, variant, cuts)
    return {"variants": found, "rank": rank_stability(laws)}


def _judge(laws: Laws, variant: str, cuts: list[dict[str, Any]]) -> None:
    """Warn, and withhold intervals, where L(N, D) held too few of the evaluations that it foretold."""
    scores = [cut["parametric"] for cut in cuts if cut["parametric"] and cut["parametric"]["coverage"] is not None]
    rows = sum(score["rows"] for score in scores)
    if rows < _JUDGED:
        return
    held = sum(score["coverage"] * score["rows"] for score in scores) / rows
    if held < MIN_HELD * laws.choices.confidence / 0.9:
        text = f"the backtest's {100 * laws.choices.confidence:.0f}% intervals held {100 * held:.0f}% of {rows} "
        laws.warn("misfit", text + "evaluations that L(N, D) foretold", variant)
        laws.withhold(variant, *LAW)


def _variant(laws: Laws, variant: str) -> list[dict[str, Any]]:
    """All cuts of one variant that leave enough on both sides."""
    frame = laws.points.of(variant)
    if len(frame) > _MAX_ROWS:
        keep = np.unique(np.linspace(0, len(frame) - 1, _MAX_ROWS).astype(int))
    else:
        keep = np.arange(len(frame))
    flops = frame["C"].to_numpy(float)
    low, high = np.log(flops.min()), np.log(flops.max())
    found = []
    for share in CUTS:
        cut = float(np.exp(low + share * (high - low)))
        entry: dict[str, Any] = {"cut": cut, "reach": float(flops.max() / cut)}
        entry["frontier"] = _frontier(laws, variant, frame, cut)
        entry["parametric"] = _parametric(laws, variant, frame, keep, cut)
        if entry["frontier"] or entry["parametric"]:
            found.append(entry)
    return found


def _score(error: Array, low: Array, high: Array) -> dict[str, Any]:
    """Errors are log(predicted / measured); low and high are the interval of log(predicted / new measurement)."""
    return {
        "rows": len(error),
        "error": float(np.sqrt(np.mean(error**2))),
        "bias": float(np.mean(error)),
        "coverage": float(np.mean((low <= 0) & (high >= 0))) if np.isfinite(low).all() else None,
    }


def _frontier(laws: Laws, variant: str, frame: pd.DataFrame, cut: float) -> dict[str, Any] | None:
    """The frontier law below the cut against the frontier above it."""
    law, choices = laws.frontiers.get(variant), laws.choices
    if law is None:
        return None
    flops, loss = frame["C"].to_numpy(float), frame["L"].to_numpy(float)
    past, future = flops <= cut, law.members[flops[law.members] > cut]
    if past.sum() < _MIN_ROWS or not len(future):
        return None
    offset = choices.frontier_offset
    rows = hull.members(
        flops[past],
        loss[past],
        kind=choices.frontier,
        tolerance=law.tolerance,
        window=choices.window,
        offset=offset or 0.0,
    )
    if not frontier.enough(flops[past], rows):
        return None
    early = frontier.fit(flops[past], loss[past], rows, offset=offset, tolerance=law.tolerance)
    draws, effects = laws.draws[variant], laws.effects(variant)
    part = type(draws)(draws.runs, draws.weights, draws.index[past])
    early = frontier.resample(
        early, flops[past], loss[past], part, effects, choices, min(_REPLICATES, choices.bootstrap)
    )
    error = np.log(early.loss(flops[future]) / loss[future])
    spread = np.log(early.replicate_losses(flops[future]) / loss[future])
    return _score(error, *_ends(laws, error, spread, float(np.std(effects)), laws.factor(variant, "frontier")))


def _parametric(laws: Laws, variant: str, frame: pd.DataFrame, keep: np.ndarray, cut: float) -> dict[str, Any] | None:
    """L(N, D) below the cut against every row above it."""
    full = laws.parametrics.get(variant)
    if full is None:
        return None
    flops = frame["C"].to_numpy(float)[keep]
    size, loss = (frame[name].to_numpy(float)[keep] for name in ("N", "L"))
    tokens, weights = laws.tokens(variant)[keep], laws.row_weights(variant)[keep]
    past = flops <= cut
    if past.sum() < _MIN_ROWS or (~past).sum() < 1 or len(np.unique(np.round(np.log(size[past]), 4))) < 3:
        return None
    objective, choices = laws.choices.loss_function, laws.choices
    fitted = parametric.fit(
        size[past], tokens[past], loss[past], objective, weights=weights[past], form=full.fit.form,
        pinned=choices.pinned, near=full.fit,
    )  # fmt: skip
    rows = laws.draws[variant].rows[: min(_REPLICATES, choices.bootstrap)][:, keep][:, past] * weights[past]
    # Predictions settle long before the parameters do where the past hardly bends.
    theta = parametric.refit(
        fitted, size[past], tokens[past], loss[past], objective, rows, choices.pinned, tolerance=1e-6, max_iterations=16
    )
    error = np.log(fitted.law.loss(size[~past], tokens[~past]) / loss[~past])
    spread = np.empty((len(theta), int((~past).sum())))
    for k, one in enumerate(theta):
        law = parametric.law_of(one, fitted.centre, fitted.form)
        spread[k] = np.log(law.loss(size[~past], tokens[~past]) / loss[~past])
    noise = float(np.std(fitted.residuals))
    return _score(error, *_ends(laws, error, spread, noise, laws.factor(variant, "parametric")))


def _ends(laws: Laws, error: Array, spread: Array, noise: float, factor: float) -> tuple[Array, Array]:
    """Interval of the error of a new evaluation: the law's own spread and the noise of one evaluation."""
    if not np.isfinite(factor):  # one run: no interval was stated
        return np.full(len(error), np.nan), np.full(len(error), np.nan)
    generator = np.random.default_rng(laws.choices.seed)
    about = error + factor * (spread - error) + noise * generator.standard_normal(spread.shape)
    tail = 0.5 - 0.5 * laws.choices.confidence
    low, high = np.nanquantile(about, [tail, 1 - tail], axis=0)
    return low, high


def rank_stability(laws: Laws) -> dict[str, Any]:
    """The order of structures at the largest shared compute and at a tenth of it, seen and predicted."""
    if len(laws.frontiers) < 2:
        return {}
    top = min(law.span[1] for law in laws.frontiers.values())
    start = max(law.span[0] for law in laws.frontiers.values())
    earlier = top / 10.0
    if earlier <= start:
        return {"note": "the structures share less than a decade of compute"}
    now = sorted(laws.frontiers, key=lambda v: _seen(laws, v, top))
    then = sorted(laws.frontiers, key=lambda v: _seen(laws, v, earlier))
    predicted = {v: _foretold(laws, v, earlier, top) for v in laws.frontiers}
    foretold = sorted(predicted, key=lambda v: predicted[v]) if all(np.isfinite(list(predicted.values()))) else None
    pairs = [(a, b) for i, a in enumerate(now) for b in now[i + 1 :]]
    return {
        "compute": top, "earlier": earlier, "order": now, "order_earlier": then, "order_predicted": foretold,
        "winner_held": now[0] == then[0],
        "winner_predicted": foretold[0] == now[0] if foretold else None,
        "pairs_kept": float(np.mean([then.index(a) < then.index(b) for a, b in pairs])),
    }  # fmt: skip


def _seen(laws: Laws, variant: str, flops: float) -> float:
    """Loss on the measured frontier at a compute (log-linear between its points)."""
    frame, rows = laws.points.of(variant), laws.frontiers[variant].members
    c, y = frame["C"].to_numpy(float)[rows], frame["L"].to_numpy(float)[rows]
    return float(np.exp(np.interp(np.log(flops), np.log(c), np.log(y))))


def _foretold(laws: Laws, variant: str, earlier: float, top: float) -> float:
    """Loss at ``top`` by the frontier law of the points up to ``earlier``; NaN where those are too few."""
    frame = laws.points.of(variant)
    past = frame[frame["C"] <= earlier]
    flops, loss = past["C"].to_numpy(float), past["L"].to_numpy(float)
    if len(past) < _MIN_ROWS:
        return float("nan")
    rows = hull.members(flops, loss, tolerance=laws.frontiers[variant].tolerance)
    if not frontier.enough(flops, rows):
        return float("nan")
    return float(frontier.fit(flops, loss, rows, offset=laws.choices.frontier_offset).loss(top))
