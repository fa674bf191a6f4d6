"""What is a model made of? Its anatomy, by the name that its config gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from structlin.anatomy.shapes import Anatomy, realised_sizes
from structlin.config.nested import menu_of
from structlin.config.ranks import ranks_of
from structlin.config.science import Science
from structlin.errors import UserError, suggest
from structlin.structure import Theta
from structlin.structure.sizes import UnservedWidth


def anatomy(science: Science) -> Anatomy:
    """The anatomy of a run's model. UserError where structure.ranks or nested.menu does not fit it."""
    found = _of(science.model.ANATOMY)(science, science.model)
    _check_ranks(science, found)
    if science.nested != "none":
        _check_nested(science, found)
    return found


def _check_nested(science: Science, body: Anatomy) -> None:
    """Every share of the menu is a whole rank of every linear that has one; UnservedWidth where other widths differ."""
    menu = menu_of(science.nested)
    ranks = {shape.name: shape.sizes.r for shape in body.linears if not shape.plan.dense}
    if not ranks:
        raise UserError(
            f"nested.menu nests ranks, and no linear that model.structured = {list(science.model.structured)} names "
            "has one; use nested.menu=none"
        )
    for name, rank in ranks.items():
        for share in menu:
            if (share * rank).denominator == 1:
                continue
            least = math.lcm(*(one.denominator for one in menu))
            fits = [str(one) for one in menu if all((one * other).denominator == 1 for other in ranks.values())]
            way = f"a menu that fits is nested.menu=[{','.join(fits)}], and ranks" if len(fits) > 1 else "ranks"
            grows = Theta.parse(science.structure.theta)["r12"].exponent > 0
            raise (UnservedWidth if grows else UserError)(
                f"nested.menu: {share} of rank {rank}, which {name} has at d_model = {science.model.d_model}, is no "
                f"whole rank; {way} that {least} divides fit this one (structure.rank={least})"
            )


def _check_ranks(science: Science, body: Anatomy) -> None:
    """Linears with ranks of their own are there, and no experts."""
    own = ranks_of(science.structure.ranks)
    if own and science.moe.kind != "none":
        raise UserError(
            f"structure.ranks gives single linears a rank, and moe = {science.moe.kind} makes them experts; use "
            "moe=none, or structure.ranks=none"
        )
    names = [shape.name for shape in body.linears]
    for name in own:
        if name not in names:
            raise UserError(f"structure.ranks: the model has no linear {name}; {suggest(name, names)}")


@cache
def _of(named: str) -> Callable[[Science, Any], Anatomy]:
    """A function by module:function."""
    module, _, name = named.partition(":")
    found: Callable[[Science, Any], Anatomy] = getattr(import_module(module), name)
    return found


@lru_cache(maxsize=16_384)
def rounding_of(science: Science) -> dict[str, dict[str, list[float]]]:
    """What rounding changed in a run's layers: shape -> index -> [size asked for, size taken]."""
    return _rounding_of(replace(science, seed=0))  # of all seeds alike


@lru_cache(maxsize=4096)
def _rounding_of(science: Science) -> dict[str, dict[str, list[float]]]:
    if science.structure.head_layout != "none":
        return {}
    own = ranks_of(science.structure.ranks)
    linears = [shape for shape in anatomy(science).linears if shape.name not in own]
    return realised_sizes(linears, Theta.parse(science.structure.theta))
