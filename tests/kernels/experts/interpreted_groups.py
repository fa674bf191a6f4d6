"""A process of its own, in which Triton's grouped products run on the CPU: prints what they give, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels.experts import grouped_path
from structlin.kernels.experts import paths as expert_products
from structlin.kernels.experts.grouped import grouped_product
from structlin.nn.experts import Experts
from structlin.nn.linear import LinearOptions
from structlin.nn.moe import MoeLinear
from structlin.nn.router import Router
from structlin.structure import lookup, plan_theta

# rows, in, out, ends: empty groups at every place, several in one block, several blocks in one, rows beyond the last
# group, whole blocks beyond it, no group with rows, one group, an end on the edge of a block.
CASES = [
    (70, 20, 33, [10, 10, 45, 66]),
    (5, 3, 2, [0, 5]),
    (130, 40, 16, [0, 0, 0, 0]),
    (200, 40, 16, [64, 128, 200, 200]),
    (200, 17, 40, [3]),
    (33, 5, 7, [1, 2, 3, 33, 33]),
]


def errors(case: tuple[int, int, int, list[int]], dtype: torch.dtype) -> list[float]:
    """Of y and both gradients over the rows that belong to a group, relative to the largest entry."""
    rows, inner, out, ends = case
    torch.manual_seed(rows)
    x, dy = torch.randn(rows, inner).to(dtype), torch.randn(rows, out).to(dtype)
    # Stored with in and out exchanged, as the weights of a transposed product are.
    weights = torch.randn(len(ends), inner, out).to(dtype).transpose(1, 2)
    leaves = (x.requires_grad_(), weights.requires_grad_())
    y = grouped_product(*leaves, torch.tensor(ends, dtype=torch.int32))
    dx, d_weights = torch.autograd.grad(y, leaves, dy)
    assert y.dtype == dx.dtype == d_weights.dtype == dtype
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    parts = [wide[0][a:b] @ w.T for a, b, w in zip([0, *ends[:-1]], ends, wide[1], strict=True)]
    wanted = torch.cat(parts)
    dx_wanted, d_weights_wanted = torch.autograd.grad(wanted, wide, dy[: ends[-1]].double())
    pairs = ((y[: ends[-1]], wanted), (dx[: ends[-1]], dx_wanted[: ends[-1]]), (d_weights, d_weights_wanted))
    return [relative(found, expected) for found, expected in pairs]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest entry; absolute where all should be zero."""
    if not expected.numel():
        return 0.0
    return float((found.double() - expected).abs().max() / (expected.abs().max() or 1.0))


def layer_errors(name: str, capacity: float) -> list[float]:
    """Of a layer of experts on the grouped path in float32, against the plain path in float64."""
    torch.manual_seed(0)
    experts = Experts(plan_theta(lookup(name), 24, 36), 4, LinearOptions(8))
    layer = MoeLinear(Router(24, 4, 2, base_d_in=8, capacity=capacity), experts)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x, dy = torch.randn(50, 24), torch.randn(50, 36)
    found = []
    for path, dtype in (("grouped", torch.float32), ("plain", torch.float64)):
        expert_products.choose_path = lambda *_, path=path: path
        layer.to(dtype).zero_grad()
        leaf = x.to(dtype).requires_grad_()
        y = layer(leaf)
        found.append((y, *torch.autograd.grad(y, (leaf, *layer.experts.parameters()), dy.to(dtype))))
    return [relative(narrow, wide) for narrow, wide in zip(*found, strict=True)]


def counted(function: Callable[..., Tensor], name: str, launched: list[str]) -> Callable[..., Tensor]:
    """So that a check that passes the kernels by is seen."""

    def launch(*operands: Tensor) -> Tensor:
        launched.append(name)
        return function(*operands)

    return launch


def main() -> None:
    """Every check once."""
    launched: list[str] = []
    for name in ("multiply", "gradient"):
        setattr(grouped_path, name, counted(getattr(grouped_path, name), name, launched))
    answer: dict[str, object] = {}
    for dtype in (torch.float32, torch.bfloat16):
        answer[str(dtype)] = {str(case): errors(case, dtype) for case in CASES}
    answer["launches"] = {name: launched.count(name) for name in ("multiply", "gradient")}
    answer["layers"] = {
        f"{name} {capacity}": layer_errors(name, capacity) for name in ("btt", "g2", "dense") for capacity in (0.0, 0.8)
    }
    x, weights, ends = torch.randn(9, 4), torch.randn(2, 5, 4), torch.tensor([4, 9], dtype=torch.int32)
    with FlopCounterMode(display=False) as counter:
        grouped_product(x.requires_grad_(), weights.requires_grad_(), ends).sum().backward()
    answer["flops"] = counter.get_total_flops()
    answer["no rows"] = list(grouped_path.multiply(x.detach()[:0], weights, ends).shape)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
