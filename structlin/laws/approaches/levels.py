"""Do runs stand where their own shapes say? Large models mistuned by 1% a doubling bend levels, not shapes.

How losses fall along runs is measured far better than the level of a run, and E and alpha bend to levels that rise
with the size. So L(N, D) is weighted as its noise is (a common error of each run, and errors of its rows): shapes then
decide the parameters, and the levels must scatter about the law that the shapes ask for. What they are tested for are
hinges: levels that leave the law above, or below, a third and two thirds of the sizes.

The noise between runs is estimated from what is left of the levels, on as many degrees of freedom as the design leaves
them (a trace); a hinge that is partly measured by shapes has more (Satterthwaite 1946). Neighbouring evaluations of a
run err alike: the noise of rows is stretched by their correlation.

Shapes: n rows, g runs, p parameters, k hinges.
"""

from __future__ import annotations

import numpy as np

from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.quantiles import f_tail

_KNOTS = (1.0 / 3.0, 2.0 / 3.0)
_ROUNDS = 4
# Of a hinge, what must be left once the law has followed it; of the noise of rows, the least noise of runs.
_LEFT, _LEAST = 1e-3, 0.1
# Directions of the law weaker than this, of the strongest, are rounding.
_STRENGTH = 1e-4


def chance(residual: Array, jacobian: Array, log_size: Array, index: np.ndarray, precision: Array) -> float:
    """Probability of levels so far from the law that the shapes of runs ask for, of all hinges together.

    ``residual`` (n,) in log loss, ``jacobian`` (n, p) of the law's logarithm, ``index`` (n,) each row's run; both are
    already times ``precision`` (n,), one over the noise of each run.
    """
    row_noise = _row_noise(residual, jacobian, index)
    if row_noise <= 0.0:
        return 1.0
    found = [_of(residual, jacobian, hinge, index, row_noise) for hinge in hinges(log_size).T * precision]
    return min(1.0, min(found) * len(found))


def hinges(log_size: Array) -> Array:
    """What rises from a third or two thirds of the sizes on, upwards and downwards, (n, k)."""
    sizes = np.unique(np.round(log_size, 9))
    knots = np.quantile(sizes, _KNOTS)
    up = [np.maximum(log_size - knot, 0.0) for knot in knots]
    down = [np.maximum(knot - log_size, 0.0) for knot in knots]
    return np.column_stack([column - column.mean() for column in up + down])


def _means(values: Array, index: np.ndarray) -> Array:
    """Means over runs, once a row: (n, k) -> (n, k)."""
    counts = np.bincount(index)
    sums = np.stack([np.bincount(index, weights=column) for column in values.T], axis=1)
    return np.asarray((sums / counts[:, None])[index])


def _row_noise(residual: Array, jacobian: Array, index: np.ndarray) -> float:
    """Noise of rows within runs, as that of independent ones would have to be to move shapes as much."""
    rows, runs = len(index), int(index.max()) + 1
    both = np.column_stack([residual, jacobian])
    inner = both - _means(both, index)
    basis = _basis(inner[:, 1:])
    left = inner[:, 0] - basis @ (basis.T @ inner[:, 0])
    square = float(left @ left)
    if square <= 0.0:
        return 0.0
    # A mean a run was taken off, which makes neighbours look opposed by one over the rows of a run.
    alike = float(np.sum((left[1:] * left[:-1])[index[1:] == index[:-1]])) / square + runs / rows
    alike = min(alike, 0.95) if alike * np.sqrt(rows) > 2.0 else 0.0
    return float(np.sqrt(square / max(rows - runs - basis.shape[1], 1) * (1.0 + alike) / (1.0 - alike)))


def _basis(columns: Array) -> Array:
    """Orthonormal columns that span the same, without directions that rounding decides."""
    length = np.sqrt(np.sum(columns**2, axis=0))
    left, strength, _ = np.linalg.svd(columns / np.where(length > 0, length, 1.0), full_matrices=False)
    return np.asarray(left[:, strength > _STRENGTH * max(float(strength.max()), 1e-300)])


def _of(residual: Array, jacobian: Array, hinge: Array, index: np.ndarray, row_noise: float) -> float:
    """Probability of so much of one hinge (n,) by chance."""
    counts = np.bincount(index).astype(float)
    all_ = np.column_stack([residual, hinge, jacobian])
    means = _means(all_, index)
    start = float(np.std(means[:, 0]))
    run_noise = max(start, row_noise)
    for k in range(_ROUNDS):
        # A run's mean has the noise of its level too; everything in units of its own noise.
        level = np.sqrt(run_noise**2 * counts + row_noise**2)
        scaled = (all_ - means) / row_noise + means / level[index][:, None]
        basis = _basis(scaled[:, 2:])
        rest, test = (column - basis @ (basis.T @ column) for column in scaled[:, :2].T)
        length = float(np.sqrt(test @ test))
        if length <= _LEFT * float(np.sqrt(scaled[:, 1] @ scaled[:, 1])):
            return 1.0
        test = test / length
        spread, degrees = _between(rest - test * float(test @ rest), np.column_stack([basis, test]), index)
        if degrees <= 0.5:
            return 1.0
        if k < _ROUNDS - 1:
            run_noise = max(run_noise * float(np.sqrt(spread)), _LEAST * row_noise)
    # How much of the variance of the hinge's size is that of levels; shapes know theirs.
    of_runs = np.bincount(index, weights=test) ** 2 / counts
    share = max(float(np.sum(of_runs * run_noise**2 * counts / level**2)), 1e-3)
    value = float(test @ rest) ** 2 / (share * spread + 1.0 - share)
    return f_tail(value, 1, max(int(degrees / share), 1))


def _between(rest: Array, cleared: Array, index: np.ndarray) -> tuple[float, float]:
    """Mean square of the levels that are left, one where their noise is right, and its degrees of freedom."""
    root = np.sqrt(np.bincount(index))
    levels = np.bincount(index, weights=rest) / root
    taken = np.stack([np.bincount(index, weights=column) for column in cleared.T], axis=1) / root[:, None]
    free = np.eye(len(root)) - taken @ taken.T
    trace = float(np.trace(free))
    return float(levels @ levels) / max(trace, 1e-9), trace**2 / max(float(np.sum(free**2)), 1e-9)
