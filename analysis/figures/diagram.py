"""The tensor diagram of a theta, drawn from its exponents: nodes X, the factors, Y; a line an index, thick as its size.

An index that only one factor and an end have is a line; one that more tensors share meets in a dot between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structlin.structure import Theta
from structlin.structure.index import GREEK, Index

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = tuple[float, float]
SYMBOLS = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "phi": "φ", "rho": "ρ"}
LINE = "#0072B2"
APART = 1.1
"""Between the nodes of two factors."""


def indices(theta: Theta) -> dict[str, float]:
    """The indices that a theta has, with their exponents: Greek names of two factors, x12 and the like of others."""
    return {_name(index, theta.num_factors): float(theta[index.name].exponent) for index in theta.present}


def paint_diagram(axes: Axes, theta: Theta) -> None:
    """Draw the diagram; letters stand on white, so that no line runs through one."""
    nodes = _nodes(theta.num_factors)
    for index in theta.present:
        ends = _ends(index, nodes)
        middle = _middle(index, ends)
        width = 1.0 + 2.5 * float(theta[index.name].exponent)
        for end in ends:
            axes.plot([middle[0], end[0]], [middle[1], end[1]], color=LINE, lw=width, zorder=1, solid_capstyle="round")
        if len(ends) > 2:
            axes.plot(*middle, "o", color=LINE, ms=4.5, zorder=2)
        name, beside = _name(index, theta.num_factors), _label(index, len(ends), middle, _crowded(index, theta))
        axes.annotate(
            SYMBOLS.get(name, name), middle, xytext=beside, textcoords="offset points", ha="center", va="center",
            fontsize=8, zorder=4, bbox={"boxstyle": "round,pad=0.1", "fc": "white", "lw": 0},
        )  # fmt: skip
    for name, place in nodes.items():
        box = {"boxstyle": "circle,pad=0.28", "fc": "white", "ec": "black", "lw": 0.9}
        axes.text(*place, name, ha="center", va="center", fontsize=8.5, bbox=box, zorder=3)
    high = max(0.95, 0.4 + max(y for _, y in nodes.values()))
    axes.set(xlim=(-0.3, 2.3), ylim=(-high, high), aspect="equal")
    axes.set_axis_off()


def _nodes(num_factors: int) -> dict[str, Place]:
    """Where the input, the factors from top to bottom, and the output stand."""
    named = {1: ["W"], 2: ["A", "B"]}
    names = named.get(num_factors, [f"G{number}" for number in range(1, num_factors + 1)])
    top = (num_factors - 1) / 2 * APART
    return {"X": (0.0, 0.0), "Y": (2.0, 0.0)} | {name: (1.0, top - APART * n) for n, name in enumerate(names)}


def _name(index: Index, num_factors: int) -> str:
    return GREEK[index.name] if num_factors == 2 else index.name


def _ends(index: Index, nodes: dict[str, Place]) -> list[Place]:
    """The places of the tensors that have an index."""
    factors = [place for name, place in nodes.items() if name not in "XY"]
    own = [place for number, place in enumerate(factors, 1) if number in index]
    side = {"x": [nodes["X"]], "y": [nodes["Y"]]}.get(index.side, [])
    return side + own


def _middle(index: Index, ends: list[Place]) -> Place:
    """Where the lines of an index meet; shared ends meet between the columns."""
    height = sum(y for _, y in ends) / len(ends)
    if len(ends) == 2:
        return sum(x for x, _ in ends) / 2, height
    own = [y for x, y in ends if x == 1.0]
    # What two of three factors share meets nearer to them, off the lines of the others.
    aside = 0.5 if len(own) == 2 and max(own) == -min(own) else 0.68 if len(own) == 2 else 0.36
    column = {"x": aside, "y": 2.0 - aside}.get(index.side, 1.0)
    return column, sum(own) / len(own)


def _crowded(index: Index, theta: Theta) -> bool:
    """Whether the first factor alone has an index on the same side, whose line runs above the dot of shared ones."""
    return any(other.side == index.side and other.factors == (1,) for other in theta.present)


def _label(index: Index, num_ends: int, middle: Place, crowded: bool) -> Place:
    """Where the letter stands beside its line or dot, in points."""
    if index.side == "r":
        return 9.0, 0.0
    above = 1.0 if middle[1] >= 0 else -1.0
    if num_ends > 2:
        # On the side where no line of the first or last factor alone runs past the dot.
        return 0.0, -12.0 * above if crowded else 12.0 * above
    side = -1.0 if index.side == "x" else 1.0
    return 8.0 * side, 9.0 * above
