"""structlin: structured linear layers and their scaling laws, from a structure and a budget to a fitted frontier.

    plan             what a linear map of a structure is and costs          no torch
    Linear           the layer
    swap_linears     structured layers into any torch model
    param_groups     the rate of every parameter, for any optimizer
    cost             parameters, MACs and FLOPs of a model on an example
    fit              scaling laws of a table                                no torch

Names are loaded when they are asked for, so that importing this package takes neither torch nor pandas. docs/layers.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "plan": "structlin.structure.words",
    "Linear": "structlin.nn.layer",
    "swap_linears": "structlin.nn.swap",
    "param_groups": "structlin.nn.groups",
    "cost": "structlin.nn.cost",
    "fit": "structlin.laws.library",
}

if TYPE_CHECKING:
    from structlin.laws.library import fit
    from structlin.nn.cost import cost
    from structlin.nn.groups import param_groups
    from structlin.nn.layer import Linear
    from structlin.nn.swap import swap_linears
    from structlin.structure.words import plan

__all__ = ["Linear", "cost", "fit", "param_groups", "plan", "swap_linears"]


def __getattr__(name: str) -> Any:
    """Load what was asked for (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'structlin' has no attribute '{name}'; it has {', '.join(__all__)}")
    from importlib import import_module

    found = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
