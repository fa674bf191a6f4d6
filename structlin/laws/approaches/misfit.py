"""Does L(N, D) leave a trend? Tests of its residuals along N, D and D / N, and of what a design can carry at all.

A law that fits leaves no trend that it could not have followed itself. So the residuals and the test functions (second
and third powers of the centred logarithms) are cleared of everything that a small change of the law's parameters could
do; what is left of them must be unrelated (a score test). Rows of one run share its luck, so N and D / N are tested on
means over runs, D within runs with runs as clusters, and so is whether losses of large models fall otherwise than
those of small ones; the levels of runs are held against their shapes (``levels``). All looks share one probability of
naming a trend where there is none.

Shapes: n rows, g runs, p parameters.
"""

from __future__ import annotations

import numpy as np

from structlin.laws.approaches import levels
from structlin.laws.approaches.parametric import ParametricFit, model_of
from structlin.laws.minimum.anchored import Axes
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.quantiles import f_tail, student_cdf

LEVEL = 0.05
"""Probability of naming a trend where there is none, of all looks together."""
# Of it, the share of the look at the levels of runs, which sees most; all others share the rest alike.
_OF_LEVELS = 0.4
_UNEVEN = 0.02
MOST_SIZES = 3
"""Up to so many sizes leave no freedom in E + A / N^alpha."""
# Independent numbers that the residuals of a run are worth, once its mean is taken off.
_A_RUN = 2
# Residuals further out than this many median deviations are drawn in: one bad run is no trend.
_FAR = 5.0
# Trends of a smaller root mean square, in log loss, are not worth a word.
_SMALL = 3e-4
# Of a test function, what must be left after clearing it.
_LEFT = 1e-3


def trends(
    fit: ParametricFit, size: Array, tokens: Array, index: np.ndarray, scales: Array | None = None
) -> dict[str, float]:
    """Axis (N, D, D/N) -> probability of so much trend by chance in any look, where below LEVEL.

    ``index`` (n,) is each row's run, ``scales`` (g,) the noise of each run over the mean noise where that is known.
    """
    found: dict[str, float] = {}
    precision = np.ones(len(index)) if scales is None else 1.0 / scales[index]
    for axis, chance in _looks(fit, size, tokens, index, precision):
        if chance < LEVEL:
            found[axis] = min(found.get(axis, 1.0), chance)
    return found


def _looks(
    fit: ParametricFit, size: Array, tokens: Array, index: np.ndarray, precision: Array
) -> list[tuple[str, float]]:
    """(axis, probability of so much by chance in any look) of every look; rows within runs are looked at where many."""
    axes = Axes.of(size, tokens)
    at = model_of(fit.form, axes).evaluate(fit.theta[None])
    # Rows in units of the noise of their run: what follows is then weighted as it should be.
    weight = precision[:, None]
    jacobian = (at.jacobian[0] / at.predicted[0]).T * weight
    residual = drawn_in(fit.residuals * precision)
    x, y = axes.logs
    functions = {"N": powers(x) * weight, "D": powers(y) * weight, "D/N": powers(y - x)[:, :1] * weight}
    looks = [(axis, _between(residual, jacobian, columns, index)) for axis, columns in functions.items()]
    if len(index) < 3 * len(np.bincount(index)):
        return [(axis, chance * len(looks)) for axis, chance in looks]
    # How losses fall along a run, of all runs alike, and of large models differently from small ones.
    looks.append(("D", _within(residual, jacobian, functions["D"], index)))
    looks.append(("D/N", _within(residual, jacobian, (x * y)[:, None] * weight, index)))
    both = np.column_stack([powers(y), x * y, x * powers(y)[:, 0]]) * weight
    looks.append(("D", _shapes(residual, jacobian, both, index)))
    looks = [(axis, chance * len(looks) / (1.0 - _OF_LEVELS)) for axis, chance in looks]
    return [*looks, ("N", levels.chance(residual, jacobian, x, index, precision) / _OF_LEVELS)]


def drawn_in(residual: Array) -> Array:
    """Residuals within _FAR median deviations of their median."""
    middle = float(np.median(residual))
    reach = _FAR * 1.4826 * float(np.median(np.abs(residual - middle)))
    return np.clip(residual, middle - reach, middle + reach) if reach > 0 else residual


def powers(x: Array) -> Array:
    """Second and third powers of a centred variable scaled to one, (n, 2)."""
    scaled = (x - x.mean()) / max(float(np.std(x)), 1e-9)
    return np.column_stack([scaled**2, scaled**3])


def _cleared(values: Array, basis: Array) -> tuple[Array, int]:
    """Columns without what the basis spans, and its rank; directions that rounding decides do not count."""
    scale = np.sqrt(np.sum(basis**2, axis=0))
    left, strength, _ = np.linalg.svd(basis / np.where(scale > 0, scale, 1.0), full_matrices=False)
    kept = left[:, strength > 1e-3 * max(float(strength.max()), 1e-300)]
    return values - kept @ (kept.T @ values), kept.shape[1]


def _means(values: Array, index: np.ndarray) -> Array:
    """Means over runs: (n, k) -> (g, k)."""
    counts = np.bincount(index)
    return np.stack([np.bincount(index, weights=column) for column in values.T], axis=1) / counts[:, None]


def _between(residual: Array, jacobian: Array, functions: Array, index: np.ndarray) -> float:
    """Probability of the trend of run means along the strongest cleared function; 1 without a degree of freedom."""
    means = _means(np.column_stack([residual, functions, jacobian]), index)
    k = functions.shape[1]
    basis = np.column_stack([np.ones(len(means)), means[:, 1 + k :]])
    cleared, rank = _cleared(means[:, : 1 + k], basis)
    chances = []
    for column in range(1, 1 + k):
        # A function that the law can follow leaves rounding behind, which would be tested as a trend.
        if np.sum(cleared[:, column] ** 2) < _LEFT**2 * np.sum((means[:, column] - means[:, column].mean()) ** 2):
            continue
        chances.append(_slope_chance(cleared[:, column], cleared[:, 0], len(means) - rank - 1))
    return min(1.0, min(chances) * len(chances)) if chances else 1.0


def _slope_chance(x: Array, y: Array, degrees: int) -> float:
    """Probability of so steep a line through zero; 1 where it is small or nothing is left to judge it by."""
    square = float(x @ x)
    if degrees < 1 or square <= 1e-18:
        return 1.0
    slope = float(x @ y) / square
    rest = float(np.sum((y - slope * x) ** 2)) / degrees
    if abs(slope) * np.sqrt(square / len(x)) < _SMALL or rest <= 0:
        return 1.0
    return float(2.0 * (1.0 - student_cdf(abs(slope) * np.sqrt(square / rest), degrees)))


def _within(residual: Array, jacobian: Array, functions: Array, index: np.ndarray) -> float:
    """Probability of the common trend within runs, each run one observation of it."""
    all_ = np.column_stack([residual, functions, jacobian])
    inner = all_ - _means(all_, index)[index]
    k = functions.shape[1]
    cleared, _ = _cleared(inner[:, : 1 + k], inner[:, 1 + k :])
    runs = int(index.max()) + 1
    chances = []
    for column in range(1, 1 + k):
        f, r = cleared[:, column], cleared[:, 0]
        if runs < 4 or np.sum(f**2) < _LEFT**2 * np.sum(inner[:, column] ** 2):
            continue
        amplitude = abs(float(f @ r)) / float(f @ f) * float(np.sqrt(np.mean(f**2)))
        scores = np.bincount(index, weights=f * r)
        spread = float(np.sqrt(np.sum((scores - scores.mean()) ** 2) * runs / (runs - 1)))
        if amplitude >= _SMALL and spread > 0:
            chances.append(2.0 * (1.0 - student_cdf(abs(float(scores.sum())) / spread, runs - 1)))
    return min(1.0, min(chances) * len(chances)) if chances else 1.0


def _shapes(residual: Array, jacobian: Array, functions: Array, index: np.ndarray) -> float:
    """Probability that functions of N and D which all runs share explain so much of how residuals move within runs.

    Neighbouring evaluations of a run err alike, so a run counts as at most _A_RUN independent numbers, however long it
    is.
    """
    all_ = np.column_stack([residual, functions, jacobian])
    inner = all_ - _means(all_, index)[index]
    k = functions.shape[1]
    cleared, rank = _cleared(inner[:, : 1 + k], inner[:, 1 + k :])
    rest, tests = cleared[:, 0], cleared[:, 1:]
    slope = np.linalg.lstsq(tests, rest, rcond=1e-6)[0]
    explained, total = float(np.sum((tests @ slope) ** 2)), float(np.sum(rest**2))
    runs = int(index.max()) + 1
    lower = min(_A_RUN * runs, len(index) - runs - rank) - k
    if lower < 2 or np.sqrt(explained / len(rest)) < _SMALL:
        return 1.0
    return f_tail((explained / k) / max((total - explained) / lower, 1e-300), k, lower)


def shares_luck(residual: Array, size: Array) -> bool:
    """Whether residuals of rows of one size agree more than chance lets them: rows of runs that no column names."""
    _, index = np.unique(np.round(np.log(size), 6), return_inverse=True)
    counts = np.bincount(index)
    several = counts[index] >= 3
    if several.sum() < 9 or len(np.unique(index[several])) < 3:
        return False
    residual, (_, index) = drawn_in(residual)[several], np.unique(index[several], return_inverse=True)
    counts = np.bincount(index)
    means = np.bincount(index, weights=residual) / counts
    groups, rows = len(counts), len(residual)
    within = float(np.sum((residual - means[index]) ** 2)) / max(rows - groups, 1)
    between = float(np.sum(counts * (means - residual.mean()) ** 2)) / (groups - 1)
    # The law has taken out most of what sizes differ by, so four times is far beyond chance.
    return between > 4.0 * max(within, 1e-300)


def uneven(luck: Array, size: Array) -> float:
    """Rank correlation of each run's mean residual (g,), without its sign, with its size; 0 where it is chance."""
    if len(luck) < 8:
        return 0.0
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (np.abs(luck - np.median(luck)), size)]
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    free = len(luck) - 2
    t = abs(correlation) * np.sqrt(free / max(1.0 - correlation**2, 1e-12))
    return correlation if 2.0 * (1.0 - student_cdf(t, free)) < _UNEVEN else 0.0
