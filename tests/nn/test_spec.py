"""Parameter specs: each parameter has one, the first draw follows it, and depends on the seed and the name alone."""

import pytest
import torch
from torch import nn

from structlin.nn.linear import LinearOptions, make_linear
from structlin.nn.spec import Module, ParamSpec, collect_specs, initialise
from structlin.structure import CATALOG, lookup, plan_theta

NAMES = sorted(CATALOG)


@pytest.mark.parametrize("weight_norm", ["none", "fixed", "learned"])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_one_spec(name: str, weight_norm: str) -> None:
    layer = make_linear(plan_theta(lookup(name), 16, 32), LinearOptions(16, weight_norm=weight_norm))
    specs = collect_specs(layer)
    assert specs.keys() == dict(layer.named_parameters()).keys()
    factors = {"weight"} if name == "dense" else {"A", "B"}
    scales = {f"scale_{f}" for f in factors} if weight_norm == "learned" and name != "dense" else set()
    assert specs.keys() == factors | scales
    assert all(specs[factor].role == "factor" for factor in factors)
    assert all((specs[scale].mean, specs[scale].std, specs[scale].rate) == (1, 0, 1) for scale in scales)


@pytest.mark.parametrize("broken", ["missing", "surplus"])
def test_a_parameter_without_a_spec_is_noticed(broken: str) -> None:
    class Broken(Module):
        def __init__(self) -> None:
            super().__init__()
            if broken == "missing":
                self.weight = nn.Parameter(torch.zeros(2))

        def param_specs(self) -> dict[str, ParamSpec]:
            return {} if broken == "missing" else {"weight": ParamSpec("gain", 0.0)}

    with pytest.raises(ValueError if broken == "missing" else AssertionError, match="weight"):
        collect_specs(Broken())


@pytest.mark.parametrize("name", NAMES)
def test_the_first_draw_has_the_std_of_its_spec(name: str) -> None:
    plan = plan_theta(lookup(name), 256, 512)
    layer = make_linear(plan, LinearOptions(256))
    initialise(layer, seed=0)
    for factor in plan.factors:
        values = getattr(layer, factor.name).detach().double()
        error = 4 / (2 * values.numel()) ** 0.5  # four standard errors of an estimated deviation
        assert float(values.std()) == pytest.approx(factor.std, rel=error)
        assert abs(float(values.mean())) < 4 * factor.std / values.numel() ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_only_the_second_factor_starts_at_zero(name: str) -> None:
    plan = plan_theta(lookup(name), 32, 16)
    layer = make_linear(plan, LinearOptions(32, starts_at_zero=True))
    initialise(layer, seed=0)
    for factor in plan.factors:
        assert bool(getattr(layer, factor.name).any()) != factor.is_last
    assert not layer(torch.randn(3, 32)).any()


@pytest.mark.parametrize(
    ("name", "rule", "rates"),
    [
        ("low_rank", "structure", {"A": 768 / (2 * 256), "B": 768 / (2 * 16)}),
        ("kronecker", "structure", {"A": 768 / (2 * 16), "B": 768 / (2 * 16)}),
        ("btt11", "structure", {"A": 768 / (2 * 16), "B": 768 / (2 * 16 * 4)}),
        ("btt11", "naive", {"A": 3, "B": 3}),
        ("dense", "structure", {"weight": 3}),
        ("dense", "naive", {"weight": 3}),
    ],
)
def test_rates_in_closed_form(name: str, rule: str, rates: dict[str, float]) -> None:
    layer = make_linear(plan_theta(lookup(name), 256, 256), LinearOptions(768, rate_rule=rule))
    assert {key: spec.rate for key, spec in layer.param_specs().items()} == pytest.approx(rates)


class Pair(nn.Module):
    """Two layers under the names ``first`` and ``second``, made in either order."""

    def __init__(self, names: tuple[str, str], structures: dict[str, str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, make_linear(plan_theta(lookup(structures[name]), 16, 16), LinearOptions(16)))


def drawn(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    initialise(model, seed)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_the_start_depends_on_the_seed_and_the_name_alone() -> None:
    structures = {"first": "btt", "second": "low_rank"}
    torch.manual_seed(1)
    start = drawn(Pair(("first", "second"), structures), seed=5)
    torch.manual_seed(2)
    model = Pair(("second", "first"), structures)
    before = torch.get_rng_state()
    again = drawn(model, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(start[name], again[name]) for name in start)
    other_first = drawn(Pair(("first", "second"), {**structures, "first": "dense"}), seed=5)
    assert all(torch.equal(start[name], other_first[name]) for name in start if name.startswith("second"))
    other_seed = drawn(Pair(("first", "second"), structures), seed=6)
    assert not any(torch.equal(start[name], other_seed[name]) for name in start)


def test_equal_shapes_of_other_names_start_apart() -> None:
    start = drawn(Pair(("first", "second"), {"first": "btt", "second": "btt"}), seed=0)
    assert not torch.equal(start["first.A"], start["second.A"])
    assert not torch.equal(start["first.A"], start["first.B"])


def test_the_largest_seed_can_be_drawn_from() -> None:
    start = drawn(Pair(("first", "second"), {"first": "btt", "second": "btt"}), seed=2**31 - 1)
    assert all(bool(values.isfinite().all()) for values in start.values())
