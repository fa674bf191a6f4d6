"""From which sizes on does a fused kernel serve, and in which form a GPU? Without torch: a bill knows it too."""

from __future__ import annotations

import math
from typing import Protocol

from structlin.structure import LinearPlan

FUSED_LEAST_WIDTH = 64
"""Fused kernels serve from here on: below, a build (1 to 3 s a shape) costs more than a run of such a small model wins
(measured, docs/lab-book.md)."""


def is_fusible(plan: LinearPlan) -> bool:
    """Whether a fused kernel would compute this layer (of two factors) where there is one for device and dtype."""
    sizes = plan.sizes
    return sizes.num_factors == 2 and min(sizes.used_in, sizes.used_out) >= FUSED_LEAST_WIDTH


LARGEST_INNER = 128
"""The largest inner size of a layer that is fused on a GPU: there, the smallest choice of blocks takes 83 KB of shared
memory in float32 (compiled for compute capability 9.0), of the 163 KB that a program may have on an A100."""
LEAST_VOCABULARY = 4096
"""From here on a head and its loss go through a step in chunks: below, logits are no larger than what a block keeps."""
CHUNK_ELEMENTS = 1 << 26
"""Logits of a chunk: a quarter of a gigabyte in float32."""
DENSE_BELOW = (300, 720)
"""On a GPU one dense product of both factors is the faster form below the width 300 + 720 r: its time goes with the
width squared and the kernels' with width and rank (layers timed on an H200, docs/gpu.md)."""


class Sizes(Protocol):
    """Sizes of both products of a layer (kernels/products/layout.py)."""

    @property
    def g(self) -> int: ...
    @property
    def b(self) -> int: ...
    @property
    def a(self) -> int: ...
    @property
    def r(self) -> int: ...
    @property
    def f(self) -> int: ...
    @property
    def d(self) -> int: ...
    @property
    def e(self) -> int: ...


def gpu_form(sizes: Sizes) -> str:
    """How a layer of two factors runs on a GPU: fused, pair (two plain products) or dense (one of the whole matrix).

    Fused where both inner sizes fit a block and there is a permutation to save; elsewhere (low rank, or a factor that
    is nearly dense) two large batched products are at their best.
    """
    s = sizes
    if max(s.a, s.e) > LARGEST_INNER or min(s.g * s.b, s.f * s.d) <= 1:
        return "pair"
    width = math.sqrt(s.g * s.b * s.a * s.f * s.d * s.e)
    least, by_rank = DENSE_BELOW
    return "dense" if width < least + by_rank * s.r else "fused"
