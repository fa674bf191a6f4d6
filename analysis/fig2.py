"""Where do all structures stand? Points theta in (psi, omega, nu), with the subspace of block tensor trains.

Source: arXiv 2410.02117, figure 2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.drawing import Drawing, Panel, Series
from analysis.style import COLOURS
from structlin.laws.fit import Laws
from structlin.structure import Theta, lookup
from structlin.structure.sample import sample_thetas
from structlin.structure.taxonomy import taxonomy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STUDY = None
SAMPLES = 400
NAMED = ("dense", "btt", "low_rank", "tensor_train", "kronecker")


def draw(runs: pd.DataFrame | None = None, laws: Laws | None = None) -> Drawing:
    """The space in three dimensions, and its face omega = 0, where BTT lie at psi = 1. Needs no runs."""
    thetas = list(sample_thetas(SAMPLES, 0, {}))
    points = {
        "any theta": [theta for theta in thetas if not theta.is_btt],
        "BTT (β = δ = 0)": [theta for theta in [*thetas, *_trains()] if theta.is_btt],
    }
    named = {name: lookup(name) for name in NAMED}
    faces = (("psi", "nu", "ψ: rank", "ν: compute intensity"), ("omega", "nu", "ω: sharing", "ν: compute intensity"))
    panels = [Panel("(ψ, ω, ν)", "", "", (), flat=False, paint=partial(_paint_space, points=points, named=named))]
    for x, y, x_label, y_label in faces:
        panels.append(
            Panel(f"{y_label[0]} over {x_label[0]}", x_label, y_label, _face(points, named, x, y), False, False)
        )
    return Drawing(
        name="fig2",
        title="The space of structures",
        caption=(
            f"{SAMPLES} thetas spread evenly over the space of two-factor einsums (redundant and degenerate ones left "
            "out), those of the block tensor trains, and the structures with a name."
        ),
        panels=tuple(panels),
    )


def _trains() -> list[Theta]:
    """A grid over the BTT subspace: alpha = 1 - gamma, epsilon = 1 - phi, rho."""
    found = []
    for alpha in range(1, 8):
        for rho in range(alpha + 1):
            theta = Theta.parse(f"({alpha}/8|0|{8 - alpha}/8|0|{alpha}/8|{8 - alpha}/8|{rho}/8)")
            if not (theta.is_redundant or theta.is_degenerate):
                found.append(theta)
    return found


def _coordinates(thetas: list[Theta], *axes: str) -> list[np.ndarray[Any, Any]]:
    places = [taxonomy(theta) for theta in thetas]
    return [np.array([float(getattr(place, axis)) for place in places]) for axis in axes]


def _face(points: dict[str, list[Theta]], named: dict[str, Theta], x: str, y: str) -> tuple[Series, ...]:
    series = []
    for (label, thetas), colour in zip(points.items(), ("#999999", COLOURS[1]), strict=True):
        series.append(Series(label, label, *_coordinates(thetas, x, y), "points", colour, "o"))
    for index, (name, theta) in enumerate(named.items()):
        marker = "^sDvPX*"[index % 7]
        series.append(Series(name, name, *_coordinates([theta], x, y), "points", COLOURS[2 + index % 6], marker))
    return tuple(series)


def _paint_space(axes: Axes, points: dict[str, list[Theta]], named: dict[str, Theta]) -> None:
    space: Any = axes
    for (label, thetas), colour in zip(points.items(), ("#999999", COLOURS[1]), strict=True):
        space.scatter(*_coordinates(thetas, "psi", "omega", "nu"), s=6, c=colour, depthshade=False, label=label, lw=0)
    for name, theta in named.items():
        x, y, z = (float(value[0]) for value in _coordinates([theta], "psi", "omega", "nu"))
        space.scatter([x], [y], [z], s=22, c="black", depthshade=False)
        space.text(x, y, z, f" {name}", fontsize=7)
    space.set(xlabel="ψ", ylabel="ω", zlabel="ν")
    space.view_init(22, -58)
