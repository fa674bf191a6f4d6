"""Which structures scale best on GPT-2? Frontiers by omega, then by psi where omega = 0, then by nu where psi = 1.

Source: arXiv 2410.02117, figure 4.
"""

from __future__ import annotations

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.style import ordered
from structlin.laws.approaches.laws import Laws
from structlin.laws.report.curves import by_number, compute_label, loss_label, runs_said, without_law

from .thetas import places_of

NEAR = 1e-6


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Three panels: the full space by omega; omega = 0 by psi; omega = 0 and psi = 1 by nu."""
    return taxonomy_drawing("fig4", "GPT-2: frontiers of structures", runs, laws)


def taxonomy_drawing(name: str, title: str, runs: pd.DataFrame, laws: Laws) -> Drawing:
    """The three panels of a task as a figure."""
    return Drawing(
        name=name,
        title=title,
        caption=(
            f"Compute-optimal frontiers of {len(laws.points.variants)} structures on task={runs['task'].iloc[0]} "
            f"({runs_said(laws)}). Left: all, listed by omega (FLOPs per parameter grow as d^omega). Middle: those "
            "without sharing (omega = 0), by psi (rank grows as d^psi). Right: those of full rank besides, by nu "
            "(FLOPs grow as d^(1 + nu)). Dense as black triangles; fitted laws dashed."
        ),
        panels=taxonomy_panels(runs, laws),
        shared_y=True,
        missing=without_law(laws, laws.points.variants),
    )


def taxonomy_panels(runs: pd.DataFrame, laws: Laws) -> tuple[Panel, ...]:
    """All by omega; omega = 0 by psi; omega = 0 and psi = 1 by nu: the order of the legends."""
    places = places_of(runs)
    every = ordered(laws.points.variants)
    unshared = [name for name in every if abs(places[name].omega) < NEAR]
    full_rank = [name for name in unshared if places[name].psi > 1 - NEAR]
    chosen = (
        (every, "omega", "all, by ω", "ω"),
        (unshared, "psi", "ω = 0, by ψ", "ψ"),
        (full_rank, "nu", "ω = 0 and ψ = 1, by ν", "ν"),
    )
    panels = []
    for variants, attribute, title, symbol in chosen:
        values = {name: float(getattr(places[name], attribute)) for name in variants}
        series = by_number(laws, variants, values, symbol)
        panels.append(Panel(title, compute_label(laws), loss_label(runs), series))
    return tuple(panels)
