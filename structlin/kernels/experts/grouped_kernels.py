"""What does the GPU run for sorted experts? Matrix products of groups of rows whose ends stay on the device.

    y[N, out] = x[N, in] weights[g, out, in]^T        rows N of group g, from ends[g - 1] to ends[g]
    d_weights[g, out, in] = sum over the rows of g of dy[N, out] x[N, in]

Blocks of rows lie at fixed places, so the grid is known from the shapes alone and nothing waits for the host; one that
holds the end of a group is multiplied by the weights of both. Rows beyond the last group are not written.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from structlin.kernels.products.triton_kernels import product


class Groups(NamedTuple):
    """Sizes and strides of one call: constants of the compilation, and what blocks follow from."""

    groups: int
    inner: int
    out: int
    w_group: int
    w_out: int
    w_inner: int


@triton.jit
def group_of(ends, row, s: tl.constexpr, GROUPS_B: tl.constexpr):
    """The group of a row: how many groups end at it or before."""
    g = tl.arange(0, GROUPS_B)
    ended = (tl.load(ends + g, mask=g < s.groups, other=0) <= row) & (g < s.groups)
    return tl.sum(ended.to(tl.int32), 0)


@triton.jit
def multiply_groups(
    x,
    weights,
    ends,
    y,
    rows,
    s: tl.constexpr,
    ROWS_BITS: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUPS_B: tl.constexpr,
    T_B: tl.constexpr,
    IN_B: tl.constexpr,
    OUT_B: tl.constexpr,
):
    """y (rows, out) of x (rows, in), both contiguous; the grid is (blocks of rows x blocks of out)."""
    num_out: tl.constexpr = (s.out + OUT_B - 1) // OUT_B
    start = tl.program_id(0) // num_out * T_B
    T = start + tl.arange(0, T_B)
    o = tl.program_id(0) % num_out * OUT_B + tl.arange(0, OUT_B)
    first = group_of(ends, start, s, GROUPS_B)
    # The last block may reach beyond the rows.
    last = group_of(ends, tl.minimum(start + T_B, rows) - 1, s, GROUPS_B)
    # A row beyond the last group counts as of a group that has no weights.
    for g in range(first, tl.minimum(last + 1, s.groups)):
        begin = tl.load(ends + g - 1, mask=g > 0, other=0)
        inside = (begin <= T) & (tl.load(ends + g) > T)
        total = tl.zeros((T_B, OUT_B), dtype=tl.float32)
        of_group = weights + g * tl.full((), s.w_group, tl.int64)
        for i_start in range(0, s.inner, IN_B):
            i = i_start + tl.arange(0, IN_B)
            at = T.to(tl.int64)[:, None] * s.inner + i[None, :]
            x_Ti = tl.load(x + at, mask=inside[:, None] & (i < s.inner)[None, :], other=0.0)
            at = i[:, None] * s.w_inner + o[None, :] * s.w_out
            w_io = tl.load(of_group + at, mask=(i < s.inner)[:, None] & (o < s.out)[None, :], other=0.0)
            total = product(x_Ti, w_io, total, WIDEN, PRECISION)
        # Each group writes its own rows alone: the others of the block are the next one's. 64 bits, as rows times
        # features may pass 2^31.
        at = T.to(tl.int64)[:, None] * s.out + o[None, :]
        tl.store(y + at, total.to(y.dtype.element_ty), mask=inside[:, None] & (o < s.out)[None, :])


@triton.jit
def weight_gradients(
    dy,
    x,
    ends,
    d_weights,
    rows,
    s: tl.constexpr,
    ROWS_BITS: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    T_B: tl.constexpr,
    IN_B: tl.constexpr,
    OUT_B: tl.constexpr,
):
    """d_weights (groups, out, in), contiguous; the grid is (groups, blocks of out, blocks of in).

    One program sums all rows of a group in their order: equal inputs give equal bits.
    """
    g = tl.program_id(0)
    o = tl.program_id(1) * OUT_B + tl.arange(0, OUT_B)
    i = tl.program_id(2) * IN_B + tl.arange(0, IN_B)
    end = tl.load(ends + g)
    # Float32 whatever the inputs are: a group may have thousands of rows, and bfloat16 would stop adding small ones.
    total = tl.zeros((OUT_B, IN_B), dtype=tl.float32)
    for start in range(tl.load(ends + g - 1, mask=g > 0, other=0), end, T_B):
        T = start + tl.arange(0, T_B)
        at = T.to(tl.int64)[None, :] * s.out + o[:, None]
        dy_oT = tl.load(dy + at, mask=(end > T)[None, :] & (o < s.out)[:, None], other=0.0)
        at = T.to(tl.int64)[:, None] * s.inner + i[None, :]
        x_Ti = tl.load(x + at, mask=(end > T)[:, None] & (i < s.inner)[None, :], other=0.0)
        total = product(dy_oT, x_Ti, total, WIDEN, PRECISION)
    # Of a group without rows too: the memory that the caller gives is not set, and its gradient is zero.
    at = g.to(tl.int64) * (s.out * s.inner) + o[:, None] * s.inner + i[None, :]
    tl.store(d_weights + at, total.to(d_weights.dtype.element_ty), mask=(o < s.out)[:, None] & (i < s.inner)[None, :])
