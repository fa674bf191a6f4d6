"""How are the loss and the gradients of a batch made by the C++ of steps? In runs of its rows, one a thread.

Each thread adds up gradients of its own, which are summed in the order of the runs: equal inputs and equal threads give
equal bits. What a thread works in is made once.
An evaluation asks for the loss alone, which ends with the forward pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from structlin.kernels.steps.library import Library, address
from structlin.kernels.steps.row import Row

LEAST_TOKENS = 512
"""A thread is worth starting for so many tokens."""


@dataclass(frozen=True)
class Run:
    """Consecutive rows of a batch, and where their thread finds the weights, its gradients and its work space."""

    start: int
    stop: int
    addresses: tuple[int | None, int | None, int | None]


class Gradients(ABC):
    """Loss and gradients of batches of one model, the gradients in a row."""

    def __init__(self, functions: Library, row: Row) -> None:
        self.functions, self.row = functions, row
        self._spaces: list[Tensor] = []
        self._more: list[Tensor] = []

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar; the row's gradients become those of the parameters."""
        self.row.use()
        self.row.gradients.zero_()
        loss = self.sums(inputs, targets)
        self.row.own()
        return torch.tensor(loss, dtype=self.row.weights.dtype)

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch, a scalar, without gradients."""
        self.row.use()
        return torch.tensor(self.sums(inputs, targets, has_gradients=False), dtype=self.row.weights.dtype)

    @abstractmethod
    def sums(self, inputs: Tensor, targets: Tensor, *, has_gradients: bool = True) -> float:
        """The mean loss; gradients of the used weights, where wanted, are added to the row's."""

    def run_all(
        self, run: Callable[[Run], float], rows: int, tokens: int, numbers: int, *, has_gradients: bool
    ) -> list[float]:
        """What ``run`` returns of every part of so many rows of ``tokens`` each, with ``numbers`` of work space."""
        count = max(1, min(torch.get_num_threads(), rows, rows * tokens // LEAST_TOKENS))
        self._make_room(count, numbers)
        gradients = [self.row.gradients, *self._more[: count - 1]]
        edges = list(pairwise(rows * i // count for i in range(count + 1)))
        parts = [
            Run(start, stop, (address(self.row.weights), address(own) if has_gradients else None, address(space)))
            for (start, stop), own, space in zip(edges, gradients, self._spaces, strict=False)
        ]
        if count == 1:
            return [run(parts[0])]
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(run, parts))
        for more in gradients[1:] if has_gradients else ():
            self.row.gradients.add_(more)
        return found

    def _make_room(self, count: int, numbers: int) -> None:
        """A work space for every thread, and gradients for all but the first."""
        if len(self._spaces) < count or self._spaces[0].numel() < numbers:
            self._spaces = [self.row.weights.new_zeros(numbers) for _ in range(count)]
        while len(self._more) < count - 1:
            self._more.append(torch.zeros_like(self.row.gradients))
        for more in self._more:
            more.zero_()


class WholeLoss(nn.Module):
    """What an evaluation calls instead of a model: (inputs, targets) to the batch's mean loss, a scalar."""

    def __init__(self, gradients: Gradients) -> None:
        super().__init__()
        self._gradients = gradients

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Of the model's weights as they are now, by the C++ of its steps; no gradients."""
        return self._gradients.loss(inputs, targets)
