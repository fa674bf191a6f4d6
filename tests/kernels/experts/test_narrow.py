"""Narrow dense experts in C++ are torch's in float64: sums, what is kept, and gradients, with rows that none has."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlin.kernels.experts import ffn, narrow

pytestmark = pytest.mark.usefixtures("one_thread")


def operands(width: int, hidden: int) -> tuple[Tensor, ...]:
    """100 tokens of four experts: more rows than go together, none at all, and ten dropped at the end."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"x": (100, width), "weight": (200,), "up": (4, hidden, width), "down": (4, width, hidden)}
    x, weight, up, down = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes.values())
    token = torch.randperm(200, generator=draw) % 100
    return x, weight, up / width**0.5, down / hidden**0.5, token, torch.tensor([70, 70, 150, 190], dtype=torch.int32)


@pytest.mark.parametrize(("width", "hidden"), [(32, 64), (48, 16)])
def test_sums_and_gradients_are_those_of_float64(width: int, hidden: int) -> None:
    exact = operands(width, hidden)
    single = tuple(one.float() if one.is_floating_point() else one for one in exact)
    assert narrow.functions_for(single[0], single[1], single[2]) is not None
    assert narrow.functions_for(exact[0], exact[1], exact[2]) is None
    expected, found = ffn.ffn_forward(*exact), ffn.ffn_forward(*single)
    for one, other in zip(expected, found, strict=True):
        kept = slice(None) if one is expected[0] else slice(0, 190)
        torch.testing.assert_close(other[kept].double(), one[kept], rtol=1e-5, atol=1e-5)
    dy = exact[0].flip(0)
    gradients = zip(
        ffn.ffn_backward(dy, *exact, *expected[1:]), ffn.ffn_backward(dy.float(), *single, *found[1:]), strict=True
    )
    for one, other in gradients:
        torch.testing.assert_close(other.double()[:190], one[:190], rtol=1e-4, atol=3e-5)


def test_torch_has_wide_and_ragged_experts() -> None:
    for width, hidden in ((256, 64), (24, 64), (32, 40)):
        x, up = torch.zeros(4, width), torch.zeros(2, hidden, width)
        assert narrow.functions_for(x, torch.zeros(8), up) is None
