"""From which sizes on does a fused kernel serve? Without torch, so that a bill knows it too."""

from __future__ import annotations

from structlin.structure.sizes import Sizes

FUSED_LEAST_WIDTH = 64
"""Fused kernels serve from here on: below, a build (1 to 3 s a shape) costs more than a run of such a small model wins
(measured, docs/lab-book.md)."""


def is_fusible(sizes: Sizes) -> bool:
    """Whether a fused kernel would compute this layer where there is one for the device and dtype."""
    return not sizes.dense and min(sizes.used_in, sizes.used_out) >= FUSED_LEAST_WIDTH
