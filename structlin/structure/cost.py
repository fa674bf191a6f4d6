"""What does a structure cost? Multiply-accumulates (MACs) per input row, in both contraction orders, and parameters.

    A first: z[f,d,r,g,b] = sum_a x A, then y = sum_{r,g,b} z B     MACs  a b g . d f r  +  d e f . b g r
    B first: z[f,e,r,g,a] = sum_b x B, then y = sum_{r,g,a} z A     MACs  a b g . e f r  +  d e f . a g r

The layer takes the cheaper order (A first on a tie). Backward costs twice forward. Source: arXiv 2410.02117,
section 3; the two orders derived here.
"""

from __future__ import annotations

from structlin.structure.sizes import Sizes


def macs_a_first(sizes: Sizes) -> int:
    """Forward MACs per row, contracting x with A first."""
    s = sizes
    return s.used_in * s.d * s.f * s.r + s.used_out * s.b * s.g * s.r


def macs_b_first(sizes: Sizes) -> int:
    """Forward MACs per row, contracting x with B first."""
    s = sizes
    return s.used_in * s.e * s.f * s.r + s.used_out * s.a * s.g * s.r


def a_first(sizes: Sizes) -> bool:
    """Whether A is contracted first: where that is not dearer."""
    return macs_a_first(sizes) <= macs_b_first(sizes)


def macs(sizes: Sizes) -> int:
    """Forward MACs per row in the order taken; a dense layer costs d_in * d_out.

    Worked example: BTT at d = 64 (a = g = e = f = 8) costs 64*8 + 64*8 = 1024, dense 4096.
    """
    if sizes.dense:
        return sizes.d_in * sizes.d_out
    return min(macs_a_first(sizes), macs_b_first(sizes))


def params(sizes: Sizes) -> int:
    """Number of weights: a g d f r + b g e f r, or d_in * d_out for a dense layer."""
    s = sizes
    if s.dense:
        return s.d_in * s.d_out
    return s.a * s.g * s.d * s.f * s.r + s.b * s.g * s.e * s.f * s.r
