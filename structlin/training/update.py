"""What is one optimizer step? Gradients of a batch, clipped, and AdamW; on a GPU all of it launched at once.

A small model's step is hundreds of launches, and the GPU waits for Python between them. A CUDA graph records them once
and replays them: the same kernels on the same addresses. Sizes never change within a run, nothing in
a step waits for the device, and the rate of a step is a number in the device's memory; that is all a graph asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError, one_line
from structlin.host.speech import say
from structlin.tasks.protocol import Batch, Learner
from structlin.training.optim import rates_on_device, set_rates
from structlin.training.parts import gradients
from structlin.training.whole import WholeUpdate, whole_update
from structlin.training.world import World

WARM_UPS = 3
"""Steps before the recording: kernels are chosen and compiled in them, and the optimizer makes its state."""


@dataclass
class Update:
    """One optimizer step after another on batches of the device."""

    science: Science
    learner: Learner
    model: nn.Module
    """Parameters are read from it."""
    forward: nn.Module
    """Called on batches: the model, or what it has been wrapped in."""
    optimizer: torch.optim.AdamW
    parts: int
    world: World

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Train on a batch at a rate (of multiplier 1); loss and gradient norm stay on the device."""
        set_rates(self.optimizer, lr)
        return self.step(batch)

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same at the rates that are set."""
        optim = self.science.optim
        loss = gradients(self.science, self.learner, self.model, self.forward, batch, self.parts, self.world)
        norm = self.world.clip(self.model, optim.clip if optim.clip > 0 else math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm


@dataclass
class Replayed:
    """An update as one launch. Its loss and norm are overwritten by the next."""

    update: Update
    is_wanted: bool = False
    """Whether a step that cannot be recorded is an error; else it goes on launch by launch, and says so."""
    _left: int = WARM_UPS
    _graph: torch.cuda.CUDAGraph | None = None
    _batch: Batch = field(init=False)
    _found: tuple[Tensor, Tensor] = field(init=False)
    _beside: torch.cuda.Stream = field(default_factory=torch.cuda.Stream)

    def __call__(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """As an Update's."""
        set_rates(self.update.optimizer, lr)
        if self._left > 0:
            self._left -= 1
            return self._warm_up(batch)
        if self._graph is None and (self._left < 0 or not self._record(batch)):
            return self.update.step(batch)
        assert self._graph is not None
        for mine, given in zip(self._batch, batch, strict=True):
            mine.copy_(given)
        self._graph.replay()
        return self._found

    def _warm_up(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A step on a stream of its own, as recordings are made on one: nothing it leaves waits for another stream."""
        here = torch.cuda.current_stream()
        self._beside.wait_stream(here)
        with torch.cuda.stream(self._beside):
            found = self.update.step(batch)
        here.wait_stream(self._beside)
        return found

    def _record(self, batch: Batch) -> bool:
        """Record a step without running it; False, for good, where that cannot be."""
        self._batch = (batch[0].clone(), batch[1].clone())
        # What the steps before had is not the recording's, which has memory of its own.
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread alone: others read batches and write checkpoints meanwhile.
            with torch.cuda.graph(graph, stream=self._beside, capture_error_mode="thread_local"):
                self._found = self.update.step(self._batch)
        except RuntimeError as error:
            if self.is_wanted:
                raise UserError(
                    f"graphs=true, but a step cannot be recorded: {one_line(error)}; graphs=auto"
                ) from error
            say(f"a step cannot be recorded ({one_line(error)[:200]}); its kernels are launched one by one")
            self._left = -1
            self.update.optimizer.zero_grad(set_to_none=True)
            return False
        self._graph = graph
        return True


def make_update(
    science: Science,
    learner: Learner,
    model: nn.Module,
    forward: nn.Module,
    optimizer: torch.optim.AdamW,
    placement: Placement,
    device: torch.device,
    parts: int,
    world: World,
    *,
    is_drawn: bool = False,
) -> Update | Replayed | WholeUpdate:
    """The update of a model that has been placed on its device."""
    # What layers compute in changes from step to step where it is drawn: torch's step knows, the C++ does not.
    whole = None if is_drawn else whole_update(science, model, forward, optimizer, placement, device, world)
    if whole is not None:
        return whole
    update = Update(science, learner, model, forward, optimizer, parts, world)
    # The layers that guides compute in, or their ranks, change from step to step: no recording holds for the next.
    if is_drawn or device.type != "cuda" or world.sharding != "none" or science.model.dtype == "float64":
        return update
    # Graphs or not, so that the rates of both are rounded alike.
    rates_on_device(optimizer, device)
    if placement.graphs == "false":
        return update
    return Replayed(update, is_wanted=placement.graphs == "true")
