"""How does one expert treat a chunk of its rows on a CPU? Forward and backward of its linear map, in reused buffers.

    dense     one weight
    fused     the C++ kernel of one layer, where it serves; block tensor trains have one of their own (expert_chunks.py)
    buffered  a block tensor train in plain torch: both products with the rows last, between them a view
    pair      any other pair of factors, by structlin.kernels.products.torch_path

Letters: C rows of a chunk, X and Y features in and out; factors first (g, r, f, d, a), second (f, e, g, b, r) of every
expert. A returned tensor may be a buffer: it holds until the next call.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from structlin.kernels.limits import FUSED_LEAST_WIDTH
from structlin.kernels.products import cpp, torch_path
from structlin.kernels.products.layout import ProductSizes

# Rows that a fused kernel takes at once: as fast as more (measured at d = 256..1024), in buffers of a few megabytes. A
# dense expert takes more: each chunk reads and writes the whole gradient of its weight.
CHUNK_ROWS = 1024
DENSE_ROWS = 4096


class ChunkProducts(Protocol):
    """The linear maps of all experts, for one forward or backward pass."""

    rows: int
    """Rows that are best taken at once."""

    def forward(self, x_CX: Tensor, expert: int) -> Tensor:
        """(C, X) -> (C, Y)."""
        ...

    def backward(self, dy_CY: Tensor, x_CX: Tensor, expert: int, d_first: Tensor, d_second: Tensor) -> Tensor:
        """The gradient (C, X) of the rows; adds the factors' gradients to ``d_first`` and ``d_second``."""
        ...


def chunk_products(first: Tensor, second: Tensor, a_first: bool) -> ChunkProducts:
    """The products of experts (E, ...); an empty ``second`` stands for dense ones (E, Y, X)."""
    if not second.numel():
        return Dense(first)
    sizes = ProductSizes.of(first.shape[1:], second.shape[1:], a_first)
    fits = first.dtype == torch.float32 and min(sizes.used_in, sizes.used_out) >= FUSED_LEAST_WIDTH
    kernel = cpp.kernel(sizes) if fits else None
    if kernel is not None:
        return Fused(first, second, kernel)
    if sizes.b == sizes.d == 1 and not torch_path.densifies(sizes):
        return Buffered(first, second, sizes)
    return Pair(first, second, sizes)


class Dense:
    """One weight an expert."""

    rows = DENSE_ROWS

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def forward(self, x_CX: Tensor, expert: int) -> Tensor:
        """x W^T."""
        return x_CX @ self.weights[expert].T

    def backward(self, dy_CY: Tensor, x_CX: Tensor, expert: int, d_first: Tensor, d_second: Tensor) -> Tensor:
        """dy W, and dy^T x for the weight."""
        d_first[expert].addmm_(dy_CY.T, x_CX)
        return dy_CY @ self.weights[expert]


class Fused:
    """Two factors by the C++ kernel."""

    rows = CHUNK_ROWS

    def __init__(self, first: Tensor, second: Tensor, kernel: cpp.Kernel) -> None:
        self.first, self.second, self.kernel = first, second, kernel

    def forward(self, x_CX: Tensor, expert: int) -> Tensor:
        """Both products, tile by tile."""
        return self.kernel.forward(x_CX, self.first[expert], self.second[expert])

    def backward(self, dy_CY: Tensor, x_CX: Tensor, expert: int, d_first: Tensor, d_second: Tensor) -> Tensor:
        """All gradients, what lies between the products being made again."""
        found = self.kernel.backward(dy_CY, x_CX, self.first[expert], self.second[expert], True, True)
        return _add(found, expert, d_first, d_second)


class Pair:
    """Two factors of any sizes by batched products."""

    def __init__(self, first: Tensor, second: Tensor, sizes: ProductSizes) -> None:
        self.first, self.second, self.sizes = first, second, sizes
        self.rows = CHUNK_ROWS if torch_path.densifies(sizes) else torch_path.chunk_rows(sizes)

    def forward(self, x_CX: Tensor, expert: int) -> Tensor:
        """Both products."""
        return torch_path.forward(x_CX, self.first[expert], self.second[expert], self.sizes)

    def backward(self, dy_CY: Tensor, x_CX: Tensor, expert: int, d_first: Tensor, d_second: Tensor) -> Tensor:
        """All gradients, what lies between the products being made again."""
        first, second = self.first[expert], self.second[expert]
        found = torch_path.backward(dy_CY, x_CX, first, second, self.sizes, True, True)
        return _add(found, expert, d_first, d_second)


class Buffered:
    """A block tensor train (b = d = 1) of any rank, in buffers that stay in the cache.

        z (g, r f, C) = first (g, r f, a)  x (g, a, C)      y (f, e, C) = second (f, e, g r)  z (f, g r, C)

    x is read where it stands, rows first; z is read by the second product as a view.
    """

    def __init__(self, first: Tensor, second: Tensor, sizes: ProductSizes) -> None:
        s = self.sizes = sizes
        self.rows = torch_path.chunk_rows(sizes)
        self.first = first.reshape(-1, s.g, s.r * s.f, s.a)
        self.second = second.reshape(-1, s.f, s.e, s.g * s.r)
        features = {"z": s.g * s.r * s.f, "dz": s.g * s.r * s.f, "y": s.used_out, "x": s.used_in}
        self._buffers = {name: first.new_empty(self.rows * count) for name, count in features.items()}
        self._rows_of = {name: first.new_empty(self.rows * count) for name, count in features.items() if name in "xy"}

    def forward(self, x_CX: Tensor, expert: int) -> Tensor:
        """Both products; the result is a buffer."""
        s, rows = self.sizes, x_CX.shape[0]
        z_KfC = self._make_z(x_CX, expert).view(s.g * s.r, s.f, rows)
        y_feC = torch.bmm(self.second[expert], z_KfC.transpose(0, 1), out=self._buffer("y", s.f, s.e, rows))
        return self._row_buffer("y", rows).copy_(y_feC.view(s.used_out, rows).t())

    def backward(self, dy_CY: Tensor, x_CX: Tensor, expert: int, d_first: Tensor, d_second: Tensor) -> Tensor:
        """All gradients, z being made again; the result is a buffer."""
        s, rows = self.sizes, x_CX.shape[0]
        dy_feC = self._buffer("y", s.f, s.e, rows)
        dy_feC.view(s.used_out, rows).copy_(dy_CY.t())
        z_KfC = self._make_z(x_CX, expert).view(s.g * s.r, s.f, rows)
        d_second[expert].view(s.f, s.e, s.g * s.r).baddbmm_(dy_feC, z_KfC.permute(1, 2, 0))
        dz_fKC = torch.bmm(self.second[expert].mT, dy_feC, out=self._buffer("dz", s.f, s.g * s.r, rows))
        # A view where r or g is 1, else one copy.
        dz_gRC = dz_fKC.view(s.f, s.g, s.r, rows).permute(1, 2, 0, 3).reshape(s.g, s.r * s.f, rows)
        d_first[expert].view(s.g, s.r * s.f, s.a).baddbmm_(dz_gRC, self._blocks(x_CX).transpose(0, 1))
        dx_gaC = torch.bmm(self.first[expert].mT, dz_gRC, out=self._buffer("x", s.g, s.a, rows))
        return self._row_buffer("x", rows).copy_(dx_gaC.view(s.used_in, rows).t())

    def _make_z(self, x_CX: Tensor, expert: int) -> Tensor:
        s, rows = self.sizes, x_CX.shape[0]
        out = self._buffer("z", s.g, s.r * s.f, rows)
        return torch.bmm(self.first[expert], self._blocks(x_CX).permute(1, 2, 0), out=out)

    def _blocks(self, x_CX: Tensor) -> Tensor:
        return x_CX.view(-1, self.sizes.g, self.sizes.a)

    def _buffer(self, name: str, *shape: int) -> Tensor:
        """The part of a buffer that a chunk of (perhaps fewer) rows takes, contiguous."""
        outer, inner, rows = shape
        return self._buffers[name][: outer * inner * rows].view(shape)

    def _row_buffer(self, name: str, rows: int) -> Tensor:
        features = self.sizes.used_in if name == "x" else self.sizes.used_out
        return self._rows_of[name][: rows * features].view(rows, features)


def _add(found: tuple[Tensor | None, ...], expert: int, d_first: Tensor, d_second: Tensor) -> Tensor:
    """Add the gradients of an expert's factors; returns that of the rows."""
    dx_CX, more_first, more_second = found
    assert dx_CX is not None
    assert more_first is not None
    assert more_second is not None
    d_first[expert] += more_first
    d_second[expert] += more_second
    return dx_CX
