"""Which sizes does a head-aware block tensor train take? Its axes are the heads n and the features d of a head.

A layout names what alpha, gamma, epsilon and phi are, in this order; nddn: alpha heads, gamma features, epsilon
features, phi heads. The layer reads x[gamma, alpha] and writes y[phi, epsilon], while attention holds its features as
[head, feature]: so where gamma is d the input of the attention output has to be transposed, and where phi is d the
outputs q, k and v. Source: arXiv 2410.02117, section 5 (head-aware BTT).
"""

from __future__ import annotations

from structlin.structure.sizes import Sizes, rank_size
from structlin.structure.theta import Theta

HEAD_LAYOUTS = ("none", "nddn", "dndn", "ndnd", "dnnd")


def head_aware_sizes(layout: str, num_heads: int, head_size: int, theta: Theta) -> Sizes:
    """Sizes of a square layer of ``num_heads * head_size`` features; the rank is that of ``theta``.

    Worked example: nddn at 4 heads of 16 is a = f = 4 and g = e = 16, at 64 (f + g) = 1280 MACs per row and rank.
    """
    width = num_heads * head_size
    alpha, gamma, epsilon, phi = ({"n": num_heads, "d": head_size}[axis] for axis in layout)
    rank = rank_size(theta["r12"], width, width)
    return Sizes.of_two(width, width, a=alpha, g=gamma, e=epsilon, f=phi, r=rank)


def input_is_transposed(layout: str) -> bool:
    """Whether the attention output reads its features as [feature, head]."""
    return layout != "none" and layout[1] == "d"


def output_is_transposed(layout: str) -> bool:
    """Whether q, k and v leave their layers as [feature, head]."""
    return layout != "none" and layout[3] == "d"
