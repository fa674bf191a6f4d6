"""How does the fused CPU kernel run? products.cpp, built for the sizes of the call, on pointers of float32 tensors.

bfloat16 is widened before and rounded after, so that all that lies between is float32; where the processor's dense
product in bfloat16 is faster than that, it takes the kernel's place.

With more than one thread the rows are split into as many runs of whole tiles; ctypes releases the interpreter's lock.
The gradients of the factors are summed in the order of the runs, so equal inputs and equal threads give equal bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from structlin.kernels import compiler
from structlin.kernels.products import torch_path
from structlin.kernels.products.layout import ProductSizes

Result = TypeVar("Result")
_SOURCE = Path(__file__).with_name("products.cpp")
# Rows of a tile: three vectors of 16 keep the multipliers busiest, two leave a wide layer its second cache (measured).
TILE_ROWS, TILE_ROWS_WIDE = 48, 32
WIDE = 512
# A thread is worth starting for about a millisecond of work.
LEAST_ROWS = 384


class Kernel:
    """The library of one set of sizes."""

    def __init__(self, sizes: ProductSizes, library: ctypes.CDLL) -> None:
        self.sizes = sizes
        self._forward = _function(library.structlin_forward, pointers=5)
        self._backward = _function(library.structlin_backward, pointers=8)
        library.structlin_work_floats.restype = ctypes.c_long
        self._work_floats = library.structlin_work_floats()

    def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """x (T, used_in) -> (T, used_out); all contiguous float32."""
        y = x.new_empty(x.shape[0], self.sizes.used_out)

        def run(rows: slice) -> None:
            work = x.new_empty(self._work_floats)
            self._forward(_rows(rows), *map(_address, (x[rows], first, second, y[rows], work)))

        _run_all(run, x.shape[0], tile_rows(self.sizes))
        return y

    def backward(
        self, dy: Tensor, x: Tensor, first: Tensor, second: Tensor, needs_x: bool, needs_factors: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x and of both factors (None where not needed); z is made again."""
        dx = torch.empty_like(x) if needs_x else None

        def run(rows: slice) -> tuple[Tensor | None, Tensor | None]:
            work = x.new_empty(self._work_floats)
            d_first = torch.empty_like(first) if needs_factors else None
            d_second = torch.empty_like(second) if needs_factors else None
            dx_rows = None if dx is None else dx[rows]
            tensors = (x[rows], first, second, dy[rows], dx_rows, d_first, d_second, work)
            self._backward(_rows(rows), *map(_address, tensors))
            return d_first, d_second

        parts = _run_all(run, x.shape[0], tile_rows(self.sizes))
        return dx, _sum([part[0] for part in parts]), _sum([part[1] for part in parts])


def forward(x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor:
    """x (T, used_in) -> (T, used_out) by the kernel of these sizes."""
    return _built(sizes).forward(x.float(), first.float(), second.float()).to(x.dtype)


def backward(
    dy: Tensor, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes, needs_x: bool, needs_factors: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x and of both factors (None where not needed), in the same way."""
    found = _built(sizes).backward(dy.float(), x.float(), first.float(), second.float(), needs_x, needs_factors)
    dx, d_first, d_second = (gradient if gradient is None else gradient.to(x.dtype) for gradient in found)
    return dx, d_first, d_second


def serves(sizes: ProductSizes, dtype: torch.dtype) -> bool:
    """Whether there is a kernel of these sizes that, in bfloat16, does better than one dense product."""
    if dtype == torch.bfloat16 and torch_path.densifies(sizes, dtype):
        return False
    return kernel(sizes) is not None


def _built(sizes: ProductSizes) -> Kernel:
    built = kernel(sizes)
    assert built is not None
    return built


@compiler.Kept
def kernel(sizes: ProductSizes) -> Kernel | None:
    """The kernel of these sizes, built at first use; None where it cannot be built."""
    library = compiler.load(_SOURCE, _defines(sizes))
    return None if library is None else Kernel(sizes, library)


def tile_rows(sizes: ProductSizes) -> int:
    """Rows that pass through both products together."""
    return TILE_ROWS_WIDE if max(sizes.used_in, sizes.used_out) > WIDE else TILE_ROWS


def _defines(sizes: ProductSizes) -> list[str]:
    values = {name.upper(): getattr(sizes, name) for name in ("g", "b", "a", "r", "f", "d", "e")}
    order = {"X_INNER": int(sizes.a_first), "Y_INNER": int(not sizes.a_first)}
    tile = {"TOKENS": tile_rows(sizes), "GELU": int(sizes.gelu)}
    return [f"-DSL_{name}={value}" for name, value in {**values, **order, **tile}.items()]


def _function(function: Callable[..., None], pointers: int) -> Callable[..., None]:
    function.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * pointers]  # type: ignore[attr-defined]
    function.restype = None  # type: ignore[attr-defined]
    return function


def _sum(gradients: list[Tensor | None]) -> Tensor | None:
    total = gradients[0]
    for more in gradients[1:]:
        if total is not None and more is not None:
            total += more
    return total


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _run_all(run: Callable[[slice], Result], rows: int, tile: int) -> list[Result]:
    """Results of ``run`` on consecutive runs of whole tiles, one per thread."""
    runs = split_rows(rows, tile, torch.get_num_threads())
    if len(runs) == 1:
        return [run(runs[0])]
    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(run, runs))


def split_rows(rows: int, tile: int, threads: int) -> list[slice]:
    """At most ``threads`` consecutive runs that cover all rows, each but the last of whole tiles."""
    count = max(1, min(threads, rows // LEAST_ROWS))
    tiles = -(-rows // tile)
    edges = [min(rows, tiles * i // count * tile) for i in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]
