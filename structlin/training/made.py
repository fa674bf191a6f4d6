"""Which model does a run have at a step, and which optimizer? Guides are there until it is guided no more."""

from __future__ import annotations

import torch
from torch import Tensor

from structlin.anatomy.guide import guide_steps, guided_linears
from structlin.config.placement import Placement
from structlin.nn.blocks import recompute
from structlin.nn.guide import guides
from structlin.nn.linear import Linear
from structlin.runs.job import Job
from structlin.tasks.protocol import Task
from structlin.training.optim import make_optimizer


class Made:
    """The model of a run at some step, with its optimizer: guides are there until the run is guided no more."""

    def __init__(self, job: Job, task: Task, placement: Placement, step: int = 0) -> None:
        self._job, self._task, self._placement = job, task, placement
        self._make(step)

    def _make(self, step: int) -> None:
        science = self._job.science
        self.is_guided = step < guide_steps(science)
        self.model = self._task.build_model()
        if self.is_guided:
            for shape in guided_linears(science):
                linear = self.model.get_submodule(shape.name)
                assert isinstance(linear, Linear)
                linear.take_guide()
        if self._placement.recompute:
            recompute(self.model)
        self.optimizer = make_optimizer(self.model, science.optim)

    def at(self, step: int, *, afresh: bool = False) -> Made:
        """The same, of the kind that a step has; its values are lost where that, or ``afresh``, makes another of it."""
        if afresh or self.is_guided != (step < guide_steps(self._job.science)):
            self._make(step)
        return self

    @torch.no_grad()
    def take(self, weights: dict[str, Tensor]) -> None:
        """Begin with these weights, by the names of the model without guides; guides are the maps of its factors."""
        held = list(guides(self.model))
        self.model.load_state_dict(weights, strict=not held)
        for name, guide in held:
            linear = self.model.get_submodule(name)
            assert isinstance(linear, Linear)
            guide.weight.copy_(linear.to_dense())
