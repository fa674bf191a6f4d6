"""Where do all structures stand? Points theta in (psi, omega, nu), with the subspace of block tensor trains.

Source: arXiv 2410.02117, figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from structlin.drawing.drawing import Array, Drawing, Panel, Series
from structlin.drawing.style import look_of
from structlin.laws.approaches.laws import Laws
from structlin.structure import Theta, lookup
from structlin.structure.sample import sample_thetas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLES = 400
NAMED = ("dense", "btt", "low_rank", "tensor_train", "kronecker")
CLOUD, TRAINS = "#999999", "#F0B48A"
APART = 0.035
"""Named structures at one place of a face are drawn so far apart."""
AXES = {"psi": "ψ: rank grows as d^ψ", "omega": "ω: FLOPs per parameter\ngrow as d^ω", "nu": "ν: FLOPs grow as d^(1+ν)"}


def draw(runs: pd.DataFrame | None = None, laws: Laws | None = None) -> Drawing:
    """The space in three dimensions, and its faces (psi, nu) and (omega, nu). Needs no runs."""
    groups = groups_of(list(sample_thetas(SAMPLES, 0, {})))
    space = Panel("(ψ, ω, ν)", "", "", (), flat=False, paint=partial(_paint_space, groups=groups))
    faces = [
        Panel(title, AXES[x], AXES["nu"], _face(groups, x, "nu"), x_log=False, y_log=False, apart=APART)
        for x, title in (("psi", "ν over ψ"), ("omega", "ν over ω"))
    ]
    return Drawing(
        name="fig2",
        title="The space of structures",
        caption=(
            f"{SAMPLES} thetas spread evenly over the space of two-factor einsums (redundant and degenerate ones left "
            "out), a grid over the block tensor trains (beta = delta = 0), and the structures with a name."
        ),
        panels=(space, *faces),
        shared_legend=True,
    )


def groups_of(thetas: Sequence[Theta]) -> list[tuple[str, str, str, list[Theta]]]:
    """(label, colour, marker, thetas) of every group, the largest first."""
    named = [(name.replace("_", " "), *look_of(NAMED, name), [lookup(name)]) for name in NAMED]
    trains = [theta for theta in [*thetas, *_trains()] if theta.is_btt]
    others = [theta for theta in thetas if not theta.is_btt]
    return [("any theta", CLOUD, "o", others), ("BTT (β = δ = 0)", TRAINS, "o", trains), *named]


def _trains() -> list[Theta]:
    """A grid over the BTT subspace: alpha = 1 - gamma, epsilon = 1 - phi, rho."""
    eighths = [(a, e, r) for a in range(1, 8) for e in range(1, 8) for r in range(min(a, e) + 1)]
    texts = [f"({a}/8|0|{8 - a}/8|0|{e}/8|{8 - e}/8|{r}/8)" for a, e, r in eighths]
    return [theta for theta in map(Theta.parse, texts) if not (theta.is_redundant or theta.is_degenerate)]


def _coordinates(thetas: Sequence[Theta], *axes: str) -> list[Array]:
    places = [theta.taxonomy for theta in thetas]
    return [np.array([float(getattr(place, axis)) for place in places]) for axis in axes]


def _face(groups: list[tuple[str, str, str, list[Theta]]], x: str, y: str) -> tuple[Series, ...]:
    return tuple(
        Series(label, label, _coordinates(thetas, x)[0], _coordinates(thetas, y)[0], "points", colour, marker)
        for label, colour, marker, thetas in groups
    )


def _paint_space(axes: Axes, groups: list[tuple[str, str, str, list[Theta]]]) -> None:
    space: Any = axes
    for _, colour, marker, thetas in groups:
        size = 4 if len(thetas) > 1 else 34
        edge = {"edgecolors": "white", "linewidths": 0.4} if len(thetas) == 1 else {"linewidths": 0}
        points = _coordinates(thetas, "psi", "omega", "nu")
        space.scatter(*points, s=size, c=colour, marker=marker, depthshade=False, **edge)
    space.set(xlabel="ψ", ylabel="ω", zlabel="ν")
    space.set(xticks=[0, 0.5, 1], yticks=[0.5, 1], zticks=[0.5, 1])
    for axis in (space.xaxis, space.yaxis, space.zaxis):
        axis.labelpad = -8
        axis.set_tick_params(pad=-3)
    space.set_box_aspect(None, zoom=0.92)
    space.view_init(22, -58)
