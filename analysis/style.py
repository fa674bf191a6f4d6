"""How do all figures look? One place for colours, markers, sizes and type.

Colours are Okabe and Ito's, told apart by colour-blind readers, and markers tell the same again. Scales of a number
(omega, psi, nu) run through a part of viridis that stays dark enough on white. Figures are as wide as a column
(3.4 in) or a page (7 in) of print, and no text is below 7 pt at that size.
"""

from __future__ import annotations

from typing import Any

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DENSE_COLOUR, DENSE_MARKER = "#000000", "^"
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


def colour_of(names: list[str], name: str) -> str:
    """A colour by the place of a name; dense is black everywhere."""
    if name == "dense":
        return DENSE_COLOUR
    return COLOURS[1 + _place(names, name) % (len(COLOURS) - 1)]


def marker_of(names: list[str], name: str) -> str:
    """A marker by the place of a name; dense is a triangle everywhere. No two of 49 names share colour and marker."""
    if name == "dense":
        return DENSE_MARKER
    free = [marker for marker in MARKERS if marker != DENSE_MARKER]
    place = _place(names, name)
    return free[(place + place // len(free)) % len(free)]


def _place(names: list[str], name: str) -> int:
    return [other for other in names if other != "dense"].index(name)


def shade(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The colour of a number on a scale: viridis from 0 to 0.9, where it is still seen on white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    part = 0.5 if high <= low else (min(max(value, low), high) - low) / (high - low)
    return to_hex(colormaps["viridis"](0.9 * part))
