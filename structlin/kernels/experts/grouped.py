"""How are rows that are sorted by group multiplied by their group's weights, without the host knowing the groups?

    y[N, out] = x[N, in] weights[g, out, in]^T        rows N of group g, from ends[g - 1] to ends[g]

``structlin::grouped`` and ``structlin::grouped_gradient`` are operators with shapes, gradients and FLOPs, opaque to
torch.compile. What runs:

    torch    bfloat16 on GPUs of compute capability 9 and 10, rows of whole 16-byte words, fewer than 1,024 groups:
             torch's grouped product. Elsewhere it copies the ends to the host, and more groups it refuses
    triton   float32 and bfloat16 on GPUs where Triton serves (grouped_path.py)
    loop     everything else, one group after another; waits once for the device
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from structlin.kernels.backends import backend_of

_DEVICES = ("cpu", "cuda")
_LIBRARY = torch.library.Library("structlin", "FRAGMENT")
_LIBRARY.define("grouped(Tensor x, Tensor weights, Tensor ends) -> Tensor", tags=(torch.Tag.flexible_layout,))
_LIBRARY.define("grouped_gradient(Tensor dy, Tensor x, Tensor ends) -> Tensor", tags=(torch.Tag.flexible_layout,))

ALIGNED_BYTES = 16
# Compute capabilities (major) on which torch multiplies groups without asking the host.
TORCH_CAPABILITIES = (9, 10)
MOST_TORCH_GROUPS = 1023
"""torch's grouped product refuses more; a BTT-MoE of 16 experts has 16 x 32 to 16 x 64 of them at width 1,024."""


def grouped_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """x (N, in), weights (G, out, in), ends (G,) int32 -> (N, out), differentiable in x and the weights.

    Rows beyond the last group are computed by nobody: neither they nor their gradients hold anything of meaning.
    """
    y: Tensor = torch.ops.structlin.grouped.default(x, weights, ends)
    return y


def torch_serves(device: torch.device, dtype: torch.dtype, sizes: Sequence[int], groups: int) -> bool:
    """Whether torch's own grouped product takes rows of these sizes in so many groups and leaves the host alone."""
    if device.type != "cuda" or dtype != torch.bfloat16 or groups > MOST_TORCH_GROUPS:
        return False
    fits = all(size * dtype.itemsize % ALIGNED_BYTES == 0 for size in sizes)
    return fits and torch.cuda.get_device_capability(device)[0] in TORCH_CAPABILITIES


# ---- what runs ------------------------------------------------------------------------------------------------------


@torch.library.impl("structlin::grouped", _DEVICES, lib=_LIBRARY)
def _multiply(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Any strides of the weights, so that the gradient of x is the same product with in and out exchanged."""
    x = x.contiguous()
    if torch_serves(x.device, x.dtype, weights.shape[1:], len(weights)):
        return functional.grouped_mm(x, weights.transpose(1, 2), offs=ends)
    if backend_of(x.device, x.dtype) == "triton":
        from structlin.kernels.experts import grouped_path

        return grouped_path.multiply(x, weights, ends)
    y = x.new_empty(x.shape[0], weights.shape[1])
    for rows, weight in zip(_slices(ends), weights, strict=True):
        torch.mm(x[rows], weight.T, out=y[rows])
    return y


@torch.library.impl("structlin::grouped_gradient", _DEVICES, lib=_LIBRARY)
def _gradient(dy: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """Of the weights (G, out, in)."""
    dy, x = dy.contiguous(), x.contiguous()
    if torch_serves(x.device, x.dtype, (dy.shape[1], x.shape[1]), len(ends)):
        return functional.grouped_mm(dy.T, x, offs=ends)
    if backend_of(x.device, x.dtype) == "triton":
        from structlin.kernels.experts import grouped_path

        return grouped_path.gradient(dy, x, ends)
    return torch.stack([dy[rows].T @ x[rows] for rows in _slices(ends)])


def _slices(ends: Tensor) -> list[slice]:
    """The rows of each group; waits for the device."""
    found = ends.tolist()
    return [slice(begin, end) for begin, end in zip([0, *found[:-1]], found, strict=True)]


# ---- what torch is told ---------------------------------------------------------------------------------------------


@torch.library.register_fake("structlin::grouped", lib=_LIBRARY)
def _shape(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weights.shape[1])


@torch.library.register_fake("structlin::grouped_gradient", lib=_LIBRARY)
def _gradient_shape(dy: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(ends.shape[0], dy.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weights, ends = ctx.saved_tensors
    needs_x, needs_weights, _ = ctx.needs_input_grad
    dx = torch.ops.structlin.grouped.default(dy, weights.transpose(1, 2), ends) if needs_x else None
    return dx, torch.ops.structlin.grouped_gradient.default(dy, x, ends) if needs_weights else None, None


torch.library.register_autograd("structlin::grouped", _differentiate, setup_context=_keep, lib=_LIBRARY)


@register_flop_formula(torch.ops.structlin.grouped)
def _flops(x: Sequence[int], weights: Sequence[int], ends: Sequence[int], *_: Any, **__: Any) -> int:
    """2 FLOPs per multiply-accumulate, for every row."""
    return 2 * x[0] * weights[1] * weights[2]


@register_flop_formula(torch.ops.structlin.grouped_gradient)
def _gradient_flops(dy: Sequence[int], x: Sequence[int], ends: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * x[0] * dy[1] * x[1]
