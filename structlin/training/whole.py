"""Which steps run as one piece of C++? Those of one process on a CPU, in float32, of models that it knows.

A narrow model's step is thousands of small operators, whose calls take longer than their arithmetic. The C++ takes a
batch sequence by sequence through the model and back, and updates all weights at once: nothing of it waits for Python,
and what a step keeps is one sequence's. So neither ``recompute`` nor ``micro_tokens`` changes anything in it: the bits
are the same with and without. torch's step serves everything else, and float64, whose bits are those of the golden
losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.kernels.steps.adam import Adam
from structlin.kernels.steps.gradients import Gradients, WholeLoss
from structlin.kernels.steps.library import library
from structlin.models.whole import whole_gradients
from structlin.tasks.protocol import Batch
from structlin.training.optim import set_rates
from structlin.training.world import World

DTYPES = ("float32", "tf32")
"""Of a CPU's float32; tf32 is a GPU's word."""


def whole_task(science: Science) -> str:
    """The task whose steps the C++ may serve; empty where the arithmetic is another."""
    return science.task if science.model.dtype in DTYPES else ""


@dataclass
class WholeUpdate:
    """An update (training/update.py) whose gradients, clipping and AdamW are calls of the C++."""

    science: Science
    optimizer: torch.optim.AdamW
    gradients: Gradients
    _adam: Adam = field(init=False)

    def __post_init__(self) -> None:
        functions = library(torch.float32)
        assert functions is not None
        row = self.gradients.row
        self._adam = Adam(functions, self.optimizer, row.tensors, row.own_parts())

    @property
    def evaluates(self) -> nn.Module:
        """What a task's evaluation calls instead of the model."""
        return WholeLoss(self.gradients)

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Train on a batch at a rate (of multiplier 1); returns the loss and the gradient's norm."""
        set_rates(self.optimizer, lr)
        loss = self.gradients(*batch)
        return loss, torch.tensor(self._adam.update(max(0.0, self.science.optim.clip)))


def whole_update(
    science: Science,
    model: nn.Module,
    forward: nn.Module,
    optimizer: torch.optim.AdamW,
    placement: Placement,
    device: torch.device,
    world: World,
) -> WholeUpdate | None:
    """The update of a model whose steps the C++ serves, else None."""
    if device.type != "cpu" or world.world_size > 1:
        return None
    if forward is not model or placement.compiles("cpu"):
        return None
    gradients = whole_gradients(model, whole_task(science))
    return None if gradients is None else WholeUpdate(science, optimizer, gradients)
