"""What we are compared with computes the same as we do."""

import pytest
import torch

from bench import moe, step
from bench.layer import sizes_of, variants_of
from bench.plain_gpt import PublishedLinear
from structlin.nn.experts import Experts
from structlin.nn.linear import EinsumLinear, LinearOptions
from structlin.nn.moe import MoeLinear
from structlin.nn.spec import initialise
from structlin.structure import lookup, plan_theta

ROWS = 24


@pytest.mark.parametrize("name", ["btt", "g2", "tt3", "low_rank"])
def test_the_published_formulation_of_a_layer(name: str) -> None:
    plan = plan_theta(lookup(name), 48, 30)
    layer = EinsumLinear(plan, LinearOptions(48)).double()
    initialise(layer, 0)
    plain = PublishedLinear(plan.sizes).double()
    with torch.no_grad():
        A_fdrga, B_fergb = layer.equation_factors()
        plain.A.copy_(A_fdrga.permute(3, 4, 2, 0, 1))
        plain.B.copy_(B_fergb.permute(0, 3, 4, 2, 1))
    x = torch.randn(ROWS, 48, dtype=torch.float64)
    assert torch.allclose(plain(x), layer(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("formulation", [moe.published_mixture, moe.masked])
def test_computing_every_expert(formulation) -> None:
    plan = plan_theta(lookup("btt"), 64, 64)
    layer = MoeLinear(moe._router(64, 4), Experts(plan, 4, LinearOptions(64))).double()
    moe._start(layer)
    x = torch.randn(ROWS, 64, dtype=torch.float64)
    assert torch.allclose(formulation(layer, x), layer(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in step.CASES if case["d"] == 256], ids=lambda case: case["kind"])
def test_both_steps_of_a_case_train(case) -> None:
    """At a width whose kernels other tests build too."""
    for run in step.variants_of({**case, "tokens": 128, "d": 64}).values():
        run()


def test_a_layer_of_every_case_can_be_measured() -> None:
    variants = variants_of({"structure": "btt", "rank": 4, "d": 64, "tokens": ROWS})
    assert {"dense", "published", "torch", "peak"} <= set(variants)
    assert sizes_of({"structure": "btt", "rank": 4, "d": 64}).r == 4
    for run in variants.values():
        run()
