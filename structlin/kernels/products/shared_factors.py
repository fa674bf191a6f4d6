"""How do layers whose factors are shared run without a compiler? Rows first, and what lies between is kept.

    z[(T b), (r f d)] = x[(T b), a]  A[a, (r f d)]       batched over g
    y[(T d), e]       = z[(T d), (g b r)]  B[(g b r), e]  batched over f

A factor shared over b or d makes many rows of few: with rows last (torch_path.py) each product is many small ones, and
making z again in the backward pass costs more than keeping it. Where there is one group only, the second product is one
of B with the z of each row, and neither z nor y is permuted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from structlin.kernels.products import torch_path
from structlin.kernels.products.layout import ProductSizes

# Columns of z from which a product per row is faster than a permutation (measured: 8 lose, 16 win).
LEAST_COLUMNS = 16


def is_faster(sizes: ProductSizes) -> bool:
    """Whether this form is the fastest in plain torch on a CPU (measured, docs/lab-book.md)."""
    shared = sizes.b > 1 or sizes.d > 1
    return shared and not torch_path.densifies(sizes)


def rows_first(x: Tensor, first: Tensor, second: Tensor, a_first: bool) -> Tensor:
    """x (T, used_in) -> (T, used_out), differentiable; first (g, r, f, d, a), second (f, e, g, b, r)."""
    s = ProductSizes.of(first.shape, second.shape, a_first)
    if s.g == s.f == 1 and s.a_first and s.d >= LEAST_COLUMNS:
        y: Tensor = _OneGroup.apply(x, first.reshape(-1, s.a), second.reshape(s.e, -1), s)
        return y
    return _permuted(x, first, second, s)


def _permuted(x: Tensor, first: Tensor, second: Tensor, s: ProductSizes) -> Tensor:
    rows = x.shape[0]
    if s.a_first:
        x_gTba = x.reshape(rows, s.g, s.b, s.a).transpose(0, 1)
    else:
        x_gTba = x.reshape(rows, s.g, s.a, s.b).permute(1, 0, 3, 2)
    z_gNZ = torch.bmm(x_gTba.reshape(s.g, -1, s.a), first.reshape(s.g, -1, s.a).mT)
    z_fTdgbr = z_gNZ.view(s.g, rows, s.b, s.r, s.f, s.d).permute(4, 1, 5, 0, 2, 3)
    y_fMe = torch.bmm(z_fTdgbr.reshape(s.f, rows * s.d, -1), second.reshape(s.f, s.e, -1).mT)
    y_fTde = y_fMe.view(s.f, rows, s.d, s.e)
    y = y_fTde.permute(1, 0, 3, 2) if s.a_first else y_fTde.transpose(0, 1)
    return y.reshape(rows, s.used_out)


class _OneGroup(torch.autograd.Function):
    """g = f = 1: z (T, (b r), d) and y (T, e, d) are products of x (T b, a), and per row, without a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first_Za: Tensor, second_eK: Tensor, s: ProductSizes) -> Tensor:
        """x (T, used_in) -> (T, used_out)."""
        rows = x.shape[0]
        z_TKd = (x.reshape(-1, s.a) @ first_Za.T).view(rows, -1, s.d)
        ctx.save_for_backward(x, first_Za, second_eK, z_TKd)
        ctx.sizes = s
        return torch.bmm(second_eK.expand(rows, -1, -1), z_TKd).view(rows, s.used_out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Only the gradient of the second factor permutes: its sum runs over rows and d."""
        x, first_Za, second_eK, z_TKd = ctx.saved_tensors
        s, rows = ctx.sizes, x.shape[0]
        dy_Ted = gradients[0].reshape(rows, s.e, s.d)
        dx = d_first = d_second = None
        if ctx.needs_input_grad[2]:
            z_KN = z_TKd.transpose(0, 1).reshape(s.b * s.r, -1)
            d_second = dy_Ted.transpose(0, 1).reshape(s.e, -1) @ z_KN.T
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            # A product per row, as in the forward pass: dz comes out as x lies, and is not permuted.
            dz_NZ = torch.bmm(second_eK.T.expand(rows, -1, -1), dy_Ted).view(-1, s.r * s.d)
            dx = (dz_NZ @ first_Za).view(x.shape) if ctx.needs_input_grad[0] else None
            d_first = dz_NZ.T @ x.reshape(-1, s.a) if ctx.needs_input_grad[1] else None
        return dx, d_first, d_second, None
