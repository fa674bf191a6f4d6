"""From which sizes on does a fused kernel serve? Without torch, so that a bill knows it too."""

from __future__ import annotations

from structlin.structure import LinearPlan

FUSED_LEAST_WIDTH = 64
"""Fused kernels serve from here on: below, a build (1 to 3 s a shape) costs more than a run of such a small model wins
(measured, docs/lab-book.md)."""


def is_fusible(plan: LinearPlan) -> bool:
    """Whether a fused kernel would compute this layer (of two factors) where there is one for device and dtype."""
    sizes = plan.sizes
    return sizes.num_factors == 2 and min(sizes.used_in, sizes.used_out) >= FUSED_LEAST_WIDTH
