"""The tensor diagram of a theta, drawn from its exponents: nodes X, A, B, Y; a line an index, as thick as its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structlin.structure import Theta
from structlin.structure.index import GREEK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NODES = {"X": (0.0, 0.0), "A": (1.0, 0.55), "B": (1.0, -0.55), "Y": (2.0, 0.0)}
EDGES = {
    "alpha": ("X", "A"), "beta": ("X", "B"), "gamma": ("X", "A", "B"), "delta": ("Y", "A"), "epsilon": ("Y", "B"),
    "phi": ("Y", "A", "B"), "rho": ("A", "B"),
}  # fmt: skip
SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "phi": "φ", "rho": "ρ"}
LINE = "#0072B2"


def indices(theta: Theta) -> dict[str, float]:
    """The indices that a theta of two factors has, with their exponents."""
    return {GREEK[index.name]: float(theta[index.name].exponent) for index in theta.present}


def paint_diagram(axes: Axes, theta: Theta) -> None:
    """Draw the diagram; an index that joins three tensors meets in a dot."""
    for name, exponent in indices(theta).items():
        ends = [NODES[node] for node in EDGES[name]]
        width = 1.0 + 2.5 * exponent
        middle = _middle(name, ends)
        for end in ends:
            axes.plot([middle[0], end[0]], [middle[1], end[1]], color=LINE, lw=width, zorder=1, solid_capstyle="round")
        if len(ends) == 3:
            axes.plot(*middle, "o", color=LINE, ms=4.5, zorder=2)
        axes.annotate(SYMBOLS[name], middle, xytext=_label(name), textcoords="offset points", ha="center", fontsize=8)
    for node, place in NODES.items():
        box = {"boxstyle": "circle,pad=0.28", "fc": "white", "ec": "black", "lw": 0.9}
        axes.text(*place, node, ha="center", va="center", fontsize=8.5, bbox=box, zorder=3)
    axes.set(xlim=(-0.3, 2.3), ylim=(-0.95, 0.95), aspect="equal")
    axes.set_axis_off()


def _middle(name: str, ends: list[tuple[float, float]]) -> tuple[float, float]:
    if len(ends) == 3:
        return (0.5, 0.0) if name == "gamma" else (1.5, 0.0)
    (x0, y0), (x1, y1) = ends
    return (x0 + x1) / 2, (y0 + y1) / 2


def _label(name: str) -> tuple[float, float]:
    """Where the letter stands beside its line, in points."""
    above, below = (0.0, 5.0), (0.0, -12.0)
    return {"alpha": above, "delta": above, "beta": below, "epsilon": below, "rho": (7.0, -3.0)}.get(name, (0.0, 6.0))
