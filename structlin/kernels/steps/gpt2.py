"""What does the C++ of a step have to know of a GPT-2? Sizes, and where the weights of every layer lie in a row.

The structs of layers.hpp and gpt2.hpp, number by number.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from structlin.kernels.steps.library import Library, Longs, address
from structlin.kernels.steps.row import Row

NOWHERE = -1
LANES = 16
"""Tokens of a sequence come in whole vectors of the widest processors."""
LEAST_TOKENS = 512
"""A thread is worth starting for so many tokens."""


@dataclass(frozen=True)
class LinearPlace:
    """A linear map: its sizes in the roles of the order taken (kernels/products/layout.py), and its weights' places."""

    d_in: int
    d_out: int
    g: int
    b: int
    a: int
    r: int
    f: int
    d: int
    e: int
    a_first: int
    first: int
    second: int
    """NOWHERE: ``first`` is a dense weight."""
    bias: int


@dataclass(frozen=True)
class NormPlace:
    """A layer norm."""

    size: int
    gain: int
    bias: int


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

    def described(self, context: int) -> Longs:
        """For sequences of so many tokens."""
        lanes = -(-context // LANES) * LANES
        numbers = [self.inputs, context, lanes, self.width, self.features, self.heads, self.vocabulary]
        numbers += [self.tokens, self.positions, len(self.blocks), *astuple(self.norm), *astuple(self.head)]
        for block in self.blocks:
            for place in (*block.norms, *block.linears):
                numbers += astuple(place)
        return np.array(numbers, dtype=np.int64)


class Gpt2Gradients:
    """Loss and gradients of batches, the gradients in a row."""

    def __init__(self, functions: Library, places: Gpt2Places, row: Row) -> None:
        self._functions, self._places, self.row = functions, places, row
        self._described: dict[int, Longs] = {}
        self._spaces: list[Tensor] = []
        self._more: list[Tensor] = []

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of ids (N, T), in nats; the row's gradients become those of the parameters.

        IndexError for ids that the tables do not have.
        """
        self.row.use()
        self.row.gradients.zero_()
        loss = self._sums(inputs, targets)
        self.row.own()
        return torch.tensor(loss, dtype=self.row.weights.dtype)

    def _sums(self, inputs: Tensor, targets: Tensor) -> float:
        inputs, targets = inputs.contiguous().long(), targets.contiguous().long()
        count = int((targets >= 0).sum())
        described = self._description(inputs.shape[1])
        parts = _runs(inputs.shape[0], inputs.shape[1], torch.get_num_threads())
        self._make_room(len(parts), described)
        share = 1.0 / count if count else float("nan")

        def run(number: int) -> float:
            start, stop = parts[number]
            scales = self._places.attention_scale, self._places.branch_scale
            ids = address(inputs[start:stop]), address(targets[start:stop])
            gradients = self._more[number - 1] if number else self.row.gradients
            held = address(self.row.weights), address(gradients), address(self._spaces[number])
            return self._functions.gpt2(address(described), *scales, stop - start, *ids, share, *held)

        if len(parts) == 1:
            losses = [run(0)]
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                losses = list(pool.map(run, range(len(parts))))
        if min(losses) < 0:
            raise IndexError("a token or a target of the batch is none of the model's")
        for more in self._more[: len(parts) - 1]:
            self.row.gradients.add_(more)
        return sum(losses) * share

    def _description(self, context: int) -> Longs:
        if context not in self._described:
            self._described[context] = self._places.described(context)
        return self._described[context]

    def _make_room(self, parts: int, described: Longs) -> None:
        """A work space for every thread, and gradients for all but the first."""
        numbers = int(self._functions.gpt2_space(address(described)))
        if len(self._spaces) < parts or self._spaces[0].numel() < numbers:
            self._spaces = [self.row.weights.new_zeros(numbers) for _ in range(parts)]
        self._more = self._more or [torch.zeros_like(self.row.gradients) for _ in range(parts - 1)]
        for more in self._more:
            more.zero_()


def _runs(sequences: int, context: int, threads: int) -> list[tuple[int, int]]:
    """Consecutive runs of sequences, one a thread, as even as can be."""
    count = max(1, min(threads, sequences, sequences * context // LEAST_TOKENS))
    return list(pairwise(sequences * i // count for i in range(count + 1)))
