"""A child's weights from a parent's: the same losses where the structure is full, kept and new parameters named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from structlin.config.model import Gpt2Config, MlpConfig
from structlin.config.moe import MoeConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.convert import convert_model
from structlin.convert.aware import squared_error
from structlin.convert.model import matrix
from structlin.convert.moments import moments, with_ridge
from structlin.data import DataRecipe
from structlin.errors import UserError
from structlin.models.build import build_model
from structlin.structure import theta_of
from structlin.structure.families import output_order_of
from structlin.structure.heads import HEAD_LAYOUTS
from tests.nn.test_chain import FAMILY_CASES
from tests.tiny import tiny

WIDE = Gpt2Config(d_model=16, num_layers=2, d_head=4, context=16, base_width=16, dtype="float64")


def science_of(name: str, arguments: dict[str, Any] | None = None, **changes: Any) -> Science:
    """A small GPT-2 in float64 with a structure."""
    options = {key: changes.pop(key) for key in ("rounding", "head_layout") if key in changes}
    theta = str(theta_of(name, arguments=arguments or {}, rounding=options.get("rounding", "exact")))
    structure = StructureConfig(theta, output_order=output_order_of(name), **options)
    return replace(tiny(model=changes.pop("model", WIDE)), structure=structure, **changes)


def grown(science: Science, seed: int = 1) -> torch.nn.Module:
    """A model whose every weight matters."""
    model = build_model(science)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(parameter.dtype), alpha=0.2)
    return model.eval()


def texts(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(96, (count, 16), generator=torch.Generator().manual_seed(seed))


def child_of(parent: torch.nn.Module, before: Science, after: Science, **more: Any) -> torch.nn.Module:
    found = convert_model(parent, before, after, **more)
    child = build_model(after)
    child.load_state_dict(found.weights)
    assert {*found.converted, *found.kept} == {name for name, _ in child.named_parameters()}
    assert not {*found.converted} & {*found.kept}
    return child


def logits(model: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(texts())
    return found


FULL = {
    "low_rank-d": ("low_rank", {"rank": "d"}),
    "btt of full rank": ("btt", {"rank": 4}),
}


@pytest.mark.parametrize("case", FULL)
def test_dense_to_a_full_structure_and_back_says_what_it_said(case: str) -> None:
    dense, full = science_of("dense"), science_of(*FULL[case])
    parent = grown(dense)
    child = child_of(parent, dense, full)
    torch.testing.assert_close(logits(child), logits(parent), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits(child_of(child, full, dense)), logits(parent), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", FAMILY_CASES)
def test_a_structure_to_dense_says_what_it_said_and_to_itself_by_way_of_dense_too(case: str) -> None:
    name, arguments = FAMILY_CASES[case]
    # 16 features serve no rank of 8 in four blocks.
    arguments = {key: 2 if value == 8 else value for key, value in arguments.items()}
    own, dense = science_of(name, arguments), science_of("dense")
    parent = grown(own)
    as_dense = child_of(parent, own, dense)
    torch.testing.assert_close(logits(as_dense), logits(parent), rtol=1e-9, atol=1e-9)
    again = child_of(as_dense, dense, own)
    torch.testing.assert_close(logits(again), logits(parent), rtol=1e-7, atol=1e-7)


def test_the_same_structure_keeps_every_weight() -> None:
    own = science_of("btt", {"rank": 2}, rounding="paper")
    parent = grown(own)
    found = convert_model(parent, own, replace(own, seed=5), [texts()])
    assert found.converted == ()
    for name, tensor in parent.state_dict().items():
        assert torch.equal(found.weights[name], tensor)


def test_a_theta_to_another_goes_by_its_matrix_and_only_structured_linears_are_new() -> None:
    before, after = science_of("btt", {"rank": 4}), science_of("low_rank", {"rank": "d/2"})
    parent = grown(before)
    found = convert_model(parent, before, after)
    child = build_model(after)
    child.load_state_dict(found.weights)
    name = "blocks.1.ffn.up"
    W = matrix(parent.get_submodule(name))
    tail = torch.linalg.svdvals(W)[8:].square().sum()
    rest = (W - matrix(child.get_submodule(name))).square().sum()
    torch.testing.assert_close(rest, tail)
    assert found.errors[name] == pytest.approx(float((tail / W.square().sum()) ** 0.5))
    parts = ("attention.q", "attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down")
    linears = [f"blocks.{layer}.{part}" for layer in range(2) for part in parts]
    assert sorted(found.converted) == sorted(f"{linear}.{factor}" for linear in linears for factor in "AB")
    assert torch.equal(found.weights["tokens"], parent.state_dict()["tokens"])
    assert "head.weight" in found.kept


@pytest.mark.parametrize("layout", sorted(set(HEAD_LAYOUTS) - {"none"}))
def test_head_layouts_hold_their_features_in_another_order_and_say_the_same(layout: str) -> None:
    model = replace(WIDE, d_model=32, base_width=32, biases=("blocks.*",))
    dense, own = science_of("dense", model=model), science_of("btt", {"rank": 8}, head_layout=layout, model=model)
    parent = grown(own)
    as_dense = child_of(parent, own, dense)
    torch.testing.assert_close(logits(as_dense), logits(parent), rtol=1e-8, atol=1e-8)
    again = child_of(as_dense, dense, own)
    torch.testing.assert_close(logits(again), logits(parent), rtol=1e-8, atol=1e-8)
    aware = child_of(as_dense, dense, own, calibration=[texts(64)])
    torch.testing.assert_close(logits(aware), logits(parent), rtol=1e-5, atol=1e-5)


def test_on_its_inputs_a_child_is_nearer_to_its_parent() -> None:
    dense, low = science_of("dense"), science_of("low_rank", {"rank": "d/4"})
    parent = grown(dense)
    batches = [texts(64, seed) for seed in (1, 2)]
    plain, aware = (child_of(parent, dense, low, calibration=some) for some in (None, batches))
    name = "blocks.0.ffn.down"
    C = moments(parent, batches, [name])[name]
    W = matrix(parent.get_submodule(name))
    by = [squared_error(W, matrix(child.get_submodule(name)), C) for child in (plain, aware)]
    assert by[1] < by[0]
    off = [float((logits(child) - logits(parent)).square().mean()) for child in (plain, aware)]
    assert off[1] < off[0]


@pytest.mark.parametrize("name", ["dense", "btt"])
def test_moments_are_those_of_the_inputs(name: str) -> None:
    """Of the maps after a GELU too, which a fused kernel makes again."""
    science = science_of(name)
    model = grown(science)
    down = model.get_submodule("blocks.0.ffn.down")
    up = model.get_submodule("blocks.0.ffn.up")
    seen: list[Tensor] = []
    hook = up.register_forward_hook(lambda _module, _args, y: seen.append(torch.nn.functional.gelu(y).detach()))
    found = moments(model, [(texts(3), None), texts(2, 1).numpy()[None][0:1]], ["blocks.0.ffn.down"], ridge=0.0)
    hook.remove()
    X = torch.cat([one.reshape(-1, down.d_in) for one in seen])
    torch.testing.assert_close(found["blocks.0.ffn.down"], X.T @ X / len(X))
    C = with_ridge(found["blocks.0.ffn.down"], 0.1)
    torch.testing.assert_close(C.trace(), 1.1 * (X.T @ X / len(X)).trace())
    assert not down._forward_pre_hooks


def test_a_linear_of_zeros_becomes_one_that_can_learn() -> None:
    dense, low = science_of("dense"), science_of("low_rank", {"rank": "d/4"})
    parent = build_model(dense)
    child = child_of(parent, dense, low)
    down = child.get_submodule("blocks.0.ffn.down")
    assert not bool(down.to_dense().any())
    assert sorted(bool(one.any()) for one in (down.A, down.B)) == [False, True]


def test_an_mlp_too_and_a_new_bias_starts_at_zero() -> None:
    model = MlpConfig(d_model=16, num_layers=2, base_width=16, dtype="float64")
    dense = replace(tiny(), task="regression", data=DataRecipe("teacher"), model=model, structure=DENSE_STRUCTURE)
    full = replace(
        dense,
        structure=StructureConfig(str(theta_of("low_rank", arguments={"rank": "d"}))),
        model=replace(model, biases=("*",)),
    )
    parent = grown(dense)
    found = convert_model(parent, dense, full)
    child = build_model(full)
    child.load_state_dict(found.weights)
    x = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(child(x), parent(x), rtol=1e-9, atol=1e-9)
    assert "head.bias" in found.converted
    with pytest.raises(UserError, match=r"the parent has .*bias, for which the child has no place"):
        convert_model(child, full, dense)


DENSE_STRUCTURE = StructureConfig(str(theta_of("dense")))
REFUSED = {
    "a mixture": ({"moe": MoeConfig("btt", 4, 2)}, r"the child is a mixture \(moe=btt\)"),
    "weight_norm": ({"model": replace(WIDE, weight_norm="fixed")}, "child has model.weight_norm=fixed"),
    "width": ({"model": replace(WIDE, d_model=32)}, "model.d_model is 16 of the parent and 32 of the child"),
    "context": ({"model": replace(WIDE, context=32)}, "model.context is 16 of the parent and 32"),
    "layers": ({"model": replace(WIDE, num_layers=1)}, "model.num_layers is 2 of the parent and 1"),
    "heads": ({"model": replace(WIDE, d_head=8)}, "model.d_head is 4 of the parent and 8"),
    "tokenizer": ({"data": DataRecipe("sotu", tokenizer="gpt2")}, "data.tokenizer is char96 of the parent and gpt2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_conversion_does_is_one_line(case: str) -> None:
    changes, said = REFUSED[case]
    dense, other = science_of("dense"), replace(science_of("btt"), **changes)
    with pytest.raises(UserError, match=said) as caught:
        convert_model(build_model(dense), dense, other)
    assert "\n" not in str(caught.value)


def test_no_batches_are_no_calibration() -> None:
    dense = science_of("dense")
    with pytest.raises(UserError, match="calibration has no batches"):
        convert_model(grown(dense), dense, science_of("btt"), [])
