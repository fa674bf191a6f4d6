"""What is a structure, and does it pay? Tensor diagrams drawn from theta, and the frontiers of four structures.

Source: arXiv 2410.02117, figure 1.
"""

from __future__ import annotations

from functools import partial

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.names import readable
from structlin.drawing.style import ordered
from structlin.laws.approaches.fit import Laws
from structlin.laws.report.curves import frontier_panel, runs_said, without_law

from .diagram import paint_diagram
from .thetas import thetas_of

SHOWN = ("dense", "btt", "low_rank", "tensor_train")
"""Those shown where the runs have them; else the first four."""


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Diagrams of the shown structures, then their frontiers."""
    variants = shown(ordered(laws.points.variants))
    thetas = thetas_of(runs)
    diagrams = [
        Panel(f"{readable(name)}  {thetas[name]}", "", "", (), paint=partial(paint_diagram, theta=thetas[name]))
        for name in variants
        if not thetas[name].is_dense
    ]
    return Drawing(
        name="fig1",
        title="Structures as tensor diagrams, and their frontiers",
        caption=(
            "Each line is an index, as thick as its exponent; a dot joins three tensors. X is the input, Y the output, "
            f"A and B the factors. Frontiers on task={runs['task'].iloc[0]} ({runs_said(laws)}): runs faint, frontier "
            "solid with its evaluations, fitted law E + A C^-a dashed."
        ),
        panels=(*diagrams, frontier_panel(laws, variants, "frontiers")),
        columns=2,
        missing=without_law(laws, variants),
    )


def shown(variants: list[str]) -> list[str]:
    """Up to four variants: dense, and the best known of the others."""
    plain = {name.split("+")[0].removesuffix("/paper"): name for name in reversed(variants)}
    preferred = [plain[name] for name in SHOWN if name in plain]
    return (preferred + [name for name in variants if name not in preferred])[:4]
