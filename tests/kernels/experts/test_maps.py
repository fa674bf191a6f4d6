"""Narrow experts of a linear map in C++ are torch's in float64: rows, sums and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlin.kernels.experts.chunks import experts_backward, experts_forward
from structlin.kernels.experts.maps import maps_for
from structlin.nn.linear import product_shapes
from structlin.structure import factorise, lookup, plan_linear

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS, EXPERTS, KEPT = 100, 4, 190
STRUCTURES = ("btt", "btt11", "low_rank", "kronecker", "g1", "dense")


def operands(structure: str, d_in: int, d_out: int, *, gathers: bool) -> tuple[list[Tensor], bool]:
    """x, weights, factors, tokens and ends: more rows than go together, none at all, and ten dropped at the end."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64) / shape[-1] ** 0.5

    plan = plan_linear(factorise(lookup(structure), d_in, d_out))
    if plan.dense:
        factors = [normal(EXPERTS, d_out, d_in), torch.empty(0, dtype=torch.float64)]
    else:
        first, second = product_shapes(plan) if plan.a_first else product_shapes(plan)[::-1]
        factors = [normal(EXPERTS, *first), normal(EXPERTS, *second)]
    token = torch.randperm(2 * TOKENS, generator=draw) % TOKENS
    ends = torch.tensor([70, 70, 150, KEPT], dtype=torch.int32)
    return [normal(TOKENS if gathers else 2 * TOKENS, d_in), normal(2 * TOKENS), *factors, token, ends], plan.a_first


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("gathers", "combines"), [(True, True), (True, False), (False, True)])
def test_rows_and_gradients_are_those_of_float64(structure: str, gathers: bool, combines: bool) -> None:
    exact, a_first = operands(structure, 32, 48, gathers=gathers)
    single = [one.float() if one.is_floating_point() else one for one in exact]
    assert maps_for(*single[:4], a_first) is not None
    assert maps_for(*exact[:4], a_first) is None
    rows = TOKENS if combines else 2 * TOKENS
    y, expected = (experts_forward(*of, a_first, rows, gathers, combines) for of in (single, exact))
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    dy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = experts_backward(dy.float(), *single, a_first, gathers, combines)
    for one, other in zip(found, experts_backward(dy, *exact, a_first, gathers, combines), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=3e-5)


def test_wide_experts_are_not_served() -> None:
    assert maps_for(torch.zeros(4, 256), torch.zeros(8), torch.zeros(2, 256, 256), torch.empty(0), True) is None
