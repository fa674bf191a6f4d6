"""How does training deal with other processes, if there are any? Through a ``World``, which never says how many.

The loop asks no questions about ranks: ``OneProcess`` does what a single process would do without it, bit by bit, and
``distributed.Group``, which costs seconds of imports, is loaded by processes of torchrun alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from structlin.nn.ranks import Alone, Ranks

T = TypeVar("T")

GO_ON, BEAT, SAVE, STOP = 0, 1, 2, 3
"""What a rank wishes for after a step (to show a sign of life, a checkpoint, an end); the largest wish is granted."""


class World(Ranks, Protocol):
    """All that the loop and the entry need to know about the other processes."""

    sharding: str
    """none, ddp or fsdp."""

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes."""
        ...

    def place(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> nn.Module:
        """Put model and optimizer of the first rank on the devices of all; returns what the forward pass calls.

        The model stays the one to read parameters from. Both must still be whole and on the CPU.
        """
        ...

    def without_sync(self, forward: nn.Module) -> AbstractContextManager[object]:
        """Within it a backward pass adds up the gradients of this rank alone."""
        ...

    def clip(self, model: nn.Module, limit: float) -> Tensor:
        """Finish the gradients of a backward pass and clip them; returns their global norm before (a scalar)."""
        ...

    def agree(self, wish: int) -> int:
        """The wish that is granted, the same on all ranks."""
        ...

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes, on every rank."""
        ...

    def whole(self, state: T) -> T:
        """A state dict with its tensors gathered on the first rank; of no use on the others."""
        ...

    def has_lost(self, error: BaseException) -> bool:
        """Whether an error says that another process has gone."""
        ...

    def close(self) -> None:
        """Part from the others."""
        ...


class OneProcess(Alone):
    """A world of one."""

    sharding = "none"
    is_first = True

    def place(self, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> nn.Module:
        """The model, moved."""
        model.to(device)
        move(optimizer, device)
        return model

    def without_sync(self, forward: nn.Module) -> AbstractContextManager[object]:
        """There is nobody to share gradients with."""
        return nullcontext()

    def clip(self, model: nn.Module, limit: float) -> Tensor:
        """Clip by the norm of all gradients."""
        return nn.utils.clip_grad_norm_(model.parameters(), limit)

    def agree(self, wish: int) -> int:
        """The wish."""
        return wish

    def from_first(self, make: Callable[[], T]) -> T:
        """What is made."""
        return make()

    def whole(self, state: T) -> T:
        """The state."""
        return state

    def has_lost(self, error: BaseException) -> bool:
        """There is nobody to lose."""
        return False

    def close(self) -> None:
        """Nobody to part from."""


ONE_PROCESS = OneProcess()


def move(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Optimizer state follows the parameters to the device."""
    for state in optimizer.state.values():
        for key, value in state.items():
            if isinstance(value, Tensor):
                state[key] = value.to(device)
