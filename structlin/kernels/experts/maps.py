"""How do the narrow experts of a linear map run on one thread? By the C++ of whole steps, some rows of one at a time.

Products of some hundred rows of few features are where torch's calls take longer than their arithmetic.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from structlin.kernels.experts.cpp import Assignments
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.steps.library import Library, address, library
from structlin.kernels.steps.places import NOWHERE, LinearPlace


class Maps:
    """The maps of all experts: dense, or of two factors."""

    def __init__(self, functions: Library, first: Tensor, second: Tensor, place: LinearPlace) -> None:
        """``first`` and ``second``: of every expert, contiguous; an empty second stands for dense ones."""
        self._functions, self._first, self._second = functions, first, second
        self._linear = np.array(place.numbers(), dtype=np.int64)
        self._outputs = place.d_out
        self._weights = torch.cat([first.flatten(1), second.flatten(1)], 1) if second.numel() else first

    def forward(self, x: Tensor, routes: Assignments, rows_out: int) -> Tensor:
        """Rows of x through their experts, (T or N, used_out); rows of dropped assignments are zero."""
        y = x.new_zeros(rows_out, self._outputs)
        self._functions.routed(*self._asked(routes), *map(address, (x, self._weights, y, self._space(x))))
        return y

    def backward(self, dy: Tensor, x: Tensor, routes: Assignments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x, of the weights (zeros where nothing is combined) and of both factors."""
        found = dx, d_weight, d_weights = [torch.zeros_like(one) for one in (x, routes.weight, self._weights)]
        read = (x, self._weights, dy)
        self._functions.routed_backward(*self._asked(routes), *map(address, (*read, *found, self._space(x))))
        if not self._second.numel():
            return dx, d_weight, d_weights, torch.zeros_like(self._second)
        sizes = [self._first[0].numel(), self._second[0].numel()]
        d_first, d_second = d_weights.split(sizes, 1)
        return dx, d_weight, d_first.reshape(self._first.shape), d_second.reshape(self._second.shape)

    def _asked(self, routes: Assignments) -> list[int | None]:
        numbers = [len(self._first), self._weights[0].numel(), int(routes.gathers), int(routes.combines)]
        tensors = (routes.token, routes.ends, routes.weight)
        return [address(self._linear), *numbers, *map(address, tensors)]

    def _space(self, x: Tensor) -> Tensor:
        return x.new_empty(int(self._functions.routed_space(address(self._linear))))


def maps_for(x: Tensor, weight: Tensor, first: Tensor, second: Tensor, a_first: bool) -> Maps | None:
    """What computes experts of these contiguous tensors; None where something else does."""
    if {x.dtype, weight.dtype, first.dtype} != {torch.float32} or torch.get_num_threads() > 1:
        return None
    place = _place(first, second, a_first)
    functions = library(torch.float32) if place.is_narrow else None
    return None if functions is None else Maps(functions, first, second, place)


def _place(first: Tensor, second: Tensor, a_first: bool) -> LinearPlace:
    if not second.numel():
        d_out, d_in = first.shape[1:]
        return LinearPlace(d_in, d_out, 1, 1, 1, 1, 1, 1, 1, 1, 0, NOWHERE, NOWHERE)
    s = ProductSizes.of(first.shape[1:], second.shape[1:], a_first)
    places = 0, first[0].numel()
    return LinearPlace(s.used_in, s.used_out, s.g, s.b, s.a, s.r, s.f, s.d, s.e, int(a_first), *places, NOWHERE)
