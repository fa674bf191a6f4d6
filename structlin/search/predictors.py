"""What will each arm's loss be at the target compute, and how sure is that? Four predictors, one chosen by backtest.

    raw       the measured frontier where it stands: the order now is the order then
    pooled    one law in which arms differ by their coefficients alone
    own       the same with exponents of each arm's own
    powered   the pooled law with an outer exponent

No predictor wins everywhere, so at each rung all of them foretell what the rung has measured from the evaluations below
an ``eta``-th of its compute, and below an ``eta``^2-th, and the one of least error is taken. Errors are those of the
differences between arms: what moves all arms alike decides nothing. What the backtest saw beyond a predictor's own
uncertainty is added to it, in proportion to how much further the target is than the backtest was, in log compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from structlin.laws.minimum.objective import Array
from structlin.search import jointly
from structlin.search.measurements import Measured

PREDICTORS = ("raw", *jointly.KINDS)
DRAWS = 1000
BACK = ((0, 1), (0, 2), (1, 2))
"""Backtests: the compute that is foretold and the one that is known, as steps of eta below the rung."""
_LEAST_ARMS, _LEAST_ROWS, _LEAST_SIZES = 2, 4, 3
_MOST_REACH = 4.0
# Luck of a run, at most: a law that misfits has residuals that are none. The lowest of some runs has less of it.
_MOST_LUCK, _OF_LOWEST = 0.01, 0.7
# A simpler predictor is left for one whose error is smaller by so much.
_BETTER = 0.95


@dataclass(frozen=True)
class Score:
    """How well a predictor has foretold and is expected to: log loss, between arms (about the mean of all)."""

    backtest: float
    """Root mean square error of what was foretold within the rung."""
    own: float
    """The error that it expects of itself at the target."""
    misfit: float
    """What the backtest saw beyond what the predictor expected there, carried to the target."""

    @property
    def error(self) -> float:
        """Expected at the target, all in all."""
        return float(np.hypot(self.own, self.misfit))


@dataclass(frozen=True)
class Forecast:
    """What is foretold of the arms at the target, from what was measured up to a compute."""

    flops: float
    """The compute that was measured to."""
    target: float
    predictor: str
    scores: dict[str, Score]
    """Of the predictors that could be asked."""
    arms: np.ndarray
    """Numbers of the arms that were measured there, (m,)."""
    log_loss: Array
    """log L at the target, (m,); under ``raw``: at ``flops``."""
    draws: Array
    """The same with its uncertainty, (DRAWS, m)."""

    @property
    def best(self) -> Array:
        """P(best) of each arm, (m,)."""
        return best_of(self.draws)

    @property
    def order(self) -> np.ndarray:
        """Positions of the arms, the best first: by the expected loss."""
        return np.argsort(self.log_loss, kind="stable")

    def interval(self, confidence: float = 0.9) -> tuple[Array, Array]:
        """Ends of the loss of each arm."""
        tail = 0.5 - 0.5 * confidence
        low, high = np.exp(np.quantile(self.draws, [tail, 1 - tail], axis=0))
        return low, high

    def ratios(self, confidence: float = 0.9) -> tuple[Array, Array, Array]:
        """Loss of each arm over the geometric mean of all, and its ends: what moves all of them alike is out of it."""
        tail = 0.5 - 0.5 * confidence
        about = self.draws - self.draws.mean(axis=1, keepdims=True)
        low, high = np.exp(np.quantile(about, [tail, 1 - tail], axis=0))
        return np.asarray(np.exp(self.log_loss - self.log_loss.mean())), low, high


def best_of(draws: Array) -> Array:
    """How often each of m arms is the lowest of (s, m) draws."""
    return np.bincount(np.argmin(draws, axis=1), minlength=draws.shape[1]) / len(draws)


class Laws:
    """The joint laws of some evaluations, each fitted once, when it is asked for."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self._rows: jointly.Rows | None = None
        self._found: dict[str, jointly.Joint] = {}

    def of(self, kind: str) -> jointly.Joint:
        """The law of one of ``jointly.KINDS``."""
        if self._rows is None:
            self._rows = jointly.rows_of(self.measured)
        if kind not in self._found:
            self._found[kind] = jointly.fit_rows(self._rows, kind)
        return self._found[kind]

    def luck(self) -> float:
        """Standard deviation of log loss between runs of one arm and size."""
        if not _enough(self.measured, self.measured.arms):
            return _MOST_LUCK
        return min(self.of("own").spread.run, _MOST_LUCK)


def forecast(measured: Measured, flops: float, target: float, eta: float, seed: int = 0, only: str = "") -> Forecast:
    """Foretell the arms that have reached ``flops``; ``only``: by this predictor.

    Arms that were left behind take part in the laws.
    """
    laws = Laws(measured.below(flops))
    arms = np.array(sorted(laws.measured.frontier(flops)))
    luck = _MOST_LUCK if only == "raw" else laws.luck()
    generator = np.random.default_rng(seed)
    names = (only,) if only else PREDICTORS
    found = {name: _foretold(name, laws, arms, flops, target, generator, luck) for name in names}
    asked = {} if only == "raw" else backtest(laws.measured, flops, eta, luck)
    reach = float(np.clip(np.log(target / flops) / np.log(eta), 0.0, _MOST_REACH))
    scores = {
        name: Score(asked[name][0], float(np.sqrt(np.mean(_about(draws) ** 2))), reach * asked[name][1])
        for name, (value, draws) in found.items()
        if name in asked and np.isfinite(value).all()
    }
    # Nothing below the rung to be asked about: the pooled law where one can be fitted (docs/search.md).
    untested = "pooled" if not only and np.isfinite(found["pooled"][0]).all() else "raw"
    name = only or (_chosen(scores) if scores else untested)
    value, draws = found[name]
    if name in scores:
        draws = draws + scores[name].misfit * generator.standard_normal(draws.shape)
    return Forecast(flops, target, name, scores, arms, value, draws)


def _chosen(scores: Mapping[str, Score]) -> str:
    """The predictor of least expected error; one with more to fit has to be better by something."""
    best = "raw"
    for name, score in scores.items():
        if best not in scores or score.error < (_BETTER if name != "pooled" else 1.0) * scores[best].error:
            best = name
    return best


def backtest(measured: Measured, flops: float, eta: float, luck: float = _MOST_LUCK) -> dict[str, tuple[float, float]]:
    """Error of each predictor between arms, and how much of it is beyond what it expected, for one step of eta.

    A run's luck is in what is foretold as in what is known: raw never sees it fail, laws are charged with it. It is
    taken off both.
    """
    sums: dict[str, list[tuple[float, float, float]]] = {}
    known = {since: Laws(measured.below(flops / eta**since)) for _, since in BACK}
    for to, since in BACK:
        now = measured.frontier(flops / eta**to)
        past = known[since]
        before = past.measured.frontier(flops / eta**since) if len(past.measured) else {}
        arms = np.array(sorted(set(now) & set(before)))
        if len(arms) < _LEAST_ARMS:
            continue
        truth, generator = np.log([now[arm] for arm in arms]), np.random.default_rng(0)
        if not _enough(past.measured, arms):
            continue
        for name in PREDICTORS:
            value, draws = _foretold(name, past, arms, flops / eta**since, flops / eta**to, generator, luck, 100)
            square = float(np.sum((value - truth - np.mean(value - truth)) ** 2)) / (len(arms) - 1)
            expected = 0.0 if name == "raw" else float(np.mean(_about(draws) ** 2)) + (_OF_LOWEST * luck) ** 2
            beyond = max(square - expected, 0.0) / (since - to) ** 2
            sums.setdefault(name, []).append((square, beyond, float(len(arms) - 1)))
    return {name: _mean(found) for name, found in sums.items()}


def _mean(found: list[tuple[float, float, float]]) -> tuple[float, float]:
    squares = np.array(found)
    error, beyond = np.sqrt(np.average(squares[:, :2], axis=0, weights=squares[:, 2]))
    return float(error), float(beyond)


def _about(draws: Array) -> Array:
    """Draws (s, m) about their expectation and about the mean of the arms."""
    moved = draws - draws.mean(axis=0)
    return np.asarray(moved - moved.mean(axis=1, keepdims=True))


def _enough(measured: Measured, arms: np.ndarray) -> bool:
    """Whether a law of these arms can be fitted."""
    rows = np.array([np.sum(measured.arm == arm) for arm in arms])
    sizes = len(np.unique(np.round(np.log(measured.size), 3)))
    return len(arms) >= 2 and bool((rows >= _LEAST_ROWS).all()) and sizes >= _LEAST_SIZES


def _foretold(
    name: str,
    laws: Laws,
    arms: np.ndarray,
    flops: float,
    target: float,
    generator: np.random.Generator,
    luck: float,
    number: int = DRAWS,
) -> tuple[Array, Array]:
    """log loss of the arms at the target and draws of it; not finite where the predictor cannot be asked."""
    if name == "raw":
        frontier = laws.measured.frontier(flops)
        value = np.log([frontier[arm] for arm in arms])
        return value, value + _OF_LOWEST * luck * generator.standard_normal((number, len(arms)))
    if not _enough(laws.measured, arms):
        return np.full(len(arms), np.nan), np.full((number, len(arms)), np.nan)
    joint = laws.of(name)
    place = np.searchsorted(joint.arms, arms)
    return joint.log_loss(target)[place], joint.draws(target, number, generator)[:, place]
