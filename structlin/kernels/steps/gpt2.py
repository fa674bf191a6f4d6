"""What does the C++ of a step have to know of a GPT-2? Sizes, and where the weights of every layer lie in a row.

The structs of layers.hpp and gpt2.hpp, number by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from structlin.kernels.steps.gradients import Gradients, Run
from structlin.kernels.steps.library import Library, Longs, address
from structlin.kernels.steps.places import LinearPlace, NormPlace
from structlin.kernels.steps.row import Row

LANES = 16
"""Tokens of a sequence come in whole vectors of the widest processors."""


@dataclass(frozen=True)
class BlockPlaces:
    """A block's norms (before attention, of q, of k, before the FFN), and q, k, v, o, up and down."""

    norms: tuple[NormPlace, NormPlace, NormPlace, NormPlace]
    linears: tuple[LinearPlace, LinearPlace, LinearPlace, LinearPlace, LinearPlace, LinearPlace]


@dataclass(frozen=True)
class Gpt2Places:
    """A GPT-2 as the C++ reads it."""

    width: int
    features: int
    """Of all heads."""
    heads: int
    vocabulary: int
    inputs: int
    """Tokens that can be read."""
    tokens: int
    """Where the table of tokens begins."""
    positions: int
    norm: NormPlace
    head: LinearPlace
    blocks: Sequence[BlockPlaces]
    attention_scale: float
    branch_scale: float

    @property
    def pays(self) -> bool:
        """Whether every layer is worth it."""
        return self.head.pays and all(linear.pays for block in self.blocks for linear in block.linears)

    def described(self, context: int) -> Longs:
        """For sequences of so many tokens."""
        lanes = -(-context // LANES) * LANES
        numbers = [self.inputs, context, lanes, self.width, self.features, self.heads, self.vocabulary]
        numbers += [self.tokens, self.positions, len(self.blocks), *self.norm.numbers(), *self.head.numbers()]
        for block in self.blocks:
            for place in (*block.norms, *block.linears):
                numbers += place.numbers()
        return np.array(numbers, dtype=np.int64)


class Gpt2Gradients(Gradients):
    """Loss, in nats, and gradients of batches of token ids (N, T) and targets (N, T)."""

    def __init__(self, functions: Library, places: Gpt2Places, row: Row) -> None:
        super().__init__(functions, row)
        self._places = places
        self._described: dict[int, Longs] = {}

    def sums(self, inputs: Tensor, targets: Tensor, *, has_gradients: bool = True) -> float:
        """IndexError for ids that the tables do not have."""
        inputs, targets = inputs.contiguous().long(), targets.contiguous().long()
        sequences, context = inputs.shape
        count = int((targets >= 0).sum())
        share = 1.0 / count if count else float("nan")
        described = self._description(context)

        def run(part: Run) -> float:
            rows = slice(part.start, part.stop)
            scales = self._places.attention_scale, self._places.branch_scale
            ids = address(inputs[rows]), address(targets[rows])
            return self.functions.gpt2(
                address(described), *scales, part.stop - part.start, *ids, share, *part.addresses
            )

        space = int(self.functions.gpt2_space(address(described)))
        losses = self.run_all(run, sequences, context, space, has_gradients=has_gradients)
        if min(losses) < 0:
            raise IndexError("a token or a target of the batch is none of the model's")
        return sum(losses) * share

    def _description(self, context: int) -> Longs:
        if context not in self._described:
            self._described[context] = self._places.described(context)
        return self._described[context]
