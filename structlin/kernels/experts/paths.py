"""Which code computes what the experts were sent? A path chosen by device and dtype; all of them compute no more.

    chunks   CPU: an operator that gathers, multiplies and adds up a few rows at a time (chunks.py), for experts that
             are block tensor trains in one fused kernel (cpp.py)
    grouped  CUDA, float32 and bfloat16: grouped matrix products, which read where the groups end on the device
             (structlin/kernels/experts/grouped.py)
    plain    elsewhere: one expert after another by ordinary torch operations; waits once for the device

A pair of factors is two grouped products, whatever its theta. With rows x of N assignments, sorted by expert:

    z[(g N b), (r f d)] = x[(g N b), a] first^T, groups (g, expert)
    y[(f N d), e]       = z[(f N d), (g b r)] second^T, groups (f, expert)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from structlin.kernels.backends import DTYPES
from structlin.kernels.experts.chunks import run_experts
from structlin.kernels.experts.grouped import grouped_product
from structlin.kernels.experts.routes import Routes
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.torch_path import tokens_last


def expert_products(
    x: Tensor, first: Tensor, second: Tensor, a_first: bool, routes: Routes, *, gathers: bool, combines: bool
) -> Tensor:
    """Rows through the linear maps of their experts: first (E, g, r, f, d, a), second (E, f, e, g, b, r).

    An empty ``second`` stands for dense experts, first (E, Y, X). ``gathers``: x holds the tokens (T, X), else the
    sorted assignments (N, X). ``combines``: the result is the weighted sum of every token (T, Y), else the sorted
    assignments (N, Y); rows of dropped assignments are zero.
    """
    path = choose_path(x)
    if path == "chunks":
        rows_out = routes.num_tokens if combines else routes.token_N.shape[0]
        routing = (routes.token_N, routes.ends_E)
        return run_experts(x, routes.weight_N, first, second, *routing, a_first, rows_out, gathers, combines)
    x_NX = _Gather.apply(x, routes.token_N, routes.slots_by_row()) if gathers else x
    y_NY = (grouped if path == "grouped" else plain)(x_NX, first, second, a_first, routes)
    return _combine(y_NY, routes) if combines else y_NY


def choose_path(x: Tensor) -> str:
    """chunks, grouped or plain, for tensors of one device and dtype."""
    if x.device.type in ("cpu", "meta"):
        return "chunks"
    return "grouped" if x.device.type == "cuda" and x.dtype in DTYPES else "plain"


# ---- the paths ------------------------------------------------------------------------------------------------------


def grouped(x_NX: Tensor, first: Tensor, second: Tensor, a_first: bool, routes: Routes) -> Tensor:
    """Sorted rows (N, X) -> (N, Y) by grouped matrix products.

    What stands beyond the last group is computed by nobody, in either direction, and so set to zero on both sides of
    every product.
    """
    rows = x_NX.shape[0]
    x_NX = _kept(x_NX, routes)
    if not second.numel():
        return _kept(grouped_product(x_NX, first, routes.ends_E), routes)
    s = ProductSizes.of(first.shape[1:], second.shape[1:], a_first)
    x_gNba = x_NX.view(rows, s.g, s.b, s.a).transpose(0, 1)
    if not s.a_first:
        x_gNba = x_NX.view(rows, s.g, s.a, s.b).permute(1, 0, 3, 2)
    weights: Tensor = _BlocksFirst.apply(first).flatten(1, 3)
    z = _grouped_blocks(x_gNba.reshape(-1, s.a), weights, routes.ends_E, rows, s.b)
    z_Nfdgbr = z.view(s.g, rows, s.b, s.r, s.f, s.d).permute(1, 4, 5, 0, 2, 3)
    z_fNdK = _kept(z_Nfdgbr, routes).transpose(0, 1).reshape(-1, s.g * s.b * s.r)
    weights = _BlocksFirst.apply(second).flatten(2, 4)
    y = _grouped_blocks(z_fNdK, weights, routes.ends_E, rows, s.d)
    order = (1, 0, 3, 2) if s.a_first else (1, 0, 2, 3)
    return _kept(y.view(s.f, rows, s.d, s.e).permute(order), routes).reshape(rows, s.used_out)


class _BlocksFirst(torch.autograd.Function):
    """Weights (E, blocks, ...) -> (blocks E, ...). Its gradient lies as the weights do, which spares it a copy."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        """Transposed."""
        ctx.blocks = weights.shape[1]
        return weights.transpose(0, 1).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """And back."""
        by_block: Tensor = gradients[0].unflatten(0, (ctx.blocks, -1))
        return by_block.transpose(0, 1).contiguous()


def _kept(rows: Tensor, routes: Routes) -> Tensor:
    """(N, ...) with the rows of dropped assignments set to zero."""
    if not routes.drops:
        return rows
    return rows.where(routes.kept_N().view(-1, *[1] * (rows.dim() - 1)), 0)


def _grouped_blocks(x: Tensor, weights: Tensor, ends_E: Tensor, rows: int, repeats: int) -> Tensor:
    """Blocks of rows, each sorted by expert: x (blocks rows repeats, in), weights (blocks E, out, in)."""
    blocks = weights.shape[0] // ends_E.shape[0]
    begins = torch.arange(blocks, device=x.device, dtype=torch.int32) * rows
    offsets = ((begins[:, None] + ends_E) * repeats).flatten()
    return grouped_product(x, weights, offsets)


def plain(x_NX: Tensor, first: Tensor, second: Tensor, a_first: bool, routes: Routes) -> Tensor:
    """Sorted rows (N, X) -> (N, Y), one expert after another; rows beyond the last one's are zero."""
    # The one wait for the device: the lengths of the parts are shapes, and shapes live on the host.
    ends = routes.ends_E.tolist()
    counts = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    parts = x_NX[: ends[-1]].split(counts)
    if second.numel():
        triples = zip(parts, first.unbind(), second.unbind(), strict=True)
        found = [tokens_last(rows, A, B, a_first) for rows, A, B in triples]
    else:
        found = [functional.linear(rows, weight) for rows, weight in zip(parts, first.unbind(), strict=True)]
    # Dropped assignments stand last, and nobody has computed them.
    return functional.pad(torch.cat(found), (0, 0, 0, x_NX.shape[0] - ends[-1]))


# ---- from tokens to assignments and back ----------------------------------------------------------------------------


class _Gather(torch.autograd.Function):
    """Tokens (T, X) -> assignments (N, X). Its gradient is summed in a fixed order: runs repeat bit by bit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token_N: Tensor, slots_TK: Tensor) -> Tensor:
        """The row of each assignment's token."""
        ctx.save_for_backward(slots_TK)
        return x.index_select(0, token_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The sum over a token's assignments."""
        (slots_TK,) = ctx.saved_tensors
        dx_TKX = gradients[0].index_select(0, slots_TK.flatten()).view(*slots_TK.shape, -1)
        return dx_TKX.sum(1), None, None


class _Combine(torch.autograd.Function):
    """Assignments (N, Y) -> the weighted sum over each token's (T, Y), taken in the precision of the weights.

    Kept is y as it came; both gradients are looked up, so that nothing is added up in an order of chance.
    """

    @staticmethod
    def forward(ctx: Any, y_NY: Tensor, weight_TK: Tensor, order_N: Tensor, slots_TK: Tensor) -> Tensor:
        """In the dtype of y."""
        ctx.save_for_backward(y_NY, weight_TK, order_N, slots_TK)
        summed = (_by_token(y_NY, slots_TK) * weight_TK[..., None]).sum(1)
        # No cast that casts nothing: compiled by torch 2.11, a function that returns one has gradients of zero.
        return summed if summed.dtype == y_NY.dtype else summed.to(y_NY.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of y and of the weights."""
        y_NY, weight_TK, order_N, slots_TK = ctx.saved_tensors
        dy_TY, dtype = gradients[0], weight_TK.dtype
        d_weight_TK = (
            (dy_TY.to(dtype)[:, None] * _by_token(y_NY, slots_TK).to(dtype)).sum(-1)
            if ctx.needs_input_grad[1]
            else None
        )
        weight_N = weight_TK.flatten().index_select(0, order_N)
        dy_NY = dy_TY.index_select(0, order_N // weight_TK.shape[1]) * weight_N[:, None]
        return dy_NY.to(y_NY.dtype), d_weight_TK, None, None


def _by_token(y_NY: Tensor, slots_TK: Tensor) -> Tensor:
    """The rows of each token's assignments (T, K, Y)."""
    return y_NY.index_select(0, slots_TK.flatten()).view(*slots_TK.shape, -1)


def _combine(y_NY: Tensor, routes: Routes) -> Tensor:
    """The weighted sum over each token's assignments."""
    combined: Tensor = _Combine.apply(y_NY, routes.weight_TK, routes.order_N, routes.slots_TK())
    return combined
