"""How do experts run on a CPU? One operator that takes the sorted assignments a few rows at a time.

A chunk's rows are gathered, multiplied by their expert's factors and added to their tokens' sums while they are still
in the cache, so that neither the gathered rows nor the weighted results of all assignments are ever written out. In
the backward pass they are made again. Because the experts are linear, the gradient of an assignment's weight is the
product of its row with that row's own gradient, and needs no result to be kept. In float32, experts that are block
tensor trains are taken all at once by a fused kernel, which does the same a tile at a time (cpp.py), and narrow ones of
any kind by the C++ of whole steps (maps.py).

Letters: T tokens, N assignments; factors of E experts: first (E, g, r, f, d, a), second (E, f, e, g, b, r), or one
dense weight (E, out, in) and an empty second one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from structlin.kernels.experts import cpp as moe_cpp
from structlin.kernels.experts.chunk import chunk_products
from structlin.kernels.experts.cpp import Assignments
from structlin.kernels.experts.maps import maps_for
from structlin.kernels.products.layout import ProductSizes

DOT_ROWS = 128

_LIBRARY = torch.library.Library("structlin", "FRAGMENT")
_LIBRARY.define(
    "experts(Tensor x, Tensor weight, Tensor first, Tensor second, Tensor token, Tensor ends, bool a_first, "
    "SymInt rows_out, bool gathers, bool combines) -> Tensor"
)
_LIBRARY.define(
    "experts_backward(Tensor dy, Tensor x, Tensor weight, Tensor first, Tensor second, Tensor token, Tensor ends, "
    "bool a_first, bool gathers, bool combines) -> (Tensor, Tensor, Tensor, Tensor)"
)


def _chunks(ends: Tensor, rows: int) -> Iterator[tuple[int, slice]]:
    """Expert and rows of every chunk."""
    start = 0
    for expert, end in enumerate(ends.tolist()):
        for low in range(start, end, rows):
            yield expert, slice(low, min(low + rows, end))
        start = end


def _kernel(x: Tensor, first: Tensor, second: Tensor, a_first: bool) -> moe_cpp.Kernel | None:
    """The fused kernel of all experts, where one serves."""
    if not second.numel() or x.dtype != torch.float32 or first.dtype != torch.float32:
        return None
    sizes = ProductSizes.of(first.shape[1:], second.shape[1:], a_first)
    return moe_cpp.kernel(sizes) if moe_cpp.serves(sizes) else None


def _num_tokens(x: Tensor, rows_out: int, routes: Assignments) -> int:
    """Of the batch, or, where neither x nor y has a row a token, no less."""
    if routes.gathers:
        return x.shape[0]
    return rows_out if routes.combines else routes.token.shape[0]


def experts_forward(
    x: Tensor,
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    token: Tensor,
    ends: Tensor,
    a_first: bool,
    rows_out: int,
    gathers: bool,
    combines: bool,
) -> Tensor:
    """Rows of x, of all tokens (``gathers``) or of all assignments, through their experts.

    The result has a row an assignment or, where it ``combines``, a row a token: the weighted sum.
    """
    x, first, second = x.contiguous(), first.contiguous(), second.contiguous()
    routes = Assignments(token, ends, weight.contiguous(), gathers, combines)
    kernel = _kernel(x, first, second, a_first)
    if kernel is not None:
        y = kernel.forward(x, first, second, routes, _num_tokens(x, rows_out, routes))
        return y if combines else _without_dropped(y, ends)
    maps = maps_for(x, weight, first, second, a_first)
    if maps is not None:
        return maps.forward(x, routes, rows_out)
    experts = chunk_products(first, second, a_first)
    # A sum over experts is taken in the precision of the weights, though its terms may be narrower.
    features = _features_out(first, second)
    y = x.new_zeros(rows_out, features, dtype=weight.dtype) if combines else x.new_empty(rows_out, features)
    for expert, part in _chunks(ends, experts.rows):
        y_CY = experts.forward(x.index_select(0, token[part]) if gathers else x[part], expert)
        if combines:
            y.index_add_(0, token[part], _scaled(y_CY, weight[part]))
        else:
            y[part] = y_CY
    return (y if combines else _without_dropped(y, ends)).to(x.dtype)


def experts_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    token: Tensor,
    ends: Tensor,
    a_first: bool,
    gathers: bool,
    combines: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of the weights (zeros where nothing is combined) and of both factors."""
    dy, x, first, second = dy.contiguous(), x.contiguous(), first.contiguous(), second.contiguous()
    routes = Assignments(token, ends, weight.contiguous(), gathers, combines)
    kernel = _kernel(x, first, second, a_first)
    if kernel is not None:
        found = kernel.backward(dy, x, first, second, routes, _num_tokens(x, dy.shape[0], routes))
        return found if gathers else (_without_dropped(found[0], ends), *found[1:])
    maps = maps_for(x, weight, first, second, a_first)
    if maps is not None:
        return maps.backward(dy, x, routes)
    experts = chunk_products(first, second, a_first)
    dx = torch.zeros_like(x, dtype=weight.dtype) if gathers else torch.empty_like(x, dtype=weight.dtype)
    d_weight, d_first, d_second = torch.zeros_like(weight), torch.zeros_like(first), torch.zeros_like(second)
    for expert, part in _chunks(ends, experts.rows):
        x_CX = x.index_select(0, token[part]) if gathers else x[part]
        dy_CY = dy.index_select(0, token[part]) if combines else dy[part]
        weighted_CX = (x_CX * weight[part, None]).to(x.dtype) if combines else x_CX
        dx_CX = experts.backward(dy_CY, weighted_CX, expert, d_first, d_second)
        if combines:
            d_weight[part] = _row_dots(dx_CX.to(weight.dtype), x_CX.to(weight.dtype))
            dx_CX = _scaled(dx_CX, weight[part])
        if gathers:
            dx.index_add_(0, token[part], dx_CX.to(dx.dtype))
        else:
            dx[part] = dx_CX
    return (dx if gathers else _without_dropped(dx, ends)).to(x.dtype), d_weight, d_first, d_second


def _without_dropped(rows: Tensor, ends: Tensor) -> Tensor:
    """Rows of assignments, zero where they are no expert's."""
    rows[int(ends[-1]) :] = 0
    return rows


def _row_dots(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of equal rows, their terms never leaving the cache."""
    pairs = zip(left.split(DOT_ROWS), right.split(DOT_ROWS), strict=True)
    return torch.cat([(one * other).sum(-1) for one, other in pairs])


def _scaled(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows times their weights; in place where they are of one dtype, since a product's result is no one else's."""
    return rows.mul_(weight[:, None]) if rows.dtype == weight.dtype else rows * weight[:, None]


_LIBRARY.impl("experts", experts_forward, "CPU")
_LIBRARY.impl("experts_backward", experts_backward, "CPU")


def run_experts(
    x: Tensor,
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    token: Tensor,
    ends: Tensor,
    a_first: bool,
    rows_out: int,
    gathers: bool,
    combines: bool,
) -> Tensor:
    """The operator, differentiable once; see ``experts_forward``."""
    y: Tensor = torch.ops.structlin.experts.default(
        x, weight, first, second, token, ends, a_first, rows_out, gathers, combines
    )
    return y


@torch.library.register_fake("structlin::experts", lib=_LIBRARY)
def _experts_shape(
    x: Tensor,
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    token: Tensor,
    ends: Tensor,
    a_first: bool,
    rows_out: int,
    gathers: bool,
    combines: bool,
) -> Tensor:
    return x.new_empty(rows_out, _features_out(first, second))


@torch.library.register_fake("structlin::experts_backward", lib=_LIBRARY)
def _experts_backward_shapes(
    dy: Tensor, x: Tensor, weight: Tensor, first: Tensor, second: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, weight, first, second))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.a_first, _, ctx.gathers, ctx.combines = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.structlin.experts_backward.default(
        dy, *ctx.saved_tensors, ctx.a_first, ctx.gathers, ctx.combines
    )
    return (*gradients, *[None] * 6)


torch.library.register_autograd("structlin::experts", _differentiate, setup_context=_keep, lib=_LIBRARY)


# ---- their cost -----------------------------------------------------------------------------------------------------


def _features_out(first: Tensor, second: Tensor) -> int:
    if not second.numel():
        return first.shape[1]
    return ProductSizes.of(first.shape[1:], second.shape[1:], True).used_out


def _macs(first: Sequence[int], second: Sequence[int]) -> int:
    if 0 in second:
        return first[1] * first[2]
    return ProductSizes.of(first[1:], second[1:], True).macs


@register_flop_formula(torch.ops.structlin.experts)
def forward_flops(
    x: Sequence[int], weight: Sequence[int], first: Sequence[int], second: Sequence[int], *_: Any, **__: Any
) -> int:
    """2 FLOPs per multiply-accumulate of every assignment, as if none were dropped."""
    return 2 * weight[0] * _macs(first, second)


@register_flop_formula(torch.ops.structlin.experts_backward)
def backward_flops(
    dy: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    first: Sequence[int],
    second: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    """Two products for each forward one; what is made again is in no count."""
    return 4 * weight[0] * _macs(first, second)
