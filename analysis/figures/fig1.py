"""What is a structure, and does it pay? Tensor diagrams drawn from theta, and the frontiers of four structures.

Source: arXiv 2410.02117, figure 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.names import readable
from structlin.drawing.style import SMALLEST_POINT, ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.report.curves import frontier_panel, runs_said, without_law
from structlin.structure import Theta

from .diagram import paint_diagram
from .thetas import thetas_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("dense", "btt", "low_rank", "tensor_train")
"""Those shown where the runs have them; else the first four."""


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Diagrams of the shown structures, then their frontiers."""
    variants = shown(ordered(laws.points.variants))
    thetas = thetas_of(runs)
    named = tuple((readable(name, variants), thetas[name]) for name in variants)
    diagrams = Panel("structures", "", "", (), paint=partial(_paint, named=named), tall=True)
    return Drawing(
        name="fig1",
        title="Structures as tensor diagrams, and their frontiers",
        caption=(
            "Each line is an index, as thick as its exponent; a dot joins three tensors. X is the input, Y the output, "
            f"A and B the factors. Frontiers on task={runs['task'].iloc[0]} ({runs_said(laws)}): runs faint, frontier "
            "solid with its evaluations, fitted law E + A C^-a dashed."
        ),
        panels=(diagrams, frontier_panel(laws, variants, "frontiers")),
        columns=2,
        missing=without_law(laws, variants),
    )


def _paint(axes: Axes, named: Sequence[tuple[str, Theta]]) -> None:
    """Diagrams two by two, each with its name and theta."""
    axes.set_axis_off()
    for place, (name, theta) in enumerate(named):
        inside = axes.inset_axes((0.5 * (place % 2), 0.5 - 0.5 * (place // 2), 0.5, 0.4))
        paint_diagram(inside, theta)
        inside.set_title(f"{name}  {theta}", fontsize=SMALLEST_POINT, loc="center", y=1.02)


def shown(variants: list[str]) -> list[str]:
    """Up to four variants: dense, and the best known of the others."""
    plain = {name.split("+")[0].removesuffix("/paper"): name for name in reversed(variants)}
    preferred = [plain[name] for name in SHOWN if name in plain]
    return (preferred + [name for name in variants if name not in preferred])[:4]
