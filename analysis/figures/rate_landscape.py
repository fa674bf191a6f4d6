"""Does the best rate stay as the width grows, on images (arXiv 2406.06248, figure 2b)? Of MLPs, and of ViTs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import MARKERS, shade

from . import learning_rates
from .lines import family

STUDY = "rate_landscape"
LAWS = False
MODELS = {"mlp": "MLP", "vit": "ViT"}


def draw(runs: pd.DataFrame) -> Drawing:
    """The landscape of the regression, of the runs of each model here."""
    runs = runs.assign(structure=runs["structure"].astype(str).map(family))
    drawings = {
        name: learning_rates.draw(runs[runs["model"] == model])
        for model, name in MODELS.items()
        if (runs["model"] == model).any()
    }
    # Losses of images span more than those of the regression, and there are more structures than a row has room for.
    above = f", and losses above {learning_rates.SHOWN:g} times the lowest leave the panel"
    captions = [f"{name}. {found.caption.replace(above, '')}" for name, found in drawings.items()]
    captions += ["Panels are of structure-aware rates where they do not say naive."]
    return replace(
        next(iter(drawings.values())),
        name="rate-landscape",
        title="Learning-rate landscape, on images",
        caption=" ".join(captions),
        panels=tuple(_alike(drawings)),
        columns=4,
    )


def _alike(drawings: dict[str, Drawing]) -> list[Panel]:
    """The panels of all models, named by theirs, in which a width and a structure look the same everywhere."""
    found = [(name, panel) for name, drawing in drawings.items() for panel in drawing.panels]
    looks = {s.label: (s.colour, s.marker) for _, panel in reversed(found) for s in panel.series if s.label}
    widths = sorted((label for label in looks if label.startswith("width ")), key=lambda label: int(label.split()[1]))
    for place, label in enumerate(widths):
        looks[label] = (shade(place, 0, max(1, len(widths) - 1)), MARKERS[place % len(MARKERS)])
    return [
        replace(
            panel,
            title=f"{name}: {_short(panel.title)}",
            y_most=None,
            series=tuple(_as(one, looks) for one in panel.series),
        )
        for name, panel in found
    ]


def _short(title: str) -> str:
    """btt, naive rates -> btt, naive: four panels stand in a row."""
    return title.removesuffix(" rates").removesuffix(", structure-aware").removesuffix(" over the width")


def _as(series: Series, looks: dict[str, tuple[str, str]]) -> Series:
    """The series with the look that its label has."""
    colour, marker = looks.get(series.label, (series.colour, series.marker))
    return replace(series, colour=colour, marker=marker)
