"""Where do a layer's weights lie in the row of all? The structs of layers.hpp, number by number."""

from __future__ import annotations

from dataclasses import dataclass

NOWHERE = -1


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


@dataclass(frozen=True)
class NormPlace:
    """A layer norm."""

    size: int
    gain: int
    bias: int
