"""What has been measured of the arms? Evaluations of constant-rate runs as arrays, and frontiers read off them.

A run is a trunk: it has passed every compute below its last, so what an arm would have shown at a smaller budget stands
in the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from structlin.laws.minimum.objective import Array

NEAR = 1.15
"""A run that ends this factor before a compute is read off at its end: steps are whole, and rounded to a lattice."""
_OVER = 1.13
"""By so much a run may end beyond it."""


@dataclass(frozen=True)
class Measured:
    """n evaluations."""

    arm: np.ndarray
    """Number of the arm, (n,)."""
    run: np.ndarray
    """Number of the run, (n,); no run belongs to two arms."""
    size: Array
    """N, forward MACs per token, (n,)."""
    tokens: Array
    """D, (n,)."""
    flops: Array
    """C, training FLOPs, (n,)."""
    loss: Array
    """L, (n,)."""

    def __len__(self) -> int:
        return len(self.loss)

    def where(self, mask: np.ndarray) -> Measured:
        """The rows of a mask (n,)."""
        return Measured(*(getattr(self, name)[mask] for name in ("arm", "run", "size", "tokens", "flops", "loss")))

    def below(self, flops: float) -> Measured:
        """The rows of at most this compute, or nearly."""
        return self.where(self.flops <= flops * _OVER)

    def of(self, arms: np.ndarray) -> Measured:
        """The rows of some arms."""
        return self.where(np.isin(self.arm, arms))

    @property
    def arms(self) -> np.ndarray:
        """Numbers of the arms that have rows, rising."""
        return np.unique(self.arm)

    def frontier(self, flops: float) -> dict[int, float]:
        """Lowest loss of each arm at a compute: its runs that got there, read off between their evaluations in logs."""
        return {arm: loss for arm, (loss, _) in self.frontier_runs(flops).items()}

    def frontier_runs(self, flops: float) -> dict[int, tuple[float, int]]:
        """The same with the number of the run that has it."""
        found: dict[int, tuple[float, int]] = {}
        at = np.log(flops)
        order = np.lexsort((self.flops, self.run))
        run, arm = self.run[order], self.arm[order]
        x, y = np.log(self.flops[order]), np.log(self.loss[order])
        edges = np.flatnonzero(np.diff(run)) + 1
        for rows in np.split(np.arange(len(run)), edges):
            if not len(rows) or x[rows[-1]] < at - np.log(NEAR) or x[rows[0]] > at + np.log(NEAR):
                continue
            loss = float(np.exp(np.interp(at, x[rows], y[rows])))
            one = int(arm[rows[0]])
            found[one] = min((loss, int(run[rows[0]])), found.get(one, (np.inf, -1)))
        return found
