"""Which two products does a kernel have to compute? The sizes of one call, read off its tensors.

With the roles of the order taken (structlin/nn/linear.py): x (T, g, b, a) enters the first factor (g, r, f, d, a), the
second (f, e, g, b, r) gives y (T, f, e, d). Where B is contracted first, a and b (and d and e) have changed roles, and
a is then not the innermost index of x, but e is of y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ProductSizes:
    """The sizes of both products, in the roles of the order taken."""

    g: int
    b: int
    """Input index that the first factor shares."""
    a: int
    """Input index that the first factor contracts."""
    r: int
    f: int
    d: int
    """Output index that the second factor shares."""
    e: int
    """Output index of the second factor."""
    a_first: bool
    """x is (T, g, b, a) and y (T, f, e, d) in memory; else (T, g, a, b) and (T, f, d, e)."""
    gelu: bool = False
    """The products are those of GELU(x)."""

    @classmethod
    def of(cls, first: Sequence[int], second: Sequence[int], a_first: bool, gelu: bool = False) -> ProductSizes:
        """From the shapes of both factors; ValueError where they do not belong together."""
        g, r, f, d, a = first
        f_second, e, g_second, b, r_second = second
        if (f, g, r) != (f_second, g_second, r_second):
            raise ValueError(
                f"factors of shapes {tuple(first)} and {tuple(second)} do not share f, g and r; "
                "the first is (g, r, f, d, a), the second (f, e, g, b, r)"
            )
        return cls(g, b, a, r, f, d, e, a_first, gelu)

    @property
    def used_in(self) -> int:
        """Input features."""
        return self.g * self.b * self.a

    @property
    def used_out(self) -> int:
        """Output features."""
        return self.f * self.d * self.e

    @property
    def macs(self) -> int:
        """Forward multiply-accumulates per row, e.g. 2 * 256 * 16 = 8192 for a BTT of rank 1 at d = 256."""
        return self.used_in * self.r * self.f * self.d + self.used_out * self.g * self.b * self.r
