"""What should the two products give? The three-operand einsum in float64, with gradients, and cases as data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from structlin.kernels.products.layout import ProductSizes

# Sizes that are no multiple of a vector, sharing on either side, one group only, blocks of z, both orders.
CASES = [
    ProductSizes(g=4, b=1, a=4, r=1, f=4, d=1, e=4, a_first=True),
    ProductSizes(g=24, b=1, a=32, r=1, f=32, d=1, e=24, a_first=True),
    ProductSizes(g=3, b=2, a=5, r=2, f=2, d=3, e=7, a_first=True),
    ProductSizes(g=3, b=2, a=5, r=2, f=2, d=3, e=7, a_first=False),
    ProductSizes(g=1, b=8, a=8, r=3, f=1, d=8, e=8, a_first=True),
    ProductSizes(g=1, b=1, a=40, r=6, f=1, d=1, e=36, a_first=True),
    ProductSizes(g=16, b=2, a=9, r=4, f=24, d=1, e=12, a_first=False),
    ProductSizes(g=32, b=1, a=20, r=4, f=24, d=2, e=17, a_first=False),
]

# With GELU: whole vectors, sharing in both orders, blocks of z, and one vector that is cut.
GELU_CASES = [replace(CASES[case], gelu=True) for case in (1, 2, 3, 6, 7)]


def operands(sizes: ProductSizes, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random x, first, second and dy in float32."""
    s = sizes
    torch.manual_seed(rows)
    shapes = ((rows, s.used_in), (s.g, s.r, s.f, s.d, s.a), (s.f, s.e, s.g, s.b, s.r), (rows, s.used_out))
    x, first, second, dy = (torch.randn(shape) for shape in shapes)
    return x, first, second, dy


def expected(sizes: ProductSizes, x: Tensor, first: Tensor, second: Tensor, dy: Tensor) -> tuple[Tensor, ...]:
    """y and the gradients of x, first and second in float64."""
    s = sizes
    leaves = tuple(tensor.detach().double().requires_grad_() for tensor in (x, first, second))
    order = "tgba,grfda,fegbr->tfed" if s.a_first else "tgab,grfda,fegbr->tfde"
    h = functional.gelu(leaves[0]) if s.gelu else leaves[0]
    split = h.view(-1, s.g, s.b, s.a) if s.a_first else h.view(-1, s.g, s.a, s.b)
    y = torch.einsum(order, split, leaves[1], leaves[2]).reshape(x.shape[0], s.used_out)
    return y.detach(), *torch.autograd.grad(y, leaves, dy.double())


def assert_equal(found: tuple[Tensor | None, ...], wanted: tuple[Tensor, ...]) -> None:
    """Equal to float32's rounding of sums: relative to the largest entry of each tensor."""
    for left, right in zip(found, wanted, strict=True):
        assert left is not None
        assert left.shape == right.shape
        assert (left.double() - right).abs().max() <= 3e-6 * right.abs().max()


def named(sizes: ProductSizes) -> str:
    """A short name of a case for pytest."""
    return "-".join(str(value) for value in vars(sizes).values())
