"""Which structures scale best on GPT-2? Frontiers by omega, then by psi where omega = 0, then by nu where psi = 1.

Source: arXiv 2410.02117, figure 4.
"""

from __future__ import annotations

import pandas as pd

from analysis.curves import by_number, compute_label, without_law
from analysis.drawing import Drawing, Panel
from analysis.style import shade
from analysis.thetas import places_of
from structlin.laws.fit import Laws

STUDY = "fig4"
NEAR = 1e-6


def draw(runs: pd.DataFrame, laws: Laws) -> Drawing:
    """Three panels: the full space by omega; omega = 0 by psi; omega = 0 and psi = 1 by nu."""
    return Drawing(
        name="fig4",
        title="GPT-2: frontiers of structures",
        caption=(
            f"Compute-optimal frontiers of {len(laws.points.variants)} structures on next-token prediction "
            f"({laws.points.choices['runs']} runs). Left: all, coloured by omega (parameter sharing). Middle: those "
            "without sharing, by psi (rank). Right: those of full rank without sharing, by nu (compute intensity). "
            "Dense as black triangles; fitted laws dashed."
        ),
        panels=taxonomy_panels(runs, laws, "nats per token"),
        missing=without_law(laws, laws.points.variants),
    )


def taxonomy_panels(runs: pd.DataFrame, laws: Laws, unit: str, prefix: str = "") -> tuple[Panel, ...]:
    """The three panels of a task."""
    places = places_of(runs)
    every = laws.points.variants
    unshared = [name for name in every if abs(places[name].omega) < NEAR]
    full_rank = [name for name in unshared if places[name].psi > 1 - NEAR]
    chosen = (
        (every, "omega", "all structures by ω", "ω", 0.0),
        (unshared, "psi", "ω = 0, by ψ", "ψ", 0.5),
        (full_rank, "nu", "ω = 0, ψ = 1, by ν", "ν", 0.5),
    )
    panels = []
    for variants, attribute, title, symbol, low in chosen:
        values = {name: float(getattr(places[name], attribute)) for name in variants}
        series = by_number(laws, variants, values.__getitem__, lambda value, low=low: shade(value, low, 1.0), symbol)
        panels.append(Panel(f"{prefix}{title}", compute_label(laws), f"validation loss, {unit}", series))
    return tuple(panels)
