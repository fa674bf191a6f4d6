"""How do narrow dense experts of a mixed FFN run on one thread? By the C++ of whole steps, GELU and all.

Products of some hundred rows of few features are where torch's are slow, and its GELU takes as long as they do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from structlin.kernels.steps.library import Library, address, library
from structlin.kernels.steps.places import NARROW

LANES = 16
"""Features come in whole vectors of the widest processors."""


def functions_for(x: Tensor, weight: Tensor, up: Tensor) -> Library | None:
    """What computes experts of these tensors; None where torch does."""
    if {x.dtype, weight.dtype, up.dtype} != {torch.float32} or torch.get_num_threads() > 1:
        return None
    hidden, width = up.shape[1:]
    return library(torch.float32) if width <= NARROW and width % LANES == 0 and hidden % LANES == 0 else None


def forward(
    functions: Library, x: Tensor, weight: Tensor, up: Tensor, down: Tensor, token: Tensor, ends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (T, X), and u (N, H) and y (N, X) of every assignment, of contiguous x, up and down."""
    inner, rows = x.new_empty(token.shape[0], up.shape[1]), x.new_empty(token.shape[0], x.shape[1])
    y = torch.zeros_like(x)
    sizes, space = _sizes(functions, up)
    routed = [address(one) for one in (token.contiguous(), ends.int().contiguous(), weight.contiguous())]
    functions.expert_ffn(*sizes, *routed, *map(address, (x, up, down, y, inner, rows, space)))
    return y, inner, rows


def backward(
    functions: Library,
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
    found = tuple(torch.zeros_like(one) for one in (x, weight, up, down))
    sizes, space = _sizes(functions, up)
    routed = [address(one) for one in (token.contiguous(), ends.int().contiguous(), weight.contiguous())]
    functions.expert_ffn_backward(
        *sizes, *routed, *map(address, (x, up, down, inner, rows, dy)), *map(address, found), address(space)
    )
    dx, d_weight, d_up, d_down = found
    return dx, d_weight, d_up, d_down


def _sizes(functions: Library, up: Tensor) -> tuple[tuple[int, int, int], Tensor]:
    experts, hidden, width = up.shape
    return (experts, width, hidden), up.new_empty(int(functions.expert_ffn_space(width, hidden)))
