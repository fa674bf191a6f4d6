"""How does a layer run on a GPU that no kernel fuses? As two plain products, or as one of the matrix they make.

    z[g, (T b), (r f d)] = x[g, (T b), a]  first[g, (r f d), a]^T       batched over g
    y[f, (T d), e]       = z[f, (T d), (g b r)]  second[f, e, (g b r)]^T   batched over f

Both are torch's own operations: a compiled graph fuses the permutation between them with what stands around. Rows come
first, as they lie in x and y, so that nothing is transposed: with one group on either side z is read as it was written.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.torch_path import dense_matrix


def two_products(x: Tensor, first: Tensor, second: Tensor, s: ProductSizes) -> Tensor:
    """x (T, used_in) -> (T, used_out), differentiable; first (g, r, f, d, a), second (f, e, g, b, r)."""
    rows = x.shape[0]
    if s.a_first:
        x_gTba = x.view(rows, s.g, s.b, s.a).transpose(0, 1)
    else:
        x_gTba = x.view(rows, s.g, s.a, s.b).permute(1, 0, 3, 2)
    z_gNZ = _multiply(x_gTba.reshape(s.g, rows * s.b, s.a), first.reshape(s.g, -1, s.a))
    z_fTdgbr = z_gNZ.view(s.g, rows, s.b, s.r, s.f, s.d).permute(4, 1, 5, 0, 2, 3)
    y_fMe = _multiply(z_fTdgbr.reshape(s.f, rows * s.d, -1), second.reshape(s.f, s.e, -1))
    y_fTde = y_fMe.view(s.f, rows, s.d, s.e)
    y = y_fTde.permute(1, 0, 3, 2) if s.a_first else y_fTde.transpose(0, 1)
    return y.reshape(rows, s.used_out)


def _multiply(rows: Tensor, weights: Tensor) -> Tensor:
    """(B, N, in), (B, out, in) -> (B, N, out)."""
    if rows.shape[0] == 1:
        return functional.linear(rows[0], weights[0])[None]
    return torch.bmm(rows, weights.mT)


def as_dense(x: Tensor, first: Tensor, second: Tensor, s: ProductSizes) -> Tensor:
    """The same by the matrix of both factors."""
    return functional.linear(x, dense_matrix(first, second, s))
