"""What does torch see of the kernels? Two custom operators with shapes, gradients and FLOPs, opaque to torch.compile.

``structlin::products`` and ``structlin::products_backward`` take tensors of CPUs and of CUDA GPUs and run them on the
backend of their device and dtype. Their FLOPs depend on shapes alone and are those of the plain pair of products,
whatever runs: neither the z (and GELU) made again in the backward pass nor the work of a dense product in the pair's
stead is counted. They are defined by schema rather than by ``torch.library.custom_op``, whose wrapper imports
torch._dynamo (a second) at the first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from structlin.kernels.backends import backend_of
from structlin.kernels.products import cpp, torch_path
from structlin.kernels.products.layout import ProductSizes

_LIBRARY = torch.library.Library("structlin", "DEF")
_LIBRARY.define("products(Tensor x, Tensor first, Tensor second, bool a_first, bool gelu=False) -> Tensor")
_LIBRARY.define(
    "products_backward(Tensor dy, Tensor x, Tensor first, Tensor second, bool a_first, bool needs_x, "
    "bool needs_factors, bool gelu=False) -> (Tensor, Tensor, Tensor)"
)


_DEVICES = ("cpu", "cuda")


class _Path(Protocol):
    """What every backend offers; tensors are contiguous, and a gradient that is not needed is None."""

    def forward(self, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor: ...

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        first: Tensor,
        second: Tensor,
        sizes: ProductSizes,
        needs_x: bool,
        needs_factors: bool,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]: ...


def products(x: Tensor, first: Tensor, second: Tensor, a_first: bool, gelu: bool = False) -> Tensor:
    """The operator: x (T, used_in), or GELU(x), -> (T, used_out), differentiable as often as one likes."""
    y: Tensor = torch.ops.structlin.products.default(x, first, second, a_first, gelu)
    return y


@torch.library.impl("structlin::products", _DEVICES, lib=_LIBRARY)
def _products(x: Tensor, first: Tensor, second: Tensor, a_first: bool, gelu: bool = False) -> Tensor:
    """x (T, used_in) -> (T, used_out); first (g, r, f, d, a), second (f, e, g, b, r)."""
    sizes = ProductSizes.of(first.shape, second.shape, a_first, gelu)
    x, first, second = x.contiguous(), first.contiguous(), second.contiguous()
    path = _path(x, sizes)
    return path.forward(_read(x, sizes, path), first, second, sizes)


@torch.library.impl("structlin::products_backward", _DEVICES, lib=_LIBRARY)
def _products_backward(
    dy: Tensor,
    x: Tensor,
    first: Tensor,
    second: Tensor,
    a_first: bool,
    needs_x: bool,
    needs_factors: bool,
    gelu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, first and second; one that is not needed is empty."""
    sizes = ProductSizes.of(first.shape, second.shape, a_first, gelu)
    dy, x, first, second = dy.contiguous(), x.contiguous(), first.contiguous(), second.contiguous()
    path = _path(x, sizes)
    read = _read(x, sizes, path)
    found = path.backward(dy, read, first, second, sizes, needs_x, needs_factors)
    dx, d_first, d_second = (x.new_empty(0) if gradient is None else gradient for gradient in found)
    if needs_x and read is not x:
        # In its place: a hidden layer's gradient is the largest tensor of a step.
        torch.ops.aten.gelu_backward.grad_input(dx, x, grad_input=dx)
    return dx, d_first, d_second


def _path(x: Tensor, sizes: ProductSizes) -> _Path:
    """The code of these tensors; Triton is imported where it serves."""
    backend = backend_of(x.device, x.dtype)
    if backend == "cpp" and cpp.serves(sizes, x.dtype):
        return cpp
    path: _Path = torch_path
    if backend == "triton":
        from structlin.kernels.products import triton_path

        path = triton_path if triton_path.fuses(sizes) else torch_path
    return path


def _read(x: Tensor, sizes: ProductSizes, path: _Path) -> Tensor:
    """What the path multiplies: x, or its GELU where the path knows none."""
    return functional.gelu(x) if sizes.gelu and path is not cpp else x


@torch.library.register_fake("structlin::products", lib=_LIBRARY)
def _products_shape(x: Tensor, first: Tensor, second: Tensor, a_first: bool, gelu: bool = False) -> Tensor:
    sizes = ProductSizes.of(first.shape, second.shape, a_first)
    return x.new_empty(x.shape[0], sizes.used_out)


@torch.library.register_fake("structlin::products_backward", lib=_LIBRARY)
def _products_backward_shapes(
    dy: Tensor,
    x: Tensor,
    first: Tensor,
    second: Tensor,
    a_first: bool,
    needs_x: bool,
    needs_factors: bool,
    gelu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    d_first = first.new_empty(first.shape if needs_factors else (0,))
    d_second = second.new_empty(second.shape if needs_factors else (0,))
    return x.new_empty(x.shape if needs_x else (0,)), d_first, d_second


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool, bool], output: Tensor) -> None:
    x, first, second, ctx.a_first, ctx.gelu = inputs
    ctx.save_for_backward(x, first, second)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    if torch.is_grad_enabled():
        return _differentiable(ctx, dy)
    needs_x = ctx.needs_input_grad[0]
    needs_factors = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    dx, d_first, d_second = torch.ops.structlin.products_backward.default(
        dy, *ctx.saved_tensors, ctx.a_first, needs_x, needs_factors, ctx.gelu
    )
    return (
        dx if needs_x else None,
        d_first if ctx.needs_input_grad[1] else None,
        d_second if ctx.needs_input_grad[2] else None,
        None,
        None,
    )


def _differentiable(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    """The gradients with a graph of their own (create_graph=True), which the fused kernels do not leave.

    Taken of aliases: what one operand may owe to another is not theirs to count.
    """
    x, first, second = (tensor.view_as(tensor) for tensor in ctx.saved_tensors)
    y = torch_path.tokens_last(functional.gelu(x) if ctx.gelu else x, first, second, ctx.a_first)
    needs = ctx.needs_input_grad[:3]
    wanted = [tensor for tensor, is_needed in zip((x, first, second), needs, strict=True) if is_needed]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    dx, d_first, d_second = (next(found) if is_needed else None for is_needed in needs)
    return dx, d_first, d_second, None, None


torch.library.register_autograd("structlin::products", _differentiate, setup_context=_keep, lib=_LIBRARY)


@register_flop_formula(torch.ops.structlin.products)
def forward_flops(
    x: Sequence[int], first: Sequence[int], second: Sequence[int], a_first: bool, *_: Any, **__: Any
) -> int:
    """2 FLOPs per multiply-accumulate of both products."""
    return 2 * x[0] * ProductSizes.of(first, second, a_first).macs


@register_flop_formula(torch.ops.structlin.products_backward)
def backward_flops(
    dy: Sequence[int],
    x: Sequence[int],
    first: Sequence[int],
    second: Sequence[int],
    a_first: bool,
    needs_x: bool,
    needs_factors: bool,
    *_: Any,
    **__: Any,
) -> int:
    """Two products for each forward one: towards the left operand and towards the weight, less what is not needed."""
    s = ProductSizes.of(first, second, a_first)
    macs_second = s.used_out * s.g * s.b * s.r
    towards_input = macs_second + (s.macs - macs_second if needs_x else 0)
    return 2 * x[0] * (towards_input + (s.macs if needs_factors else 0))


def recomputed_flops(rows: int, sizes: ProductSizes, backend: str) -> int:
    """FLOPs that the backward pass spends on making again what it had; no useful work, so in no count above.

    z on every backend, and on triton its gradient too, which each of the two kernels makes for itself.
    """
    of_z = sizes.used_in * sizes.r * sizes.f * sizes.d
    return 2 * rows * (sizes.macs if backend == "triton" else of_z)
