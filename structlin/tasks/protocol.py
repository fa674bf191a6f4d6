"""What must a task offer to be trained? A model, a loss of every step, and a validation loss.

Each task comes in two parts: a Learner (model and loss; needs no data, so its speed can be measured without any) and
the Task (the learner bound to prepared data).
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from structlin.nn.ranks import ALONE, Ranks

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]
"""Inputs and targets, rows first."""


class Learner(Protocol):
    """What is learned, apart from any data."""

    def build_model(self) -> nn.Module:
        """The model with its first weights, on the CPU: a pure function of the Science."""
        ...

    def loss(self, model: nn.Module, batch: Batch, assignments: Tensor | None = None) -> Tensor:
        """Mean training loss (a scalar tensor) of a batch on the model's device.

        ``assignments`` (routers, experts): those of the whole batch, where this is a part of one.
        """
        ...

    def route(self, model: nn.Module, batch: Batch) -> None:
        """A forward pass for what it leaves with the routers."""
        ...

    def random_batch(self, rows: int, generator: torch.Generator) -> Batch:
        """A batch of the shapes of a training batch of so many rows, for measuring speed."""
        ...


class Task(Learner, Protocol):
    """One task bound to a run's Science and to prepared data."""

    manifest_hash: str
    """Identity of the data's bytes, recorded with the run and compared when it goes on."""

    def train_batch(self, step: int, ranks: Ranks = ALONE) -> Batch:
        """A rank's share of the batch of a step, on the CPU: a pure function of data, seed and step."""
        ...

    def validation_loss(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> float:
        """Mean loss over the fixed validation set, shared by the ranks (``mean_over``); draws no random numbers."""
        ...


@runtime_checkable
class Measures(Protocol):
    """What a task may offer besides: more than one number an evaluation."""

    def measures(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> dict[str, float]:
        """Numbers of an evaluation by name (runs/measures.py); val_loss, as ``validation_loss``, is among them."""
        ...


def evaluated(task: Task, model: nn.Module, device: torch.device, ranks: Ranks) -> dict[str, float]:
    """All that a task says of a model in an evaluation; at least its val_loss."""
    if isinstance(task, Measures):
        return task.measures(model, device, ranks)
    return {"val_loss": task.validation_loss(model, device, ranks)}
