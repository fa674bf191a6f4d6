"""How fast should each parameter learn? Groups with a rate each, for any optimizer of torch, over any model.

    factor of a structured layer    lr * base / (num_factors * fan_in(factor))      base: base_width, or else the
    hidden matrix, dense            lr * base / fan_in                              layer's own fan-in
    everything else                 lr

Hidden matrix: the weight of any nn.Linear (the head too) and the projections of nn.MultiheadAttention. Without
base_width a dense layer gets lr and a structured one what makes it learn as that dense layer would; with it these are
muP's rates (tuned at base_width they hold at every width). Embeddings, norms, biases, convolutions and vectors keep lr.
The rules are Adam's: for SGD muP has others. Sources: arXiv 2203.03466 (muP), arXiv 2406.06248, section 3 (factors).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from structlin.errors import UserError
from structlin.nn.linear import Factored
from structlin.nn.router import Router
from structlin.nn.spec import Module

# The matrices that nn.MultiheadAttention holds itself; its out_proj is an nn.Linear.
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def param_groups(
    model: nn.Module,
    lr: float,
    base_width: float | None = None,
    *,
    weight_decay: float = 0.0,
    fixed: str | Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Groups {"params", "lr", "weight_decay", "rate"}, every parameter in exactly one; ``rate`` is lr's multiple.

    ``base_width``: the width at which lr was tuned (muP); None: lr is what a dense layer of the same fan-in gets.
    ``fixed``: patterns of parameter names (fnmatch: "input.*") that keep lr, such as a first layer whose fan-in does
    not grow with the width. ``weight_decay`` applies to what has two dimensions or more: matrices, factors, embeddings,
    convolutions; not to biases, gains and scales. A parameter that several modules share keeps lr where one of them
    gives it that (an embedding tied to a head), else it has the least of their rates. ValueError for a rate or a width
    that is none, a pattern without a match, and parameters that have no shape yet.
    """
    _check_number("lr", lr)
    _check_number("weight_decay", weight_decay)
    if base_width is not None and (not _is_number(base_width) or base_width == 0):
        raise UserError(f"base_width = {base_width!r}: write the width at which lr was tuned, such as 256, or None")
    rates = _rates(model, base_width)
    for pattern in [fixed] if isinstance(fixed, str) else fixed:
        found = [name for name in rates if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(f"fixed = '{pattern}' matches no parameter; there are {_some(rates)}")
        rates |= dict.fromkeys(found, 1.0)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        groups[rates[name], parameter.dim() >= 2].append(parameter)
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    return [
        {"params": parameters, "lr": lr * rate, "weight_decay": weight_decay if decays else 0.0, "rate": rate}
        for (rate, decays), parameters in groups.items()
    ]


def _rates(model: nn.Module, base_width: float | None) -> dict[str, float]:
    """The rate over lr of every parameter by its (first) name."""
    found: dict[int, list[float]] = defaultdict(list)
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if is_lazy(parameter):
                raise UserError(f"{prefix}.{name} has no shape yet; run the model once on an example before")
            found[id(parameter)].append(_rate(module, name, parameter, base_width))
    return {
        name: 1.0 if 1.0 in found[id(parameter)] else min(found[id(parameter)])
        for name, parameter in model.named_parameters()
    }


def _rate(module: nn.Module, name: str, parameter: nn.Parameter, base_width: float | None) -> float:
    """What one module gives one of its own parameters."""
    if isinstance(module, Factored):
        for factor in module.plan.factors:
            if factor.name == name:
                base = module.sizes.d_in if base_width is None else base_width
                return factor.adam_multiplier(base, module.options.rate_rule)
        return 1.0
    is_hidden = isinstance(module, nn.Linear | Router) and name == "weight"
    is_hidden |= isinstance(module, nn.MultiheadAttention) and name in _PROJECTIONS
    if is_hidden:
        return 1.0 if base_width is None else base_width / parameter.shape[-1]
    if isinstance(module, Module) and name in module.param_specs():
        return module.param_specs()[name].rate
    return 1.0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _check_number(name: str, value: object) -> None:
    if not _is_number(value):
        raise UserError(f"{name} = {value!r}: write a number of at least 0")


def _some(names: dict[str, float]) -> str:
    """The first names of many."""
    listed = list(names)
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    return ", ".join(listed[:12]) + more
