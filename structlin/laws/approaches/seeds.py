"""How noisy is a run of each size? Measured where seeds exist: small ones may scatter ten times as much.

The variance between the seeds of a size, from their mean residuals, is fitted as a power of the size; where that power
is told from zero, rows of L(N, D) count by the inverse of their noise.

Shapes: n rows, g runs.
"""

from __future__ import annotations

import numpy as np

from structlin.laws.minimum.objective import Array

_SIZES, _DEGREES = 3, 5
# Variance of the logarithm of a variance on 1, 2, 3, ... degrees of freedom (trigamma of half of them).
_LOG_VARIANCE = (4.93, 1.64, 0.93, 0.64, 0.49, 0.39, 0.33, 0.28)
_TOLD, _MOST = 2.0, 10.0


def scales(residual: Array, size: Array, index: np.ndarray) -> Array | None:
    """Noise of each run over the mean noise (g,), from residuals (n,); None where seeds do not tell sizes apart."""
    counts = np.bincount(index)
    luck, log_size = np.bincount(index, weights=residual) / counts, np.bincount(index, weights=np.log(size)) / counts
    _, group = np.unique(np.round(log_size, 4), return_inverse=True)
    members = np.bincount(group)
    degrees = members - 1
    if (degrees > 0).sum() < _SIZES or degrees.sum() < _DEGREES:
        return None
    means = np.bincount(group, weights=luck) / members
    squares = np.bincount(group, weights=(luck - means[group]) ** 2)
    known = (degrees > 0) & (squares > 0)
    if known.sum() < _SIZES:
        return None
    x = (np.bincount(group, weights=log_size) / members)[known]
    y = np.log(squares[known] / degrees[known])
    weight = 1.0 / np.array([_LOG_VARIANCE[min(d, len(_LOG_VARIANCE)) - 1] for d in degrees[known]])
    middle = float(np.average(x, weights=weight))
    spread = float(weight @ (x - middle) ** 2)
    if spread <= 0:
        return None
    slope = float(weight @ ((x - middle) * y)) / spread
    if abs(slope) * np.sqrt(spread) < _TOLD:
        return None
    noise = np.exp(0.5 * slope * (log_size - middle))
    noise = np.clip(noise / np.exp(np.log(noise).mean()), 1.0 / _MOST, _MOST)
    return np.asarray(noise / np.sqrt(np.mean(noise**2)))
