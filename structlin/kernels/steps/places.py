"""Where do a layer's weights lie in the row of all? The structs of layers.hpp, number by number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from structlin.kernels.steps.library import Longs, address

NOWHERE = -1
NARROW = 160
"""Up to here every layer is faster in a whole step than by torch's products or a kernel of its own sizes. Above, those
win where a layer is dense or holds more between its factors than it reads or writes (measured, docs/lab-book.md)."""
WIDEST = 512
"""The widest layers that were measured."""


@dataclass(frozen=True)
class LinearPlace:
    """A linear map: its sizes in the roles of the order taken (kernels/products/layout.py), and its weights' places."""

    d_in: int
    d_out: int
    g: int
    b: int
    a: int
    r: int
    f: int
    d: int
    e: int
    a_first: int
    first: int
    second: int
    """NOWHERE: ``first`` is a dense weight."""
    bias: int
    chain: Longs | None = None
    """Of three factors and more (``chain``), whose sizes and places stand in it."""

    def numbers(self) -> list[int]:
        """The struct Linear; valid as long as the place is held."""
        sizes = [self.d_in, self.d_out, self.g, self.b, self.a, self.r, self.f, self.d, self.e, self.a_first]
        return [*sizes, self.first, self.second, self.bias, address(self.chain) or 0]

    @property
    def is_narrow(self) -> bool:
        """Whether torch's calls take longer than their arithmetic."""
        return min(self.d_in, self.d_out) <= NARROW

    @property
    def pays(self) -> bool:
        """Whether the layer is worth a whole step in float32."""
        if self.is_narrow:
            return True
        narrow, wide = sorted((self.d_in, self.d_out))
        between = self.g * self.b * self.r * self.f * self.d
        return self.second != NOWHERE and narrow <= WIDEST and between <= wide


@dataclass(frozen=True)
class NormPlace:
    """A layer norm."""

    size: int
    gain: int
    bias: int

    def numbers(self) -> list[int]:
        """The struct Norm."""
        return [self.size, self.gain, self.bias]


@dataclass(frozen=True)
class HopPlace:
    """A factor of a chain, stored as (B, N, C): its place, its sizes, and which row each one that it reads is."""

    weight: int
    sizes: tuple[int, int, int, int]
    """B, N, C and P."""
    order: Longs


def chain(hops: Sequence[HopPlace], outputs: Longs) -> Longs:
    """The struct Chain of chains.hpp. ``outputs``: which row of what the last factor leaves each output is."""
    parts = [[hop.weight, *hop.sizes, *hop.order] for hop in hops]
    reads, leaves = [len(hop.order) for hop in hops], [len(hop.order) // hop.sizes[2] * hop.sizes[1] for hop in hops]
    head = [len(hops), sum(reads), max(*reads, *leaves), len(outputs)]
    begins = accumulate((len(part) for part in parts), initial=len(head) + len(parts) + 1)
    return np.array([*head, *begins, *(number for part in parts for number in part), *outputs], dtype=np.int64)
