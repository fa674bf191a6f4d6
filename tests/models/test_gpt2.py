"""GPT-2: starts at ln(vocab), sees no future, and takes the structure where it was asked to."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.kinds import anatomy
from structlin.anatomy.ledger import ledger
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import vocab_size
from structlin.errors import UserError
from structlin.models.gpt2 import GPT2, build_gpt2
from structlin.nn.linear import DenseLinear, EinsumLinear
from structlin.nn.spec import collect_specs, initialise
from structlin.structure import theta_of
from structlin.structure.families import output_order_of
from structlin.tasks.shared import autocast
from tests.models.cases import CASES, IDS, KINDS, OPTIONS, science_of


def some_tokens(science: Science, seed: int = 0) -> Tensor:
    shape = (2, science.model.context)
    return torch.randint(vocab_size("char96"), shape, generator=torch.Generator().manual_seed(seed))


def randomised(science: Science) -> GPT2:
    """A model whose head and branches are no longer zero."""
    model = build_gpt2(science)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    return model


def cross_entropy(model: nn.Module, tokens: Tensor) -> Tensor:
    return functional.cross_entropy(model(tokens).float().flatten(0, 1), tokens.roll(-1).flatten())


@pytest.mark.parametrize(("name", "rounding", "options"), CASES, ids=IDS)
def test_the_loss_at_step_0_is_ln_vocab_and_every_gradient_is_finite(
    name: str, rounding: str, options: dict[str, Any]
) -> None:
    science = science_of(name, rounding, **options)
    model = build_gpt2(science)
    loss = cross_entropy(model, some_tokens(science))
    assert float(loss.detach()) == pytest.approx(math.log(96), abs=1e-6)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", KINDS)
def test_a_later_token_changes_no_earlier_logit(name: str, options: dict[str, Any]) -> None:
    science = science_of(name, dtype="float64", **options)
    model, tokens = randomised(science), some_tokens(science)
    position = 9
    changed = tokens.clone()
    changed[:, position] = (tokens[:, position] + 1) % 96
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :position], after[:, :position], rtol=0, atol=1e-12)
    moved = (before - after).abs().amax(dim=(0, 2))
    assert bool((moved[position:] > 1e-6).all())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_is_near_float32(name: str, options: dict[str, Any]) -> None:
    science = science_of(name, dtype="bfloat16", **options)
    model, tokens = randomised(science), some_tokens(science)
    wide = cross_entropy(model, tokens)
    with autocast(science, torch.device("cpu")):
        narrow = cross_entropy(model, tokens)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert float(narrow.detach()) == pytest.approx(float(wide.detach()), rel=0.1)
    narrow.backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_structure_goes_where_the_patterns_point(options: dict[str, Any]) -> None:
    science = science_of("btt", **options)
    model = GPT2(science)
    for name, module in model.named_modules():
        if isinstance(module, DenseLinear | EinsumLinear):
            assert isinstance(module, EinsumLinear) == science.model.is_structured(name), name
    assert any(isinstance(module, EinsumLinear) for module in model.modules())


def test_a_model_is_built_from_the_listed_linears() -> None:
    science = science_of("btt")
    listed = {shape.name: shape.sizes for shape in anatomy(science).linears}
    built = {n: m.sizes for n, m in GPT2(science).named_modules() if isinstance(m, DenseLinear | EinsumLinear)}
    assert built == listed
    assert len(listed) == 2 * 6 + 1


def test_biases_start_at_zero_and_stand_where_they_were_asked_for() -> None:
    model = build_gpt2(science_of("btt", biases=("*norm", "blocks.0.ffn.*", "head")))
    names = {name for name, _ in model.named_parameters() if name.endswith(".bias")}
    norms = {f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention_norm", "ffn_norm")}
    norms |= {f"blocks.{i}.attention.{part}_norm" for i in (0, 1) for part in "qk"} | {"norm"}
    assert names == {f"{name}.bias" for name in norms | {"blocks.0.ffn.up", "blocks.0.ffn.down", "head"}}
    specs = collect_specs(model)
    assert {specs[name].rate for name in names} == {1.0}
    assert not any(dict(model.named_parameters())[name].any() for name in names)
    with pytest.raises(UserError, match=r"model.biases = 'q_norm' matches no linear or layer norm"):
        science_of("btt", biases=("q_norm",))


def test_what_is_asked_to_start_at_zero_does() -> None:
    model = build_gpt2(science_of("btt", zero_start=("*.q",)))
    for block in model.blocks:
        assert block.attention.q.A.any()
        assert not block.attention.q.B.any()
        assert block.attention.k.B.any()
    with pytest.raises(UserError, match=r"model.zero_start = 'queries' matches no linear"):
        science_of("btt", zero_start=("queries",))


def test_only_the_last_maps_of_the_branches_and_the_head_start_at_zero() -> None:
    model = build_gpt2(science_of("btt"))
    zeros = {name for name, parameter in model.named_parameters() if not parameter.any()}
    branches = {f"blocks.{i}.{part}.B" for i in (0, 1) for part in ("attention.o", "ffn.down")}
    assert zeros == branches | {"head.weight"}


@pytest.mark.parametrize("rule", ["structure", "naive"])
def test_rates_at_twice_the_base_width(rule: str) -> None:
    """Dense multipliers at width 32 of base 16: 1/2, the FFN output (base expansion 1) 1/8; embeddings and gains 1."""
    science = science_of("dense", base_width=16)
    science = replace(science, optim=replace(science.optim, rate_rule=rule))
    rates = {name: spec.rate for name, spec in collect_specs(GPT2(science)).items()}
    assert rates["tokens"] == rates["positions"] == rates["norm.gain"] == rates["blocks.0.attention.q_norm.gain"] == 1
    assert rates["blocks.0.attention.q.weight"] == rates["blocks.1.ffn.up.weight"] == rates["head.weight"] == 1 / 2
    assert rates["blocks.0.ffn.down.weight"] == 16 / (4 * 32)


def test_learned_scales_skip_what_is_layer_normed() -> None:
    names = {name for name, _ in GPT2(science_of("btt", weight_norm="learned")).named_parameters() if "scale_" in name}
    parts = ("attention.v", "attention.o", "ffn.up", "ffn.down")
    assert names == {f"blocks.{i}.{part}.scale_{factor}" for i in (0, 1) for part in parts for factor in "AB"}


def test_branches_shrink_with_depth_and_logits_are_scaled_by_the_head() -> None:
    """A two-layer model written out with plain tensors: pre-LN, 8 (q . k) / d_head, branches times sqrt(3 / layers)."""
    science = science_of("dense", dtype="float64")
    model, tokens = randomised(science), some_tokens(science)
    x = model.tokens[tokens] + model.positions

    def norm(values: Tensor, layer: nn.Module) -> Tensor:
        centred = values - values.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.gain

    mask = torch.full((16, 16), -math.inf, dtype=torch.float64).triu(1)
    for block in model.blocks:
        at, h = block.attention, norm(x, block.attention_norm)
        q, k, v = ((h @ part.weight.T).view(2, 16, 4, 8).transpose(1, 2) for part in (at.q, at.k, at.v))
        q, k = norm(q, at.q_norm), norm(k, at.k_norm)
        weights = (8 / 8 * q @ k.mT + mask).softmax(-1)
        x = x + math.sqrt(3 / 2) * (weights @ v).transpose(1, 2).reshape(2, 16, 32) @ at.o.weight.T
        h = norm(x, block.ffn_norm) @ block.ffn.up.weight.T
        x = x + math.sqrt(3 / 2) * (h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))) @ block.ffn.down.weight.T
    torch.testing.assert_close(model(tokens), norm(x, model.norm) @ model.head.weight.T, rtol=0, atol=1e-10)


def test_the_start_depends_on_the_seed_and_not_on_the_structure_elsewhere() -> None:
    dense, btt = build_gpt2(science_of("dense")), build_gpt2(science_of("btt"))
    assert torch.equal(dense.tokens, btt.tokens)
    assert torch.equal(dense.positions, btt.positions)
    assert float(dense.tokens.detach().std()) == pytest.approx(0.02, rel=0.1)
    other = build_gpt2(replace(science_of("dense"), seed=1))
    assert not torch.equal(other.tokens, dense.tokens)
    assert not torch.equal(other.blocks[0].attention.q.weight, dense.blocks[0].attention.q.weight)


@pytest.mark.parametrize("name", ["dense", "btt", "g2"])
def test_a_model_starts_as_the_initialiser_says_and_draws_from_no_other_generator(name: str) -> None:
    """Built without memory and filled once: the bits are those of a model made in place and initialised after."""
    science = science_of(name, weight_norm="learned")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    built = build_gpt2(science)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    in_place = GPT2(science)
    initialise(in_place, science.seed)
    wanted = dict(in_place.named_parameters())
    assert {key for key, _ in built.named_parameters()} == wanted.keys()
    assert all(torch.equal(parameter, wanted[key]) for key, parameter in built.named_parameters())
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
    assert {key: buffer.tolist() for key, buffer in built.named_buffers()} == {
        key: buffer.tolist() for key, buffer in in_place.named_buffers()
    }


FAMILIES_BUILT: dict[str, tuple[str, dict[str, Any], int]] = {
    "btt-3": ("btt", {"rank": 2, "factors": 3}, 3),
    "btt-4": ("btt", {"factors": 4}, 4),
    "blast": ("blast", {"blocks": 4, "rank": 8}, 3),
    "mpo": ("mpo", {"cores": 3, "bond": 4}, 3),
    "monarch": ("monarch", {"blocks": 4}, 2),
    "block_shuffle": ("block_shuffle", {"blocks": 2}, 2),
    "low_rank": ("low_rank", {"rank": "d/4"}, 2),
}


@pytest.mark.parametrize("options", [{}, OPTIONS["learned-head"]], ids=["plain", "learned-head"])
@pytest.mark.parametrize("case", FAMILIES_BUILT)
def test_a_model_of_any_family_is_counted_starts_flat_and_learns(case: str, options: dict[str, Any]) -> None:
    """The ledger's parameters and MACs are the model's, the loss starts at ln(vocab), and every weight then moves."""
    name, arguments, factors = FAMILIES_BUILT[case]
    structure = StructureConfig(str(theta_of(name, arguments=arguments)), output_order=output_order_of(name))
    science = replace(science_of("dense", **options), structure=structure)
    assert structure.num_factors == factors
    costs, model, tokens = ledger(science), build_gpt2(science), some_tokens(science)
    assert costs.params_total == sum(parameter.numel() for parameter in model.parameters())
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        GPT2(science)(torch.zeros(3, 16, dtype=torch.long))
    assert counter.get_total_flops() == 2 * costs.macs_per_token * 3 * 16
    assert float(cross_entropy(model, tokens).detach()) == pytest.approx(math.log(96), abs=1e-6)
    moved = randomised(science)
    cross_entropy(moved, tokens).backward()
    for parameter_name, parameter in moved.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all() and parameter.grad.any()), parameter_name


def test_an_order_of_the_output_is_another_model_of_the_same_cost() -> None:
    """Between up and down it decides which features share a block."""
    sciences = [science_of("btt", dtype="float64")]
    sciences += [replace(sciences[0], structure=replace(sciences[0].structure, output_order="efd"))]
    fed, efd = (randomised(science) for science in sciences)
    efd.load_state_dict(fed.state_dict())
    assert ledger(sciences[0]).macs == ledger(sciences[1]).macs
    assert not torch.allclose(fed(some_tokens(sciences[0])), efd(some_tokens(sciences[0])))


def test_a_shorter_sequence_is_a_prefix() -> None:
    science = science_of("btt", dtype="float64")
    model, tokens = randomised(science), some_tokens(science)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens[:, :7]), model(tokens)[:, :7], rtol=0, atol=1e-12)
