"""How do all figures look? One place for colours, markers, sizes and type.

Colours are Okabe and Ito's, told apart by colour-blind readers, and markers tell the same again. Scales of a number
(omega, psi, nu) run through a part of viridis that stays dark enough on white. No text is below 7 pt at the printed
size: figures are as wide as a column (3.4 in a panel) or the page (7 in).
"""

from __future__ import annotations

from typing import Any

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DENSE_COLOUR, DENSE_MARKER = "#000000", "^"
PANEL_INCHES = (3.3, 2.7)
SMALLEST_POINT = 7.0

RC: dict[str, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "legend.fontsize": 7.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
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
    others = [other for other in names if other != "dense"]
    return COLOURS[1 + others.index(name) % (len(COLOURS) - 1)]


def marker_of(names: list[str], name: str) -> str:
    """A marker by the place of a name; dense is a triangle everywhere."""
    if name == "dense":
        return DENSE_MARKER
    others = [other for other in names if other != "dense"]
    free = [marker for marker in MARKERS if marker != DENSE_MARKER]
    return free[others.index(name) % len(free)]


def shade(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """The colour of a number on a scale: viridis from 0 to 0.9, where it is still seen on white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    part = 0.5 if high <= low else (min(max(value, low), high) - low) / (high - low)
    return to_hex(colormaps["viridis"](0.9 * part))
