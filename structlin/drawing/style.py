"""How do all figures look? Sizes, type, scales, and the colour and marker of every variant.

Colours are Okabe and Ito's, told apart by colour-blind readers, and markers tell the same again. Scales of a number
(omega, psi, nu) run through a part of viridis that stays dark enough on white. Figures are as wide as a column
(3.4 in), a column and a half (5.3 in) or a page (7 in) of print, and no text is below 7 pt at that size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00")
MARKERS = ("o", "s", "D", "v", "P", "X", "<")
DENSE_COLOUR, DENSE_MARKER = COLOURS[0], "^"
# Matplotlib's viridis at 0, 0.9 / 8, ... 0.9: straight lines between them are off by at most 6 of 255, and a page
# needs no matplotlib.
VIRIDIS = ("#440154", "#482878", "#3e4a89", "#30698e", "#25848e", "#1fa088", "#38b977", "#73d056", "#bddf26")
RING = "ring"
"""A marker around other markers."""
STAR = "*"
"""The marker of an optimum."""
COLUMN_INCHES, WIDE_INCHES, PAGE_INCHES = 3.4, 5.3, 7.0
SMALLEST_POINT = 7.0

RC: Any = {
    # No drawing holds mathematics, and a dollar sign in a name is a dollar sign.
    "text.parse_math": False,
    "font.size": 7.5,
    "axes.titlesize": 8.0,
    "axes.labelsize": 7.5,
    "legend.fontsize": SMALLEST_POINT,
    "xtick.labelsize": SMALLEST_POINT,
    "ytick.labelsize": SMALLEST_POINT,
    "xtick.major.pad": 2.5,
    "ytick.major.pad": 2.5,
    "axes.labelpad": 2.5,
    "axes.titlepad": 4.0,
    # A fixed height: finding one that clears all labels takes as long as drawing everything else.
    "axes.titley": 1.0,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    # TrueType, which journals ask for; the same input gives the same bytes.
    "pdf.fonttype": 42,
    "svg.hashsalt": "structlin",
}


def ordered(variants: Iterable[str]) -> list[str]:
    """The order of legends, whichever run came first: dense, structures by name (btt3 before btt11), then mixtures."""
    return sorted(variants, key=lambda name: (not _is_dense(name), "moe-" in name, _words(name)))


def colour_of(variants: Iterable[str], variant: str) -> str:
    """A colour by the place of a variant among those of a figure; dense is black."""
    return DENSE_COLOUR if _is_dense(variant) else COLOURS[1 + _place(variants, variant) % (len(COLOURS) - 1)]


def marker_of(variants: Iterable[str], variant: str) -> str:
    """A marker by the place of a variant; dense is a triangle. No two of 49 variants share colour and marker."""
    if _is_dense(variant):
        return DENSE_MARKER
    place = _place(variants, variant)
    return MARKERS[(place + place // len(MARKERS)) % len(MARKERS)]


def _is_dense(variant: str) -> bool:
    """Also under the rounding of the paper: dense/paper."""
    return variant.partition("/")[0] == "dense"


def _place(variants: Iterable[str], variant: str) -> int:
    return [name for name in ordered(variants) if not _is_dense(name)].index(variant)


def _words(name: str) -> list[tuple[bool, int, str]]:
    """A name with its numbers as numbers."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def shade(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The colour of a number on a scale: viridis from 0 to 0.9, where it is still seen on white."""
    part = 0.5 if high <= low else (min(max(value, low), high) - low) / (high - low)
    place = min(int(part * (len(VIRIDIS) - 1)), len(VIRIDIS) - 2)
    share = part * (len(VIRIDIS) - 1) - place
    ends = [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in VIRIDIS[place : place + 2]]
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(*ends, strict=True))
