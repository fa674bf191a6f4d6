"""How do all figures look? Sizes, type and scales; the colours and markers of variants are those of the laws' figures.

Colours are Okabe and Ito's, told apart by colour-blind readers, and markers tell the same again. Scales of a number
(omega, psi, nu) run through a part of viridis that stays dark enough on white. Figures are as wide as a column
(3.4 in) or a page (7 in) of print, and no text is below 7 pt at that size.
"""

from __future__ import annotations

from typing import Any

from structlin.laws.figures import COLOURS, DENSE_COLOUR, MARKERS, ordered
from structlin.laws.figures import colour as colour_of
from structlin.laws.figures import marker as marker_of

__all__ = [
    "COLOURS", "COLUMN_INCHES", "DENSE_COLOUR", "MARKERS", "PAGE_INCHES", "RC", "RING", "SMALLEST_POINT", "colour_of",
    "marker_of", "ordered", "shade",
]  # fmt: skip

RING = "ring"
"""A marker around other markers."""
COLUMN_INCHES, PAGE_INCHES = 3.4, 7.0
SMALLEST_POINT = 7.0

RC: Any = {
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
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    # TrueType, which journals ask for; the same input gives the same bytes.
    "pdf.fonttype": 42,
    "svg.hashsalt": "structlin",
}


def shade(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The colour of a number on a scale: viridis from 0 to 0.9, where it is still seen on white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    part = 0.5 if high <= low else (min(max(value, low), high) - low) / (high - low)
    return to_hex(colormaps["viridis"](0.9 * part))
