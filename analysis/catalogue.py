"""Which figures are there, and of which study's runs is each drawn?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd

from structlin.drawing.drawing import Drawing

from . import figures
from .figures import (
    bpe,
    exponents,
    feature_updates,
    fig1,
    fig2,
    fig4,
    fig5,
    fig6,
    fig7,
    fig10,
    learning_rates,
    resources,
    search,
)


@dataclass(frozen=True)
class Figure:
    """One entry of the catalogue."""

    draw: Callable[..., Drawing]
    """draw(runs, laws) -> Drawing; without laws where none are needed, without runs where no study is."""
    study: str = ""
    """The study that makes its runs; empty where it needs none."""
    others: tuple[str, ...] = ()
    """Studies whose kept runs it is drawn from while its own are not kept, and then marked."""
    baseline: str = "dense"
    """What multipliers compare with."""
    laws: bool = True
    """Whether it needs fits."""
    table: Callable[[], pd.DataFrame] | None = None
    """A table of its own in place of runs."""
    store: Callable[[Path], Drawing] | None = None
    """What it draws of a store of one's own, in place of its runs' table."""


def _others() -> dict[str, Figure]:
    """Modules of figures/ that name their study themselves (STUDY = "fig4"): one file is a whole figure."""
    found = {}
    for path in sorted(Path(figures.__file__ or "").parent.glob("*.py")):
        if "\nSTUDY = " in path.read_text():
            module = import_module(f"{figures.__name__}.{path.stem}")
            laws = bool(getattr(module, "LAWS", True))
            found[path.stem.replace("_", "-")] = Figure(module.draw, module.STUDY, laws=laws)
    return found


FIGURES: dict[str, Figure] = {
    "fig1": Figure(fig1.draw, "fig4", ("regression",)),
    "fig2": Figure(fig2.draw, laws=False),
    "fig4": Figure(fig4.draw, "fig4"),
    "fig5-regression": Figure(fig5.draw, "regression"),
    "fig5-pixels": Figure(fig5.draw, "pixels"),
    "fig6": Figure(fig6.draw, "fig6"),
    "fig7": Figure(fig7.draw, "fig7", ("fig6",)),
    "fig10": Figure(fig10.draw, "fig10", baseline=fig10.BASELINE),
    "bpe": Figure(bpe.draw, "bpe"),
    "feature-updates": Figure(feature_updates.draw, laws=False, table=feature_updates.table),
    "learning-rates": Figure(learning_rates.draw, "learning_rates", laws=False),
    "resources": Figure(resources.draw, "fig4", ("regression",)),
    "exponents": Figure(exponents.draw, "regression", ("fig4",)),
    "search": Figure(search.draw, "search" if search.KEPT.exists() else "fig4", laws=False, store=search.of_store),
}
FIGURES |= _others()
