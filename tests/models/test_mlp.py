"""The student of the regression: what the ledger counts is what is there, and it starts by saying nothing."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.ledger import ledger
from structlin.config.model import MlpConfig
from structlin.config.optim import OptimConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.models.mlp import build_mlp
from structlin.nn.linear import DenseLinear, EinsumLinear
from structlin.nn.spec import collect_specs
from structlin.structure import CATALOG, theta_of

ROWS = 16


def science_of(name: str, d_model: int = 32, **model: object) -> Science:
    return Science(
        structure=StructureConfig(str(theta_of(name))),
        model=MlpConfig(**{"d_model": d_model, "num_layers": 2, "base_width": 16, "base_ffn_expansion": 4, **model}),
        data=DataRecipe("teacher"),
        optim=OptimConfig(batch_tokens=ROWS),
        task="regression",
    )


def awake(science: Science) -> torch.nn.Module:
    """The model with no factor at zero, so that every path carries a signal."""
    model = build_mlp(science)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize("norm", ["none", "learned"])
@pytest.mark.parametrize("name", sorted(CATALOG))
def test_the_ledger_counts_the_model(name: str, norm: str) -> None:
    science = science_of(name, weight_norm=norm)
    model, costs = build_mlp(science), ledger(science)
    assert costs.params_total == sum(parameter.numel() for parameter in model.parameters())
    assert (costs.params["embedding"], costs.macs["attention"]) == (0, 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.to("meta")(torch.empty(ROWS, 8, device="meta"))
    assert counter.get_total_flops() == 2 * costs.macs_per_token * ROWS
    assert costs.macs_by_linear["input"] == 8 * 32
    assert costs.macs["head"] == 32


def test_a_dense_student_costs_what_one_computes_by_hand() -> None:
    width, depth = 32, 2
    assert ledger(science_of("dense")).macs_per_token == 8 * width + depth * 2 * width * 4 * width + width


@pytest.mark.parametrize("name", ["dense", "btt", "tt1", "l2", "g1"])
def test_it_first_says_nothing_and_every_weight_soon_learns(name: str) -> None:
    model = build_mlp(science_of(name))
    x = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(0))
    assert not model(x).any()
    awakened = awake(science_of(name))
    awakened(x).square().mean().backward()
    for parameter_name, parameter in awakened.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any(), parameter_name


def test_only_the_inner_layers_take_the_structure() -> None:
    model = build_mlp(science_of("btt"))
    kinds = {
        name: type(module) for name, module in model.named_modules() if isinstance(module, DenseLinear | EinsumLinear)
    }
    assert {name for name, kind in kinds.items() if kind is DenseLinear} == {"input", "head"}
    assert {name for name, kind in kinds.items() if kind is EinsumLinear} == {
        f"blocks.{layer}.{part}" for layer in range(2) for part in ("up", "down")
    }


def test_the_output_is_that_of_the_formula() -> None:
    science = science_of("dense", num_layers=3)
    model = awake(science)
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    weights = dict(model.named_parameters())

    def norm(h: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        centred = h - h.mean(-1, keepdim=True)
        return gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    h = x @ weights["input.weight"].T
    for layer in range(3):
        block = f"blocks.{layer}"
        inner = norm(h, weights[f"{block}.norm.gain"]) @ weights[f"{block}.up.weight"].T
        gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        h = h + gelu @ weights[f"{block}.down.weight"].T
    expected = norm(h, weights["norm.gain"]) @ weights["head.weight"].T
    assert torch.allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["dense", "btt", "g1"])
def test_the_ledger_counts_the_published_student(name: str) -> None:
    science = science_of(name, outer_norm="input", biases=("*",))
    model, costs = build_mlp(science), ledger(science)
    assert costs.params_total == sum(parameter.numel() for parameter in model.parameters())
    assert costs.params["head"] == 32 + 1
    assert costs.params["norm"] == 2 * 32 * (1 + 2)
    assert costs.macs_per_token == ledger(science_of(name)).macs_per_token
    assert {name for name, _ in model.named_parameters() if name.startswith(("norm", "input_norm"))} == {
        "input_norm.gain", "input_norm.bias"
    }  # fmt: skip
    assert not model(torch.randn(ROWS, 8)).any()


def test_rates_follow_the_base_shape() -> None:
    """At the base width a dense student learns at lr0 everywhere; at twice the width its inner layers at half."""
    for width, factor in ((16, 1.0), (32, 0.5)):
        specs = collect_specs(build_mlp(science_of("dense", width)))
        rates = {name: spec.rate for name, spec in specs.items()}
        assert rates["input.weight"] == 1.0
        assert rates["norm.gain"] == 1.0
        for name in ("blocks.0.up.weight", "blocks.1.down.weight", "head.weight"):
            assert rates[name] == factor


def test_float64_is_float64() -> None:
    assert {p.dtype for p in build_mlp(science_of("btt", dtype="float64")).parameters()} == {torch.float64}
