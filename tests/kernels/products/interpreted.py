"""A process of its own, in which Triton's kernels run on the CPU: prints what they give, as JSON."""

from __future__ import annotations

import json

import torch
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels.backends import backend_name
from structlin.kernels.products import op, triton_path
from structlin.kernels.products.face import structured_product
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.torch_path import tokens_last
from structlin.nn.linear import LinearOptions, make_linear
from structlin.structure import lookup, plan_theta
from tests.kernels.products.reference import expected, named, operands

# Odd sizes, shared on either side, in both orders; ranks that fill a block, leave some of it or need two; several
# blocks of groups; an inner size of more than one block; GELU of what is read.
CASES = [
    ProductSizes(g=5, b=1, a=7, r=1, f=6, d=1, e=9, a_first=True),
    ProductSizes(g=3, b=2, a=5, r=4, f=2, d=3, e=7, a_first=True),
    ProductSizes(g=3, b=2, a=5, r=4, f=2, d=3, e=7, a_first=False),
    ProductSizes(g=2, b=1, a=3, r=17, f=3, d=1, e=5, a_first=True),
    ProductSizes(g=17, b=1, a=3, r=1, f=18, d=1, e=2, a_first=True),
    ProductSizes(g=1, b=5, a=35, r=3, f=1, d=2, e=33, a_first=False),
    ProductSizes(g=3, b=2, a=5, r=4, f=2, d=3, e=7, a_first=True, gelu=True),
]
KERNELS = ("_ruled_map", "_ruled_gradients", "_ruled_whole")
THETAS = ("btt", "g2", "tt3", "btt7")
ROWS = 19


def errors(function, sizes: ProductSizes, dtype: torch.dtype) -> list[float]:
    """Of y and the gradients, each relative to the largest entry of the reference."""
    *inputs, dy = (tensor.to(dtype) for tensor in operands(sizes, ROWS))
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = function(*leaves, sizes.a_first, sizes.gelu)
    found = (y, *torch.autograd.grad(y, leaves, dy))
    wanted = expected(sizes, *inputs, dy)
    assert all(left.shape == right.shape and left.dtype == dtype for left, right in zip(found, wanted, strict=True))
    return [((f.double() - w).abs().max() / w.abs().max()).item() for f, w in zip(found, wanted, strict=True)]


def layer_errors(name: str) -> list[float]:
    """Of a layer of this theta at width 64, against the matrix that its factors make."""
    torch.manual_seed(0)
    layer = make_linear(plan_theta(lookup(name), 64, 64), LinearOptions(64))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x, dy = torch.randn(ROWS, 64, requires_grad=True), torch.randn(ROWS, 64)
    y = layer(x)
    (dx,) = torch.autograd.grad(y, x, dy)
    A, B = (factor.detach().double() for factor in layer.equation_factors())
    W = torch.einsum("fdrga,ferbg->fedgba", A, B.transpose(-1, -2)).reshape(64, 64)
    pairs = ((y, x.double() @ W.T), (dx, dy.double() @ W))
    return [((found.double() - wanted).abs().max() / wanted.abs().max()).item() for found, wanted in pairs]


def flops(function, sizes: ProductSizes, needs: tuple[bool, bool]) -> int:
    """Counted over forward and backward, where x and the factors need gradients or do not."""
    *inputs, dy = operands(sizes, 3)
    leaves = [t.requires_grad_(need) for t, need in zip(inputs, (needs[0], needs[1], needs[1]), strict=True)]
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(function(*leaves, sizes.a_first), dy)
    return counter.get_total_flops()


def main() -> None:
    """Every check once; the kernels are counted, so that a check that passes them by is seen."""
    launched = []
    for name in KERNELS:
        kernel = getattr(triton_path, name)
        setattr(triton_path, name, _Counted(kernel, name, launched))
    answer = {"backend": backend_name(torch.device("cpu"), torch.bfloat16)}
    for dtype in (torch.float32, torch.bfloat16):
        answer[str(dtype)] = {named(sizes): errors(op.products, sizes, dtype) for sizes in CASES}
    answer["launches"] = {name: launched.count(name) for name in KERNELS}
    answer["thetas"] = {name: layer_errors(name) for name in THETAS}
    sizes = CASES[1]
    answer["flops"] = [
        [flops(function, sizes, needs) for function in (op.products, tokens_last)]
        for needs in ((True, True), (True, False), (False, True))
    ]
    wide = ProductSizes(g=8, b=1, a=8, r=1, f=8, d=1, e=8, a_first=True)
    compiled = torch.compile(structured_product, fullgraph=True, backend="aot_eager")
    answer["compiled"] = errors(compiled, wide, torch.float32)
    before = len(launched)
    x, first, second, _ = operands(wide, 4)
    answer["no rows"] = list(op.products(x[:0], first, second, True).shape)
    wide_inner = ProductSizes(g=2, b=1, a=150, r=1, f=2, d=1, e=3, a_first=True)
    answer["not fused"] = errors(op.products, wide_inner, torch.float32)
    answer["launches not fused"] = len(launched) - before
    print(json.dumps(answer))


class _Counted:
    def __init__(self, kernel, name, launched) -> None:
        self._kernel, self._name, self._launched = kernel, name, launched

    def __getitem__(self, grid):
        self._launched.append(self._name)
        return self._kernel[grid]


if __name__ == "__main__":
    main()
