"""How do both products run without a compiler? With the rows last, so that what lies between them is a view.

    z[(g b), (r f d), T] = A[(g b), (r f d), a]  x[(g b), a, T]
    y[f, e, (d T)]       = B[f, e, (g b r)]  z[f, (g b r), (d T)]

``tokens_last`` is differentiable and runs on every device and dtype. ``forward`` and ``backward`` are what the custom
operator calls: on a CPU in chunks of rows, or through the dense matrix where one large product is faster; on a GPU, for
layers that Triton does not fuse, with all rows at once.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from structlin.kernels.products.layout import ProductSizes

# Measured on an AVX-512 server core, float32, forward and backward, 8192 rows: the batched products reach a rate that
# grows with the width, so a dense product that does k times their work is faster up to about k * width = 1700.
DENSIFY_BELOW = 1700.0
# Where a factor is shared and there are several groups, products are smaller and slower (g1, g2 at d = 256..1024).
DENSIFY_SHARED_BELOW = 2800.0
# In bfloat16 where the processor multiplies tiles of it (AMX): a dense product at 600 GFLOP/s beats every pair up to
# d = 512 at rank 1 and 1024 at rank 4 (measured). Elsewhere float32's numbers are assumed.
DENSIFY_TILES_BELOW = 12000.0
# Floats of z in one chunk of rows: 0.5 MB are best at d = 256..1024 under plain malloc, and within 5% of the best under
# an allocator that keeps its memory (measured, rank 1 and 4).
CHUNK_FLOATS = 1 << 17
LEAST_ROWS = 128


def tokens_last(x: Tensor, first: Tensor, second: Tensor, a_first: bool) -> Tensor:
    """x (T, used_in) -> (T, used_out); first (g, r, f, d, a), second (f, e, g, b, r)."""
    y_YT = _rows_last(x, first, second, ProductSizes.of(first.shape, second.shape, a_first))
    # A transposition of two dimensions is the one permutation that torch copies at the memory's rate.
    return y_YT.t().contiguous()


def _rows_last(x: Tensor, first: Tensor, second: Tensor, s: ProductSizes) -> Tensor:
    """y (used_out, T)."""
    z_KfN = _make_z(_split_x(x, s), _batched_first(first, s), s)
    y_feN = torch.bmm(second.reshape(s.f, s.e, -1), z_KfN.transpose(0, 1))
    if not s.a_first and s.d > 1:
        y_feN = y_feN.view(s.f, s.e, s.d, -1).transpose(1, 2)
    return y_feN.reshape(s.used_out, x.shape[0])


def forward(x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor:
    """x (T, used_in) -> (T, used_out), without a graph."""
    if x.device.type != "cpu":
        return tokens_last(x, first, second, sizes.a_first)
    if densifies(sizes, x.dtype):
        return x @ dense_matrix(first, second, sizes).T
    rows = chunk_rows(sizes)
    y = x.new_empty(x.shape[0], sizes.used_out)
    for start in range(0, x.shape[0], rows):
        y[start : start + rows] = _rows_last(x[start : start + rows], first, second, sizes).t()
    return y


def backward(
    dy: Tensor, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes, needs_x: bool, needs_factors: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x and of both factors (None where not needed); z is made again."""
    on_cpu = x.device.type == "cpu"
    if on_cpu and densifies(sizes, x.dtype):
        return _dense_backward(dy, x, first, second, sizes, needs_x, needs_factors)
    rows = chunk_rows(sizes) if on_cpu else max(1, x.shape[0])
    dx = torch.empty_like(x) if needs_x else None
    d_first = torch.zeros_like(first) if needs_factors else None
    d_second = torch.zeros_like(second) if needs_factors else None
    for start in range(0, x.shape[0], rows):
        part = slice(start, start + rows)
        _add_chunk(dy[part], x[part], first, second, sizes, None if dx is None else dx[part], d_first, d_second)
    return dx, d_first, d_second


def densifies(sizes: ProductSizes, dtype: torch.dtype = torch.float32) -> bool:
    """Whether one dense product of the layer's shape is faster than the pair, though it does more."""
    s, dense_macs = sizes, sizes.used_in * sizes.used_out
    shared_in_groups = (s.b > 1 or s.d > 1) and max(s.g, s.f) > 1
    limit = DENSIFY_SHARED_BELOW if shared_in_groups else DENSIFY_BELOW
    if dtype == torch.bfloat16 and multiplies_tiles():
        limit = DENSIFY_TILES_BELOW
    return dense_macs / s.macs * math.sqrt(dense_macs) <= limit


@cache
def multiplies_tiles() -> bool:
    """Whether the processor has AMX for bfloat16, by what Linux says of it."""
    try:
        return " amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def dense_matrix(first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor:
    """W (used_out, used_in) = sum over r of both factors."""
    order = "fedgba" if sizes.a_first else "fdegab"
    return torch.einsum(f"grfda,fegbr->{order}", first, second).reshape(sizes.used_out, sizes.used_in)


def _dense_backward(
    dy: Tensor, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes, needs_x: bool, needs_factors: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    s = sizes
    dx = dy @ dense_matrix(first, second, s) if needs_x else None
    if not needs_factors:
        return dx, None, None
    order, shape = (
        ("fedgba", (s.f, s.e, s.d, s.g, s.b, s.a)) if s.a_first else ("fdegab", (s.f, s.d, s.e, s.g, s.a, s.b))
    )
    dW = (dy.T @ x).view(shape)
    d_first = torch.einsum(f"{order},fegbr->grfda", dW, second)
    d_second = torch.einsum(f"{order},grfda->fegbr", dW, first)
    return dx, d_first.contiguous(), d_second.contiguous()


def chunk_rows(sizes: ProductSizes) -> int:
    """Rows whose z stays in the cache."""
    return max(LEAST_ROWS, CHUNK_FLOATS // (sizes.g * sizes.b * sizes.r * sizes.f * sizes.d))


def _split_x(x: Tensor, sizes: ProductSizes) -> Tensor:
    """(T, used_in) as (g b, a, T)."""
    s = sizes
    if s.a_first:
        x_gbaT = x.reshape(-1, s.g, s.b, s.a).permute(1, 2, 3, 0)
    else:
        x_gbaT = x.reshape(-1, s.g, s.a, s.b).permute(1, 3, 2, 0)
    return x_gbaT.reshape(s.g * s.b, s.a, x.shape[0])


def _batched_first(first: Tensor, sizes: ProductSizes) -> Tensor:
    """(g b, r f d, a), repeated over b."""
    first_GRa = first.reshape(sizes.g, -1, sizes.a)
    return first_GRa.repeat_interleave(sizes.b, dim=0) if sizes.b > 1 else first_GRa


def _make_z(x_GaT: Tensor, first_GRa: Tensor, sizes: ProductSizes) -> Tensor:
    """z (g b r, f, d T)."""
    return torch.bmm(first_GRa, x_GaT).view(sizes.g * sizes.b * sizes.r, sizes.f, -1)


def _split_dy(dy: Tensor, sizes: ProductSizes) -> Tensor:
    """(T, used_out) as (f, e, d T)."""
    s, dy_YT = sizes, dy.t().contiguous()
    if not s.a_first and s.d > 1:
        dy_YT = dy_YT.view(s.f, s.d, s.e, -1).transpose(1, 2)
    return dy_YT.reshape(s.f, s.e, -1)


def _add_chunk(
    dy: Tensor,
    x: Tensor,
    first: Tensor,
    second: Tensor,
    sizes: ProductSizes,
    dx: Tensor | None,
    d_first: Tensor | None,
    d_second: Tensor | None,
) -> None:
    """Set dx and add to the gradients of the factors, for some rows."""
    s, rows = sizes, x.shape[0]
    dy_feN = _split_dy(dy, s)
    first_GRa, second_feK = _batched_first(first, s), second.reshape(s.f, s.e, -1)
    x_GaT = _split_x(x, s)
    dz_fKN = torch.bmm(second_feK.mT, dy_feN)
    # Both d_first and dx are products of this layout: one permutation serves the two.
    dz_GRT = dz_fKN.transpose(0, 1).reshape(s.g * s.b, -1, rows)
    if d_first is not None and d_second is not None:
        # z is made again, not kept: on a CPU a chunk of it never leaves the cache.
        z_KfN = _make_z(x_GaT, first_GRa, s)
        d_second += torch.bmm(dy_feN, z_KfN.permute(1, 2, 0)).view(d_second.shape)
        # The forward pass repeats the first factor over b, so its gradient is the sum over b.
        d_first += torch.bmm(dz_GRT, x_GaT.mT).view(s.g, s.b, *d_first.shape[1:]).sum(1)
    if dx is not None:
        dx_GaT = torch.bmm(first_GRa.mT, dz_GRT)
        # Back from the order of ``_split_x``, in which b stands outside of a.
        if not s.a_first and s.b > 1:
            dx_GaT = dx_GaT.view(s.g, s.b, s.a, rows).transpose(1, 2)
        dx.copy_(dx_GaT.reshape(s.used_in, rows).t())
