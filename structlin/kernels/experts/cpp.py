"""How does the fused CPU kernel of a mixture's experts run? products.cpp, built for the sizes of one expert.

With more than one thread each takes a run of tokens, and of every expert the assignments of those tokens: no two write
to the same row. The gradients of the factors are summed in the order of the runs, so equal inputs and equal threads
give equal bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from structlin.kernels import compiler
from structlin.kernels.limits import FUSED_LEAST_WIDTH
from structlin.kernels.products.layout import ProductSizes

Result = TypeVar("Result")
_SOURCE = Path(__file__).with_name("products.cpp")
# Rows of a tile, by the bytes that its z may take beside the factors in the second cache (measured).
TILE_ROWS = (48, 32, 16)
Z_BYTES = 300 << 10
# A thread is worth starting for about a millisecond of work.
LEAST_TOKENS = 256


@dataclass(frozen=True)
class Assignments:
    """Which rows go to which expert, and where rows stand."""

    token: Tensor
    """Token of each assignment (N, int64), sorted by expert, then by token."""
    ends: Tensor
    """Where the assignments of each expert end (E, int32)."""
    weight: Tensor
    """Of each assignment in its token's sum (N)."""
    gathers: bool
    """x has a row a token, else a row an assignment."""
    combines: bool
    """y has a row a token, their weighted sum; else a row an assignment."""

    def addresses(self) -> list[int]:
        """Of the tensors, in the order of the kernel's arguments."""
        return [self.ends.data_ptr(), self.token.data_ptr(), self.weight.data_ptr()]


class Kernel:
    """The library of one set of sizes."""

    def __init__(self, sizes: ProductSizes, library: ctypes.CDLL) -> None:
        self.sizes = sizes
        self._forward = _function(library.structlin_forward, pointers=9)
        self._backward = _function(library.structlin_backward, pointers=13)
        self._work_floats = library.structlin_work_floats
        self._work_floats.argtypes, self._work_floats.restype = [ctypes.c_long] * 2, ctypes.c_long

    def forward(self, x: Tensor, first: Tensor, second: Tensor, routes: Assignments, num_tokens: int) -> Tensor:
        """Rows of x through their experts, (T or N, used_out); factors (E, ...); all contiguous float32.

        Rows of assignments beyond the last expert's are not set.
        """
        y = x.new_empty(num_tokens if routes.combines else routes.token.shape[0], self.sizes.used_out)
        seen = torch.zeros(num_tokens, dtype=torch.uint8)

        def run(tokens: slice) -> None:
            numbers = (first.shape[0], tokens.start, tokens.stop, routes.gathers, routes.combines)
            work = x.new_empty(self._work_floats(first.shape[0], False))
            self._forward(*numbers, *routes.addresses(), *_addresses(x, first, second, y, seen, work))

        _run_all(run, num_tokens)
        return y

    def backward(
        self, dy: Tensor, x: Tensor, first: Tensor, second: Tensor, routes: Assignments, num_tokens: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x, of the weights (zeros where nothing is combined) and of both factors."""
        dx, d_weight = torch.empty_like(x), torch.zeros_like(routes.weight)
        seen = torch.zeros(num_tokens, dtype=torch.uint8)

        def run(tokens: slice) -> tuple[Tensor, Tensor]:
            numbers = (first.shape[0], tokens.start, tokens.stop, routes.gathers, routes.combines)
            d_first, d_second = torch.empty_like(first), torch.empty_like(second)
            work = x.new_empty(self._work_floats(first.shape[0], True))
            tensors = (x, first, second, dy, dx, d_weight, d_first, d_second, seen, work)
            self._backward(*numbers, *routes.addresses(), *_addresses(*tensors))
            return d_first, d_second

        (d_first, d_second), *others = _run_all(run, num_tokens)
        for more_first, more_second in others:
            d_first += more_first
            d_second += more_second
        return dx, d_weight, d_first, d_second


def serves(sizes: ProductSizes) -> bool:
    """Whether there is a kernel for experts of these sizes: block tensor trains (b = d = 1) of any rank."""
    return sizes.b == sizes.d == 1 and min(sizes.used_in, sizes.used_out) >= FUSED_LEAST_WIDTH


@compiler.Kept
def kernel(sizes: ProductSizes) -> Kernel | None:
    """The kernel of experts of sizes that it serves, built at first use; None where it cannot be built."""
    library = compiler.load(_SOURCE, _defines(sizes))
    return None if library is None else Kernel(sizes, library)


def tile_rows(sizes: ProductSizes) -> int:
    """Rows that pass through both products together."""
    z_bytes = sizes.g * sizes.r * sizes.f * 4
    return next((rows for rows in TILE_ROWS if rows * z_bytes <= Z_BYTES), TILE_ROWS[-1])


def _defines(sizes: ProductSizes) -> list[str]:
    values = {name.upper(): getattr(sizes, name) for name in ("g", "a", "r", "f", "e")}
    return [f"-DSL_{name}={value}" for name, value in {**values, "TOKENS": tile_rows(sizes)}.items()]


def _function(function: Callable[..., None], pointers: int) -> Callable[..., None]:
    function.argtypes = [*[ctypes.c_long] * 5, *[ctypes.c_void_p] * pointers]  # type: ignore[attr-defined]
    function.restype = None  # type: ignore[attr-defined]
    return function


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _run_all(run: Callable[[slice], Result], tokens: int) -> Sequence[Result]:
    """Results of ``run`` on consecutive runs of tokens, one per thread."""
    count = max(1, min(torch.get_num_threads(), tokens // LEAST_TOKENS))
    edges = [tokens * i // count for i in range(count + 1)]
    runs = [slice(start, stop) for start, stop in pairwise(edges)]
    if count == 1:
        return [run(runs[0])]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, runs))
