"""Where do a layer's weights lie in the row of all? The structs of layers.hpp, number by number."""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def pays(self) -> bool:
        """Whether the layer is worth a whole step in float32."""
        narrow, wide = sorted((self.d_in, self.d_out))
        if narrow <= NARROW:
            return True
        between = self.g * self.b * self.r * self.f * self.d
        return self.second != NOWHERE and narrow <= WIDEST and between <= wide


@dataclass(frozen=True)
class NormPlace:
    """A layer norm."""

    size: int
    gain: int
    bias: int
