"""GPT-2 as a mixture of experts: its ledger against what is built and what runs, its start, precision and layouts."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.kinds import anatomy
from structlin.anatomy.ledger import GROUPS, ledger
from structlin.config.moe import MoeConfig
from structlin.config.optim import OptimConfig
from structlin.config.science import Science
from structlin.kernels.experts import paths as expert_products
from structlin.models.gpt2 import GPT2, build_gpt2
from structlin.nn.experts import Experts
from structlin.nn.linear import EinsumLinear
from structlin.nn.moe import MoeFfn, MoeLinear
from structlin.nn.router import Router, auxiliary_loss, routers
from structlin.nn.spec import collect_specs
from structlin.structure import factorise, lookup
from structlin.tasks.next_token import NextTokenLearner
from structlin.tasks.shared import autocast
from tests.anatomy.test_ledger import kept_bytes
from tests.models.cases import science_of

MIXTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "btt": ("dense", {"kind": "btt"}),
    "btt-ffn": ("dense", {"kind": "btt", "layers": "ffn"}),
    "btt-attention": ("btt", {"kind": "btt", "layers": "attention", "num_experts": 16}),
    "dense": ("dense", {"kind": "dense", "top_k": 1}),
    "low-rank": ("dense", {"kind": "low_rank", "num_experts": 5}),
    "ffn": ("dense", {"kind": "ffn", "layers": "ffn"}),
    "ffn-of-btt": ("btt", {"kind": "ffn", "layers": "ffn", "num_experts": 4}),
    "ffn-all": ("g2", {"kind": "ffn", "layers": "all", "num_experts": 3, "top_k": 3}),
}


def mixture(name: str, **model: Any) -> Science:
    structure, moe = MIXTURES[name]
    science = science_of(structure, **model)
    # The model once more: without experts a Science forgets whose the caps of experts are.
    caps = model.get("weight_norm_experts", "own")
    return replace(science, moe=MoeConfig(**moe), model=replace(science.model, weight_norm_experts=caps))


def some_tokens(rows: int = 4, seed: int = 0) -> Tensor:
    return torch.randint(96, (rows, 16), generator=torch.Generator().manual_seed(seed))


def randomised(science: Science) -> GPT2:
    """A model in which nothing is zero any more, neither head nor branches nor routers."""
    model, generator = build_gpt2(science), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def group_of(name: str) -> str:
    """The ledger's group of a parameter by its name, found without the ledger."""
    if name in ("tokens", "positions"):
        return "embedding"
    if ".router." in name:
        return "router"
    if "norm" in name or ".scale_" in name:
        return "norm"
    return "head" if name.startswith("head.") else "linear"


# ---- ledger ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "caps"), [("none", "own"), ("learned", "own"), ("learned", "shared")])
@pytest.mark.parametrize("name", MIXTURES)
def test_parameters_are_the_models(name: str, norm: str, caps: str) -> None:
    science = mixture(name, weight_norm=norm, weight_norm_experts=caps)
    counted, idle = dict.fromkeys(GROUPS, 0), 0
    with torch.device("meta"):
        model = GPT2(science)
    for parameter_name, parameter in model.named_parameters():
        counted[group_of(parameter_name)] += parameter.numel()
        # A scale that all experts share is never idle.
        if isinstance(model.get_submodule(parameter_name.rpartition(".")[0]), Experts) and parameter.dim():
            num_experts = science.moe.num_experts
            idle += parameter.numel() // num_experts * (num_experts - science.moe.top_k)
    costs = ledger(science)
    assert costs.params == counted
    assert costs.params_active == costs.params_total - idle
    assert idle > 0 or science.moe.top_k == science.moe.num_experts


@pytest.mark.parametrize("name", MIXTURES)
def test_flops_that_run_are_those_of_the_ledger(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by torch on plain batched products with the routing of a randomised model, attention written out."""
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: "plain")
    science = mixture(name)
    model, tokens = randomised(science), some_tokens()
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            logits = model(tokens)
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
    expected = 2 * ledger(science).macs_per_token * tokens.numel()
    assert forward.get_total_flops() == expected
    assert forward.get_total_flops() + backward.get_total_flops() == pytest.approx(3 * expected, rel=0.02)


def test_sums_by_hand() -> None:
    """BTT-MoE at d = 64 (8 x 8): k (d n0 + d m1) active and E times that in all, d E a router."""
    science = mixture("btt", d_model=64)
    shapes = {shape.name: shape for shape in anatomy(science).linears}
    q, up = shapes["blocks.0.attention.q"], shapes["blocks.0.ffn.up"]
    assert (q.sizes.g, q.sizes.a, q.sizes.f, q.sizes.e, q.sizes.r) == (8, 8, 8, 8, 1)
    assert (up.sizes.g * up.sizes.a, up.sizes.f, up.sizes.e) == (64, 16, 16)
    costs = ledger(science)
    assert costs.macs_by_linear[q.name] == 2 * (64 * 8 + 64 * 8)
    assert costs.params_by_linear[q.name] == 8 * (64 * 8 + 8 * 64)
    assert costs.macs_by_linear[up.name] == 2 * (64 * 16 + 256 * 8)
    assert costs.macs["router"] == costs.params["router"] == 2 * 8 * (5 * 64 + 256)


def test_one_router_for_a_mixed_ffn_and_one_for_every_other_linear() -> None:
    numbers = {name: len(anatomy(mixture(name)).routers) // 2 for name in MIXTURES}
    assert numbers == {
        "btt": 6,
        "btt-ffn": 2,
        "btt-attention": 4,
        "dense": 6,
        "low-rank": 6,
        "ffn": 1,
        "ffn-of-btt": 1,
        "ffn-all": 5,
    }


@pytest.mark.parametrize("name", MIXTURES)
def test_a_model_is_built_from_its_anatomy(name: str) -> None:
    science = mixture(name)
    body, model = anatomy(science), GPT2(science)
    built = {n: m for n, m in model.named_modules() if isinstance(m, Router)}
    assert {n: (m.weight.shape[1], m.weight.shape[0]) for n, m in built.items()} == {
        r.name: (r.d_in, r.num_experts) for r in body.routers
    }
    for shape in body.linears:
        layer = model.get_submodule(shape.name)
        holder = layer.experts if isinstance(layer, MoeLinear) else layer
        assert holder.sizes == shape.sizes
        assert isinstance(holder, Experts) == bool(shape.router)
    kinds = {type(block.ffn) for block in model.blocks}
    assert (kinds == {MoeFfn}) == (science.moe.kind == "ffn")


def test_expert_sizes_by_kind() -> None:
    def sizes(name: str, linear: str) -> Any:
        return {shape.name: shape.sizes for shape in anatomy(mixture(name)).linears}[linear]

    assert sizes("low-rank", "blocks.0.ffn.up").r == 7  # ceil(32 / 5)
    assert sizes("dense", "blocks.1.attention.o").dense
    assert sizes("ffn-of-btt", "blocks.0.ffn.down") == factorise(lookup("btt"), 128, 32)
    assert sizes("ffn-of-btt", "blocks.0.attention.q") == factorise(lookup("btt"), 32, 32)
    assert sizes("btt-ffn", "blocks.0.attention.q").dense
    assert sizes("btt", "head").dense


@pytest.mark.parametrize("name", ["btt", "ffn", "ffn-of-btt", "low-rank"])
def test_activations_are_near_what_autograd_keeps(name: str) -> None:
    science = mixture(name, d_model=64, d_head=16, num_layers=3)
    science = replace(science, optim=OptimConfig(batch_tokens=512))
    assert 1 / 1.6 < kept_bytes(science) / ledger(science).fused_activation_bytes < 1.6


@pytest.mark.parametrize("name", ["btt", "ffn", "ffn-of-btt", "low-rank"])
@pytest.mark.parametrize("path", ["chunks", "plain"])
def test_what_a_further_expert_keeps_is_what_autograd_keeps(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly where an operator takes all experts; elsewhere within 3%, for the indices of gathering and combining."""
    science = mixture(name, d_model=64, d_head=16, num_layers=3)
    two, three = (
        replace(science, optim=OptimConfig(batch_tokens=512), moe=replace(science.moe, top_k=top_k)) for top_k in (2, 3)
    )
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: path)
    kept = kept_bytes(three) - kept_bytes(two)
    if path == "chunks":
        assert kept == ledger(three).fused_activation_bytes - ledger(two).fused_activation_bytes
    else:
        assert kept == pytest.approx(ledger(three).activation_bytes - ledger(two).activation_bytes, rel=0.03)


# ---- start, precision, causality ------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "learned"])
@pytest.mark.parametrize("name", MIXTURES)
def test_it_starts_at_ln_vocab_with_balanced_experts_and_finite_gradients(name: str, norm: str) -> None:
    science = mixture(name, weight_norm=norm)
    model, tokens = build_gpt2(science), some_tokens(rows=15)
    loss = functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1).flatten())
    assert float(loss.detach()) == pytest.approx(math.log(96), abs=1e-5)
    for module in model.modules():
        if isinstance(module, Router):
            usage = module.statistics().usage
            assert usage == pytest.approx((1 / len(usage),) * len(usage))
    (loss + auxiliary_loss(model, 0.1)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(parameter.grad.isfinite().all()), parameter_name


@pytest.mark.parametrize("name", MIXTURES)
def test_a_later_token_changes_no_earlier_logit(name: str) -> None:
    model, tokens = randomised(mixture(name, dtype="float64")), some_tokens()
    changed = tokens.clone()
    changed[:, 9] = (tokens[:, 9] + 1) % 96
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-12)
    assert bool(((before - after).abs().amax(dim=(0, 2))[9:] > 1e-6).all())


@pytest.mark.parametrize("name", MIXTURES)
def test_bfloat16_trains(name: str) -> None:
    """Not compared with float32 weight by weight: a rounding may send a token to another expert."""
    science = mixture(name, dtype="bfloat16")
    model, tokens = randomised(science), some_tokens()
    with autocast(science, torch.device("cpu")):
        logits = model(tokens)
    loss = functional.cross_entropy(logits.float().flatten(0, 1), tokens.roll(-1).flatten())
    (loss + auxiliary_loss(model, 0.1)).backward()
    wide = functional.cross_entropy(model(tokens).flatten(0, 1), tokens.roll(-1).flatten())
    assert float(loss.detach()) == pytest.approx(float(wide.detach()), rel=0.15)
    assert all(bool(p.grad.isfinite().all()) and p.grad.dtype == torch.float32 for p in model.parameters())


def test_routers_learn_at_the_rate_of_a_dense_layer() -> None:
    rates = {name: spec.rate for name, spec in collect_specs(GPT2(mixture("btt", base_width=16))).items()}
    assert rates["blocks.0.attention.q.router.weight"] == 16 / 32
    assert rates["blocks.0.ffn.down.router.weight"] == 16 / 128


def test_a_shared_cap_is_one_over_all_experts_and_own_caps_are_one_each() -> None:
    """By the formula s G / max(1, RMS(G) / std): over a whole factor, or over each expert's part of it."""
    for caps in ("shared", "own"):
        model = randomised(mixture("btt", weight_norm="learned", weight_norm_experts=caps, dtype="float64"))
        experts = model.blocks[0].attention.v.experts
        raw, scale = experts.A.detach(), experts.scale_A.detach()
        std = next(factor.std for factor in experts.plan.factors if factor.name == "A")
        axes = tuple(range(0 if caps == "shared" else 1, raw.dim()))
        rms = (raw.square().mean(axes, keepdim=True) + 1e-12).sqrt()
        wanted = raw / (rms / std).clamp(min=1.0) * scale.reshape(rms.shape)
        torch.testing.assert_close(experts.factor("A").detach(), wanted, rtol=1e-14, atol=0)
        assert bool((rms > std).any()), "the cap is not at work"


def test_a_shared_cap_has_its_scale_in_q_and_k_too() -> None:
    def scaled(caps: str) -> set[str]:
        model = GPT2(mixture("btt", weight_norm="learned", weight_norm_experts=caps))
        return {
            name.split(".")[3] for name, _ in model.named_parameters() if ".attention." in name and "scale_" in name
        }

    assert scaled("own") == {"v", "o"}
    assert scaled("shared") == {"q", "k", "v", "o"}


def test_a_router_may_start_at_random() -> None:
    """Normal of variance 1 / d_in: 16 experts at 32 features draw 512 numbers a router."""
    science = replace(mixture("btt"), moe=MoeConfig("btt", num_experts=16, router_start="random"))
    model = build_gpt2(science)
    for _, router in routers(model):
        d_in = router.weight.shape[1]
        assert float(router.weight.detach().std() * d_in**0.5) == pytest.approx(1.0, abs=0.15)
    assert science.variant == "moe-btt16-random"
    assert not any(router.weight.any() for _, router in routers(build_gpt2(mixture("btt"))))


def test_the_branches_of_a_mixture_start_at_zero() -> None:
    model = build_gpt2(mixture("ffn-all"))
    zeros = {name for name, parameter in model.named_parameters() if not parameter.any()}
    weights = {f"{name}.weight" for name, _ in routers(model)}
    last = {name for name in zeros - weights if name != "head.weight"}
    assert {name.rpartition(".")[0] for name in last} == {
        f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention.o.experts", "ffn.down")
    }


# ---- the task's loss ------------------------------------------------------------------------------------------------


def test_routers_add_to_the_training_loss_and_not_to_the_validation_loss() -> None:
    science = mixture("btt")
    learner, model = NextTokenLearner(science), randomised(science)
    batch = (some_tokens(), some_tokens(seed=1))

    def cross_entropy() -> Tensor:
        return functional.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())

    plain, routing = cross_entropy(), auxiliary_loss(model, science.moe.z_weight)
    torch.testing.assert_close(learner.loss(model, batch), plain + 0.01 * routing)
    model.eval()
    torch.testing.assert_close(learner.loss(model, batch), cross_entropy())


def test_evaluation_may_choose_other_numbers_of_experts() -> None:
    science = mixture("btt")
    wider = replace(science, moe=replace(science.moe, evaluation_top_k=5))
    one, other = randomised(science), randomised(wider)
    torch.testing.assert_close(one(some_tokens()), other(some_tokens()), rtol=0, atol=0)
    one.eval()
    other.eval()
    assert not torch.allclose(one(some_tokens()), other(some_tokens()), atol=1e-3)
    assert ledger(science) == ledger(wider)
    assert replace(science.moe, evaluation_top_k=2) == science.moe


# ---- head-aware layouts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nddn", "dndn", "ndnd", "dnnd"])
def test_a_head_layout_is_a_permutation_of_features(layout: str) -> None:
    """Attention equals one with dense matrices whose rows (q, k, v) or columns (o) are permuted to [head, feature]."""
    science = science_of("btt", dtype="float64")
    science = replace(science, structure=replace(science.structure, head_layout=layout))
    attention, heads, size = randomised(science).blocks[0].attention, 4, 8
    x = torch.randn(2, 16, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    feature = torch.arange(32).view(heads, size)
    # Where the layer has [feature, head], entry (h, j) of [head, feature] stands at j * heads + h.
    native, turned = feature.flatten(), torch.arange(32).view(size, heads).T.flatten()
    out = turned if layout[3] == "d" else native
    q, k, v = (getattr(attention, part).to_dense()[out] for part in "qkv")
    o = attention.o.to_dense()[:, turned if layout[1] == "d" else native]

    def split(y: Tensor, norm: nn.Module | None = None) -> Tensor:
        y = y.view(2, 16, heads, size)
        return (y if norm is None else norm(y)).transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(
        split(x @ q.T, attention.q_norm),
        split(x @ k.T, attention.k_norm),
        split(x @ v.T),
        is_causal=True,
        scale=8 / size,
    )
    wanted = mixed.transpose(1, 2).reshape(2, 16, 32) @ o.T
    torch.testing.assert_close(attention(x), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("layout", "macs"), [("nddn", 8 + 4), ("dndn", 4 + 4), ("ndnd", 8 + 8), ("dnnd", 4 + 8)])
def test_head_layouts_set_the_axes_and_the_cost(layout: str, macs: int) -> None:
    """At 4 heads of 8 features a layer costs width (phi + gamma) MACs per row; the FFN keeps its own sizes."""
    science = science_of("btt")
    science = replace(science, structure=replace(science.structure, head_layout=layout))
    shapes = {shape.name: shape for shape in anatomy(science).linears}
    axes = {"n": 4, "d": 8}
    for part in "qkvo":
        plan = shapes[f"blocks.1.attention.{part}"].plan
        sizes = plan.sizes
        assert (sizes.a, sizes.g, sizes.e, sizes.f) == tuple(axes[axis] for axis in layout)
        assert plan.macs == 32 * macs
    assert shapes["blocks.0.ffn.up"].sizes == factorise(lookup("btt"), 32, 128)
    assert isinstance(GPT2(science).blocks[0].attention.q, EinsumLinear)


def test_the_rank_of_a_head_layout_is_that_of_theta() -> None:
    science = science_of("btt11")
    science = replace(science, structure=replace(science.structure, head_layout="dnnd"))
    assert {shape.name: shape for shape in anatomy(science).linears}["blocks.0.attention.v"].sizes.r == round(32**0.25)
