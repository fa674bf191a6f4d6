"""How far is a law from the data? One robust loss per residual, summed with weights over the rows of a table.

    log_huber     sum_i w_i huber_delta(log f_i - log L_i)      the default, delta 1e-3 (arXiv 2203.15556, eq. 3)
    log_squares   sum_i w_i (log f_i - log L_i)^2 / 2
    huber         sum_i w_i huber_delta(f_i - L_i)
    squares       sum_i w_i (f_i - L_i)^2 / 2

huber_delta(r) = r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2). A sum, never a mean: dividing by the number
of rows shrinks the gradient below the tolerance of most optimisers, which is how a published fit of 2022 stopped
early (arXiv 2404.10102).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from structlin.errors import UserError, suggest

Array = NDArray[np.float64]
KINDS = ("log_huber", "log_squares", "huber", "squares")


@dataclass(frozen=True)
class Objective:
    """A loss between predicted and measured values."""

    kind: str = "log_huber"
    """One of KINDS; the names with ``log`` compare logarithms."""
    delta: float = 1e-3
    """Where the Huber loss turns from a square into a line (in log units for log_huber, in nats for huber)."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"objective '{self.kind}' is not known; {suggest(self.kind, KINDS)}")
        if not (self.delta > 0 and np.isfinite(self.delta)):
            raise UserError(f"delta is {self.delta}; it must be a positive number such as 1e-3")

    @property
    def logarithmic(self) -> bool:
        """Whether logarithms are compared."""
        return self.kind.startswith("log_")

    @property
    def robust(self) -> bool:
        """Whether a far residual counts linearly rather than by its square."""
        return self.kind.endswith("huber")

    def with_delta(self, delta: float) -> Objective:
        """The same kind with another delta."""
        return replace(self, delta=delta)

    def target(self, loss: Array) -> Array:
        """What residuals are measured against: log L or L."""
        return np.log(loss) if self.logarithmic else np.asarray(loss, dtype=float)

    def residual(self, predicted: Array, target: Array) -> Array:
        """log f - log L, or f - L; shapes broadcast."""
        return (np.log(predicted) if self.logarithmic else predicted) - target

    def value(self, residual: Array, delta: Array | float | None = None) -> Array:
        """The loss of each residual."""
        if not self.robust:
            return 0.5 * residual * residual
        width = self.delta if delta is None else delta
        size = np.abs(residual)
        inner = np.minimum(size, width)
        return inner * (size - 0.5 * inner)

    def slope(self, residual: Array, delta: Array | float | None = None) -> Array:
        """The first derivative of the loss in the residual."""
        if not self.robust:
            return residual
        width = self.delta if delta is None else delta
        return np.clip(residual, -width, width)

    def total(self, predicted: Array, loss: Array, weights: Array | float = 1.0) -> float:
        """The weighted sum over all rows: the number reported as ``objective``."""
        return float(np.sum(weights * self.value(self.residual(predicted, self.target(loss)))))
