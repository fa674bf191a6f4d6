"""What does a process know of the others that train the same model? Its rank, and reductions over all of them.

A module whose numbers depend on the whole batch (a router's statistics) holds a ``ranks``, which is ALONE until
training gives it another. Every rank has an equal, contiguous share of the rows of a training batch, and calls the same
reductions in the same order; evaluation batches are whole.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Ranks(Protocol):
    """The processes of one run as one of them sees them."""

    @property
    def rank(self) -> int:
        """Which one this is, from 0; its share of a batch is the rank-th."""
        ...

    @property
    def world_size(self) -> int:
        """How many there are."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks, differentiable.

        Its backward pass is the identity: the gradients of all ranks are averaged later, and there each share of the
        mean gets its 1 / world_size.
        """
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the ranks, without a gradient."""
        ...

    def gather(self, values: Tensor) -> Tensor:
        """Values of all ranks in their order, (world_size, ...), without a gradient."""
        ...


class Alone:
    """One process: every reduction is what it was given."""

    rank = 0
    world_size = 1

    def mean(self, values: Tensor) -> Tensor:
        """The values."""
        return values

    def sum(self, values: Tensor) -> Tensor:
        """The values."""
        return values.detach()

    def gather(self, values: Tensor) -> Tensor:
        """The values, (1, ...)."""
        return values.detach()[None]


ALONE = Alone()


def join(model: nn.Module, ranks: Ranks) -> None:
    """Give every module of a model that asks for ``ranks`` those it trains with."""
    for module in model.modules():
        if hasattr(module, "ranks"):
            module.ranks = ranks  # type: ignore[assignment]
