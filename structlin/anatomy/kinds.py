"""What is a model made of? Its anatomy, by the name that its config gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

from structlin.anatomy.shapes import Anatomy, realised_sizes
from structlin.config.science import Science
from structlin.structure import Theta


def anatomy(science: Science) -> Anatomy:
    """The anatomy of a run's model."""
    return _of(science.model.ANATOMY)(science, science.model)


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
    return realised_sizes(anatomy(science).linears, Theta.parse(science.structure.theta))
