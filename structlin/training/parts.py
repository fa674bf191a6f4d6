"""In how many parts does a process compute its share of a batch? One after another, their gradients added up.

A part is whole sequences, as many as every other; the loss of the batch is the mean of theirs, so it and its gradient
are those of the whole but for rounding, and the same bits whenever the parts are the same. Routers go on from part to
part (structlin/nn/router.py). Several ranks add their gradients up once, after the last part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.nn.router import Part, count_assignments, part_of_batch, routers
from structlin.tasks.protocol import Batch, Learner


class Synchronises(Protocol):
    """What may keep gradients to itself until the last part (training/world.py)."""

    def without_sync(self, forward: nn.Module) -> AbstractContextManager[object]:
        """Within it a backward pass leaves gradients where they are, unshared."""
        ...


def gradients(
    science: Science,
    learner: Learner,
    model: nn.Module,
    forward: nn.Module,
    batch: Batch,
    parts: int,
    world: Synchronises,
) -> Tensor:
    """Add the gradients of a batch to the parameters of ``model``; returns its loss (detached, on the device).

    ``forward`` is what is called: the model, or what it has been wrapped in.
    """
    if parts == 1:
        loss = learner.loss(forward, batch)
        loss.backward()
        return loss.detach()
    whole = _count(science, learner, model, forward, batch, parts)
    losses = []
    for index, part in enumerate(split(batch, parts)):
        part_of_batch(model, Part(parts), index)
        with nullcontext() if index + 1 == parts else world.without_sync(forward):
            loss = learner.loss(forward, part, whole) / parts
            loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _count(
    science: Science, learner: Learner, model: nn.Module, forward: nn.Module, batch: Batch, parts: int
) -> Tensor | None:
    """Assignments of the whole batch, which the balance loss of its first part wants: a forward pass more."""
    if not any(True for _ in routers(model)) or not science.moe.auxiliary_weight:
        return None
    with torch.no_grad():
        for index, part in enumerate(split(batch, parts)):
            part_of_batch(model, Part(parts, counts=True), index)
            learner.route(forward, part)
    return count_assignments(model)


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """Equal, consecutive parts of a batch, as views."""
    yield from zip(*(tensor.chunk(parts) for tensor in batch), strict=True)


def number_of_parts(rows: int, context: int, most_tokens: int | None) -> int:
    """The fewest equal parts of so many sequences with at most ``most_tokens`` tokens each (None: one).

    A sequence is not divided: 8 rows of 128 tokens in parts of at most 300 are 4 of 2 rows; of at most 100, 8 of one.
    """
    if most_tokens is None:
        return 1
    largest = max(1, most_tokens // context)
    return next(parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= largest)


def parts_of(science: Science, placement: Placement, ranks: int = 1) -> int:
    """Parts in which each of some ranks computes its share of a run's batch."""
    rows = max(1, science.rows // ranks)
    return number_of_parts(rows, science.model.context, placement.most_micro_tokens())


def tokens_of_part(science: Science, placement: Placement, ranks: int = 1) -> int:
    """Tokens that a rank computes at a time."""
    rows = max(1, science.rows // ranks)
    return rows // parts_of(science, placement, ranks) * science.model.context
