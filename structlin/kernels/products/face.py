"""Which code computes the two products of a structured layer? A backend chosen by device and dtype (backends.py).

triton  on GPUs: both products in one kernel, what lies between in registers; layers that no kernel fuses are two plain
        products, and small ones of higher rank one dense product (gpu_form)
cpp     on CPUs with g++: fused tiles, built at first use
torch   everything else: two batched products with the rows last (or first, where a factor is shared), or a dense one
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from structlin.kernels.backends import DTYPES, backend_name, backend_of
from structlin.kernels.limits import FUSED_LEAST_WIDTH, gpu_form
from structlin.kernels.precision import product_dtype
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.op import products
from structlin.kernels.products.plain import as_dense, two_products
from structlin.kernels.products.shared_factors import is_faster, rows_first
from structlin.kernels.products.torch_path import tokens_last

__all__ = ["backend_name", "structured_product"]

FEW_ROWS = 32
"""Up to here an operator's call costs more than its arithmetic (measured: bench/decode.py, docs/lab-book.md)."""
FEW_GROUPS = 4
"""Up to here the products of few rows are faster with the rows first (measured: bench/decode.py)."""
# Tensors that the operators take; others go the plain way.
_DEVICES = ("cpu", "cuda")


def structured_product(x: Tensor, first: Tensor, second: Tensor, a_first: bool, gelu: bool = False) -> Tensor:
    """x (T, used_in) -> (T, used_out), differentiable; first (g, r, f, d, a), second (f, e, g, b, r).

    ``gelu``: the product is that of GELU(x). Where a fused kernel serves it keeps x alone, and makes the rest again.

    x is (T, g, b, a) and the result (T, f, e, d) in memory; where B is contracted first (``a_first`` false), a and b,
    and d and e, have exchanged their roles, so that they are (T, g, a, b) and (T, f, d, e). Under autocast the operands
    take its dtype, as those of every product do.
    """
    dtype = product_dtype(x.device)
    if dtype is not None:
        x, first, second = x.to(dtype), first.to(dtype), second.to(dtype)
    alike = all(tensor.device == x.device and tensor.dtype == x.dtype for tensor in (first, second))
    sizes = ProductSizes.of(first.shape, second.shape, a_first)
    narrow = min(sizes.used_in, sizes.used_out) < FUSED_LEAST_WIDTH
    # Reading a text token by token. Training and its evaluations never run so, and keep their bits.
    if not torch.compiler.is_compiling() and x.shape[0] <= FEW_ROWS and torch.is_inference_mode_enabled():
        return _few_rows(functional.gelu(x) if gelu else x, first, second, sizes)
    # torch.func (grad, vmap, ...) takes no operators with gradients of their own.
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    if narrow or transformed or not alike or x.device.type not in _DEVICES or x.dtype not in DTYPES:
        return tokens_last(functional.gelu(x) if gelu else x, first, second, a_first)
    if x.device.type == "cuda":
        form = gpu_form(sizes)
        if form != "fused":
            x = functional.gelu(x) if gelu else x
            return as_dense(x, first, second, sizes) if form == "dense" else two_products(x, first, second, sizes)
    # A compiled graph keeps to the operators, whatever serves them.
    if not torch.compiler.is_compiling() and backend_of(x.device, x.dtype) == "torch":
        x, gelu = functional.gelu(x) if gelu else x, False
        if x.device.type == "cpu" and x.dtype == torch.float32 and is_faster(sizes):
            return rows_first(x, first, second, a_first)
    return products(x, first, second, a_first, gelu)


def _few_rows(x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor:
    """The two products alone, with the rows first where they are a few large ones: at two rows in half the time."""
    if max(sizes.g, sizes.f) <= FEW_GROUPS:
        return two_products(x, first, second, sizes)
    return tokens_last(x, first, second, sizes.a_first)
