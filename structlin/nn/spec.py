"""How does a parameter start and how fast does it learn? An explicit spec per parameter, kept beside the tensors.

Every module of ours answers ``param_specs()``; the optimizer and the initialiser read the specs of a model, so that
nothing has to be glued on a tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from structlin.errors import UserError


@dataclass(frozen=True)
class ParamSpec:
    """The role of one parameter tensor."""

    role: str
    """factor, embedding, gain (layer norm) or scale (weight normalisation)."""
    std: float
    """Initial standard deviation of a normal draw; 0 starts at ``mean``."""
    rate: float = 1.0
    """Learning rate over lr0."""
    mean: float = 0.0
    decay: bool = False
    """Whether weight decay applies."""


class Module(nn.Module):
    """A module that names the specs of its own parameters (not those of its children)."""

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """Spec by the local name of the parameter."""
        return {}


def collect_specs(model: nn.Module) -> dict[str, ParamSpec]:
    """Specs of all parameters by qualified name. UserError names parameters that have none: a foreign module's."""
    specs = {
        f"{prefix}.{name}" if prefix else name: spec
        for prefix, module in model.named_modules()
        if isinstance(module, Module)
        for name, spec in module.param_specs().items()
    }
    names = [name for name, _ in model.named_parameters()]
    lacking = [name for name in names if name not in specs]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise UserError(
            f"no start and no rate is known for {', '.join(lacking[:5])}{more}: their modules name no specs; torch's "
            "own modules start by themselves: take structlin.Linear for structured layers and "
            "structlin.param_groups(model, lr) for the rates"
        )
    assert specs.keys() == set(names), f"specs without a parameter: {specs.keys() - set(names)}"
    return specs


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Draw every parameter from its spec with a generator of its own, so that the start depends on the seed alone.

    The generator of a parameter is seeded by its name too, not by what was drawn before: models that differ in one
    layer start alike elsewhere.
    """
    specs = collect_specs(model)
    for name, parameter in model.named_parameters():
        spec = specs[name]
        generator = torch.Generator().manual_seed(_seed_of(name, seed))
        values = torch.empty(parameter.shape, dtype=torch.float64).normal_(0, 1, generator=generator)
        parameter.copy_(values.mul_(spec.std).add_(spec.mean))


def _seed_of(name: str, seed: int) -> int:
    """32 bits of a hash of both: the CPU generator of torch reads no more than the lower 32 bits of its seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")
