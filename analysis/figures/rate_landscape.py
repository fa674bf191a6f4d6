"""Does the best rate stay as the width grows, on images (arXiv 2406.06248, figure 2b)? Of MLPs, and of ViTs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Drawing, Panel
from structlin.drawing.names import readable
from structlin.drawing.style import MARKERS, ordered, shade

from . import learning_rates
from .lines import family

STUDY = "rate_landscape"
LAWS = False
MODELS = {"mlp": "MLP", "vit": "ViT"}
MOST = 4.0
"""Losses up to here are shown; knowing nothing of ten classes costs 2.3."""


def draw(runs: pd.DataFrame) -> Drawing:
    """A panel a model, rule and structure; the caption says what the smallest width's best rate costs the largest."""
    runs = runs.assign(structure=runs["structure"].astype(str).map(family))
    drawings = {
        name: learning_rates.draw(runs[runs["model"] == model])
        for model, name in MODELS.items()
        if (runs["model"] == model).any()
    }
    costs = {name: _costs(runs[runs["model"] == model]) for model, name in MODELS.items() if name in drawings}
    above = f"losses above {learning_rates.SHOWN:g} times the lowest"
    captions = [f"{name}. {found.caption.replace(above, f'losses above {MOST:g}')}" for name, found in drawings.items()]
    return replace(
        next(iter(drawings.values())),
        name="rate-landscape",
        title="Learning-rate landscape, on images",
        caption=" ".join(captions).replace("Last panel: rate", "Rate").replace("; dashed, the law", ", and the law")
        + " Panels are of structure-aware rates where they do not say naive. Transfer: mean loss of the largest width "
        f"at the best rate of the smallest, over that at its own best: {_said(costs)}.",
        panels=tuple(_alike(drawings)),
        columns=4,
    )


def _costs(runs: pd.DataFrame) -> dict[tuple[str, str], float]:
    """(structure, rule) -> loss at the largest width under the smallest one's best rate, over its own lowest."""
    best = learning_rates.best_rates(runs).set_index(learning_rates.KEYS)["learning_rate"].sort_index()
    last = learning_rates.last_losses(runs)
    mean = last.groupby([*learning_rates.KEYS, "learning_rate"], observed=True)["val_loss"].mean()
    found = {}
    for structure, rule in dict.fromkeys((str(one), str(other)) for one, other, _ in best.index):
        rates = best.loc[structure, rule].sort_index()
        largest = mean.loc[structure, rule, rates.index[-1]]
        found[structure, rule] = float(largest.get(rates.iloc[0], np.nan) / largest[rates.iloc[-1]])
    return found


def _said(costs: dict[str, dict[tuple[str, str], float]]) -> str:
    """MLP dense 1.02, btt 1.00 (naive 1.31); ViT ..."""
    said = []
    for model, found in costs.items():
        naive = {name: f" (naive {cost:.2f})" for (name, rule), cost in found.items() if rule == "naive"}
        words = [
            f"{readable(name)} {found[name, 'structure']:.2f}{naive.get(name, '')}"
            for name in ordered({name for name, rule in found if rule == "structure"})
        ]
        said.append(f"{model} {', '.join(words)}")
    return "; ".join(said)


def _alike(drawings: dict[str, Drawing]) -> list[Panel]:
    """The panels of all models but the last, of best rates, in which a width looks the same everywhere."""
    found = [(name, panel) for name, drawing in drawings.items() for panel in drawing.panels[:-1]]
    labels = {one.label for _, panel in found for one in panel.series}
    widths = sorted(labels, key=lambda label: int(label.split()[1]))
    looks = {
        label: (shade(place, 0, max(1, len(widths) - 1)), MARKERS[place % len(MARKERS)])
        for place, label in enumerate(widths)
    }
    return [
        replace(
            panel,
            title=f"{name}: {_short(panel.title)}",
            y_most=MOST,
            series=tuple(replace(one, colour=looks[one.label][0], marker=looks[one.label][1]) for one in panel.series),
        )
        for name, panel in found
    ]


def _short(title: str) -> str:
    """btt, naive rates -> btt, naive: four panels stand in a row."""
    return title.removesuffix(" rates").removesuffix(", structure-aware")
