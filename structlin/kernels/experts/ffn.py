"""How do dense experts of a mixed FFN run on a CPU? One operator from tokens to tokens, an expert after another.

    u = up x,   y = down gelu(u),   sum over chosen experts of w y

Every expert's rows stand together, so its products are as large as can be. Kept for the backward pass are u and y of
every assignment: gelu(u) is made again, cheaper than a tensor that has to be written out, and y gives the gradient of
its weight. Weights multiply rows of d_model, never of the larger hidden width. Narrow experts have C++ of their own
(narrow.py).

Letters: T tokens, N assignments sorted by expert, E experts, X d_model, H hidden width of one expert; a segment is the
rows of one expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from structlin.kernels.experts import narrow
from structlin.kernels.experts.routes import Routes

_LIBRARY = torch.library.Library("structlin", "FRAGMENT")
_LIBRARY.define(
    "expert_ffn(Tensor x, Tensor weight, Tensor up, Tensor down, Tensor token, Tensor ends) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "expert_ffn_backward(Tensor dy, Tensor x, Tensor weight, Tensor up, Tensor down, Tensor token, Tensor ends, "
    "Tensor inner, Tensor rows) -> (Tensor, Tensor, Tensor, Tensor)"
)


def expert_ffn(x: Tensor, up: Tensor, down: Tensor, routes: Routes) -> Tensor:
    """Tokens (T, X) through their experts' up (E, H, X) and down (E, X, H): weighted sums (T, X)."""
    y: Tensor = torch.ops.structlin.expert_ffn.default(x, routes.weight_N, up, down, routes.token_N, routes.ends_E)[0]
    return y


def _segments(ends: Tensor) -> Iterator[tuple[int, slice]]:
    start = 0
    for expert, end in enumerate(ends.tolist()):
        yield expert, slice(start, end)
        start = end


def _buffer(like: Tensor, ends: Tensor, features: int) -> Tensor:
    """For the rows of any one expert, reused by all."""
    return like.new_empty(int(torch.diff(ends, prepend=ends.new_zeros(1)).max()), features)


def ffn_forward(
    x: Tensor, weight: Tensor, up: Tensor, down: Tensor, token: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (T, X), and u (N, H) and y (N, X) of every assignment; rows of dropped assignments are not set."""
    x, up, down = x.contiguous(), up.contiguous(), down.contiguous()
    functions = narrow.functions_for(x, weight, up)
    if functions is not None:
        return narrow.forward(functions, x, weight, up, down, token, ends)
    inner, rows = x.new_empty(token.shape[0], up.shape[1]), x.new_empty(token.shape[0], x.shape[1])
    # A sum over experts is taken in the precision of the weights, though its terms may be narrower.
    y = torch.zeros_like(x, dtype=weight.dtype)
    hidden, own = _buffer(x, ends, up.shape[1]), _buffer(x, ends, x.shape[1])
    for expert, part in _segments(ends):
        count = part.stop - part.start
        x_CX = torch.index_select(x, 0, token[part], out=own[:count])
        torch.mm(x_CX, up[expert].T, out=inner[part])
        h_CH = torch.ops.aten.gelu.out(inner[part], out=hidden[:count])
        torch.mm(h_CH, down[expert].T, out=rows[part])
        y.index_add_(0, token[part], rows[part] * weight[part, None])
    return y.to(x.dtype), inner, rows


def ffn_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    up: Tensor,
    down: Tensor,
    token: Tensor,
    ends: Tensor,
    inner: Tensor,
    rows: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of the weights, of up and of down."""
    dy, x, up, down = dy.contiguous(), x.contiguous(), up.contiguous(), down.contiguous()
    functions = narrow.functions_for(x, weight, up)
    if functions is not None:
        return narrow.backward(functions, dy, x, weight, up, down, token, ends, inner, rows)
    dx, d_weight = torch.zeros_like(x, dtype=weight.dtype), torch.zeros_like(weight)
    d_up, d_down = torch.empty_like(up), torch.empty_like(down)
    hidden, own, other = (_buffer(x, ends, features) for features in (up.shape[1], x.shape[1], x.shape[1]))
    for expert, part in _segments(ends):
        count = part.stop - part.start
        dy_CX = torch.index_select(dy, 0, token[part], out=own[:count])
        # Before dy is scaled: the gradient of a weight is the product of dy and the unweighted row.
        d_weight[part] = torch.linalg.vecdot(dy_CX.to(weight.dtype), rows[part].to(weight.dtype))
        dy_CX.mul_(weight[part, None])
        h_CH = torch.ops.aten.gelu.out(inner[part], out=hidden[:count])
        torch.mm(dy_CX.T, h_CH, out=d_down[expert])
        # Into the memory of h, which d_down was the last to read; the same happens to dy at the end of the loop.
        dh_CH = torch.mm(dy_CX, down[expert], out=h_CH)
        du_CH = torch.ops.aten.gelu_backward.grad_input(dh_CH, inner[part], grad_input=dh_CH)
        x_CX = torch.index_select(x, 0, token[part], out=other[:count])
        torch.mm(du_CH.T, x_CX, out=d_up[expert])
        # Tokens come back once for each of their experts: their gradients add up, in the precision of the weights.
        dx.index_add_(0, token[part], torch.mm(du_CH, up[expert], out=dy_CX).to(dx.dtype))
    return dx.to(x.dtype), d_weight, d_up, d_down


_LIBRARY.impl("expert_ffn", ffn_forward, "CPU")
_LIBRARY.impl("expert_ffn_backward", ffn_backward, "CPU")


@torch.library.register_fake("structlin::expert_ffn", lib=_LIBRARY)
def _shapes(x: Tensor, weight: Tensor, up: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = weight.shape[0]
    return x.new_empty(x.shape), x.new_empty(rows, up.shape[1]), x.new_empty(rows, x.shape[1])


@torch.library.register_fake("structlin::expert_ffn_backward", lib=_LIBRARY)
def _backward_shapes(
    dy: Tensor, x: Tensor, weight: Tensor, up: Tensor, down: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, weight, up, down))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, inner, rows = output
    ctx.save_for_backward(*inputs, inner, rows)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return *torch.ops.structlin.expert_ffn_backward.default(dy, *ctx.saved_tensors), None, None


torch.library.register_autograd("structlin::expert_ffn", _differentiate, setup_context=_keep, lib=_LIBRARY)


@register_flop_formula(torch.ops.structlin.expert_ffn)
def forward_flops(x: Sequence[int], weight: Sequence[int], up: Sequence[int], *_: Any, **__: Any) -> int:
    """2 FLOPs per multiply-accumulate of every assignment, as if none were dropped."""
    return 4 * weight[0] * up[1] * up[2]


@register_flop_formula(torch.ops.structlin.expert_ffn_backward)
def backward_flops(
    dy: Sequence[int], x: Sequence[int], weight: Sequence[int], up: Sequence[int], *_: Any, **__: Any
) -> int:
    """Two products for each forward one."""
    return 8 * weight[0] * up[1] * up[2]
