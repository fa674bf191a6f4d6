"""How does a parameter start and how fast does it learn? An explicit spec per parameter, kept beside the tensors.

Every module of ours answers ``param_specs()``; the optimizer and the initialiser read the specs of a model, so that
nothing has to be glued on a tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from structlin.errors import UserError


@dataclass(frozen=True)
class ParamSpec:
    """The role of one parameter tensor."""

    role: str
    """factor, embedding, router, gain (layer norm), bias or scale (weight normalisation): whether weight decay applies
    follows from it (config/optim.py, ROLES)."""
    std: float
    """Initial standard deviation of a normal draw; 0 starts at ``mean``."""
    rate: float = 1.0
    """Learning rate over lr0."""
    mean: float = 0.0
    blocks: tuple[int, int] | None = None
    """Rows and columns of the matrices that it is a stack of, where these start orthonormal: then U V^T of the normal
    draw's singular vectors, without a scale."""

    def start(self, draw: Tensor) -> Tensor:
        """First values of a standard normal draw, in its place or anew."""
        if self.blocks is not None:
            U, _, V = torch.linalg.svd(draw.reshape(-1, *self.blocks), full_matrices=False)
            return (U @ V).reshape(draw.shape)
        return draw.mul_(self.std).add_(self.mean)


Draw = Callable[[str, Sequence[int]], Tensor]
"""A standard normal draw in float64 for a part of a module, by its local name and its shape."""


class Module(nn.Module):
    """A module that names the specs of its own parameters (not those of its children)."""

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """Spec by the local name of the parameter."""
        return {}

    def start_together(self, draw: Draw) -> None:
        """Set what no parameter can be given by itself, after each has started from its spec; mostly nothing."""


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

    def draw(prefix: str, name: str, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(_seed_of(f"{prefix}.{name}" if prefix else name, seed))
        return torch.empty(tuple(shape), dtype=torch.float64).normal_(0, 1, generator=generator)

    specs = collect_specs(model)
    for name, parameter in model.named_parameters():
        parameter.copy_(specs[name].start(draw("", name, parameter.shape)))
    for name, module in model.named_modules():
        if isinstance(module, Module):
            module.start_together(partial(draw, name))


def _seed_of(name: str, seed: int) -> int:
    """32 bits of a hash of both: the CPU generator of torch reads no more than the lower 32 bits of its seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4], "big")
