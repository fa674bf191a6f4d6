"""The options of arXiv 2406.16450's recipe: against plain tensors, counted exactly, decoded, started and refused."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from structlin.anatomy.ledger import GROUPS, ledger
from structlin.config.model import Gpt2Config
from structlin.config.moe import MoeConfig
from structlin.config.optim import ROLES, OptimConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import vocab_size
from structlin.errors import UserError
from structlin.models.attention import rotated
from structlin.models.decoding import Decoder
from structlin.models.gpt2 import GPT2, build_gpt2
from structlin.nn.cross_entropy import chunked_cross_entropy, cross_entropy
from structlin.nn.linear import DenseLinear, EinsumLinear
from structlin.nn.spec import collect_specs
from structlin.structure import theta_of
from structlin.structure.families import output_order_of
from structlin.training.optim import make_optimizer
from tests.anatomy.test_ledger import group_of
from tests.models.cases import science_of
from tests.models.test_gpt2 import randomised, some_tokens

RECIPE: dict[str, Any] = {
    "positions": "rope", "tied": True, "qk_norm": False, "branch_scale": "one", "logit_scale": "sqrt", "init": "fixed",
    "biases": ("blocks.*", "norm"), "structured": ("blocks.[1-9]*.ffn.*",),
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "rope": {"positions": "rope"},
    "tied": {"tied": True},
    "two kv heads": {"kv_heads": 2},
    "one kv head": {"kv_heads": 1},
    "narrow attention": {"attention_width": 16},
    "wide attention": {"attention_width": 48, "d_head": None, "num_heads": 6, "kv_heads": 3},
    "raw": {"qk_norm": False, "logit_scale": "sqrt", "branch_scale": "one"},
    "learned caps": {"qk_norm": False, "weight_norm": "learned"},
    "rope, norms, biases": {"positions": "rope", "biases": ("*",), "kv_heads": 2},
    "recipe": RECIPE,
    "recipe, narrow": {**RECIPE, "attention_width": 16, "kv_heads": 1, "structured": ("blocks.*",)},
}
CASES = [(name, option) for name in ("dense", "btt", "low_rank") for option in OPTIONS]


# ---- the mathematics ------------------------------------------------------------------------------------------------


def plain(model: GPT2, config: Gpt2Config, tokens_NT: Tensor) -> Tensor:
    """The logits, written out: weights of dense layers, complex numbers for the rotation, keys repeated for groups."""
    weights = dict(model.named_parameters())
    x = weights["tokens"][tokens_NT] + (0 if config.positions == "rope" else weights["positions"])
    T, K = tokens_NT.shape[1], config.head_size
    scale = 8 / K if config.logit_scale == "mup" else 1 / math.sqrt(K)
    branch = math.sqrt(3 / config.num_layers) if config.branch_scale == "depth" else 1.0

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    def norm(name: str, x: Tensor) -> Tensor:
        if f"{name}.gain" not in weights:
            return x
        y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * weights[f"{name}.gain"] + weights.get(f"{name}.bias", torch.zeros(()))

    def turned(x: Tensor) -> Tensor:
        if config.positions != "rope":
            return x
        angle = torch.arange(T)[:, None] * 10_000.0 ** (-2 * torch.arange(K // 2, dtype=torch.float64) / K)
        z = torch.complex(x[..., : K // 2], x[..., K // 2 :]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([z.real, z.imag], -1)

    for i in range(config.num_layers):
        at = f"blocks.{i}.attention"
        h = norm(f"{at}_norm", x)
        q, k, v = (linear(f"{at}.{part}", h).unflatten(-1, (-1, K)).transpose(1, 2) for part in "qkv")
        q, k = turned(norm(f"{at}.q_norm", q)), turned(norm(f"{at}.k_norm", k))
        k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], 1) for part in (k, v))
        logits = (scale * q @ k.mT).masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
        x = x + branch * linear(f"{at}.o", (logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
        h = linear(f"blocks.{i}.ffn.up", norm(f"blocks.{i}.ffn_norm", x))
        x = x + branch * linear(f"blocks.{i}.ffn.down", h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))
    x = norm("norm", x)
    return x @ weights["tokens"].T if config.tied else linear("head", x)


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "learned caps"])
def test_a_model_is_the_one_written_out(option: str) -> None:
    science = science_of("dense", dtype="float64", **OPTIONS[option])
    assert isinstance(science.model, Gpt2Config)
    model, tokens = randomised(science), some_tokens(science)
    torch.testing.assert_close(model(tokens), plain(model, science.model, tokens), rtol=0, atol=1e-10)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    products = [float((rotated(q, 5 + far) * rotated(k, far)).sum()) for far in (0, 3, 1000)]
    assert products == pytest.approx([products[0]] * 3, abs=1e-12)
    assert float((rotated(q, 6) * rotated(k, 0)).sum()) != pytest.approx(products[0], abs=1e-6)
    assert float(rotated(q, 7).norm()) == pytest.approx(float(q.norm()), abs=1e-14)


@pytest.mark.parametrize(("name", "option"), CASES)
def test_a_later_token_changes_no_earlier_logit(name: str, option: str) -> None:
    science = science_of(name, dtype="float64", **OPTIONS[option])
    model, tokens = randomised(science), some_tokens(science)
    changed = tokens.clone()
    changed[:, 9] = (tokens[:, 9] + 1) % 96
    with torch.no_grad():
        before, after = model(tokens), model(changed)
        torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-12)
        assert bool(((before - after).abs().amax(dim=(0, 2))[9:] > 1e-6).all())
        torch.testing.assert_close(model(tokens[:, :7]), before[:, :7], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "option"), CASES)
def test_decoding_says_what_the_whole_text_says(name: str, option: str) -> None:
    science = science_of(name, dtype="float64", **OPTIONS[option])
    model, tokens = randomised(science), some_tokens(science)
    with torch.no_grad():
        wanted = model(tokens)
    decoder = Decoder(model)
    for parts in ([1] * 16, [5, 1, 1, 9]):
        decoder.forget()
        found = torch.cat([decoder.read(part) for part in tokens.split(parts, 1)], 1)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)
    assert decoder.context == 16


@pytest.mark.parametrize("start", [0, 1], ids=["text", "start token"])
def test_a_tied_head_gives_the_table_both_gradients_in_chunks_as_well(start: int) -> None:
    science = science_of("dense", dtype="float64", tied=True)
    model, tokens = randomised(science), some_tokens(science)
    model.vocabulary -= start
    tokens, targets = tokens % 95, tokens.roll(-1) % 95
    assert sum("head" in name for name, _ in model.named_parameters()) == 0
    found = []
    for chunked in (False, True):
        model.zero_grad()
        loss = model(tokens, targets) if chunked else cross_entropy(model(tokens), targets)
        loss.backward()
        assert model.tokens.grad is not None
        found.append((loss.detach(), model.tokens.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        x = torch.randn(7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        by_rows = chunked_cross_entropy(x, model.last_map(), torch.arange(7), rows=2)
        torch.testing.assert_close(by_rows, cross_entropy(model.last_map()(x), torch.arange(7)))


# ---- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "option"), CASES)
def test_parameters_and_macs_are_the_models(name: str, option: str) -> None:
    science = science_of(name, **OPTIONS[option])
    costs, counted = ledger(science), dict.fromkeys(GROUPS, 0)
    with torch.device("meta"):
        model, tokens = GPT2(science), torch.zeros(3, 16, dtype=torch.long)
    for parameter_name, parameter in model.named_parameters():
        counted[group_of(parameter_name)] += parameter.numel()
    assert costs.params == counted
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert forward.get_total_flops() == 2 * costs.macs_per_token * tokens.numel()
    assert backward.get_total_flops() == 4 * costs.macs_per_token * tokens.numel()


def test_what_an_option_saves_is_what_one_counts_by_hand() -> None:
    """Width 32, 4 heads of 8, two layers, 16 places, 96 symbols."""
    base = ledger(science_of("dense"))
    params, macs = base.params_total, base.macs_per_token
    for changes, fewer_params, fewer_macs in (
        ({"positions": "rope"}, 16 * 32, 0),
        ({"tied": True}, 96 * 32, 0),
        ({"kv_heads": 1}, 2 * 2 * 32 * 24, 2 * 2 * 32 * 24),
        ({"attention_width": 16}, 2 * 4 * 32 * 16, 2 * (4 * 32 * 16 + 2 * 16 * 16)),
        ({"qk_norm": False}, 2 * 2 * 8, 0),
        ({"branch_scale": "one", "logit_scale": "sqrt", "init": "fixed"}, 0, 0),
    ):
        found = ledger(science_of("dense", **changes))
        assert (params - found.params_total, macs - found.macs_per_token) == (fewer_params, fewer_macs), changes


# ---- starts, rates and decay ----------------------------------------------------------------------------------------


def structured(name: str, init: str, **arguments: object) -> Science:
    structure = StructureConfig(str(theta_of(name, arguments=arguments)), output_order=output_order_of(name))
    base = science_of("dense", dtype="float64")
    return replace(base, structure=structure, model=replace(base.model, init=init))


@pytest.mark.parametrize(
    "science",
    [
        structured("low_rank", "svd", rank="d/4"),
        structured("block_shuffle", "orthonormal", blocks=2),
        structured("block_dense", "orthonormal", blocks=4, rank="3/4*d"),
        structured("btt", "svd", rank=2),
        structured("btt", "orthonormal", factors=3, rank=2),
        structured("low_rank", "fixed", rank="d/4"),
        structured("dense", "fixed"),
        science_of("dense", **RECIPE),
    ],
    ids=lambda science: science.variant,
)
def test_nothing_starts_at_zero_but_biases(science: Science) -> None:
    model = build_gpt2(science)
    zeros = {name.rpartition(".")[2] for name, parameter in model.named_parameters() if not parameter.any()}
    assert zeros <= {"bias"}
    for name, parameter in model.named_parameters():
        if name.endswith("weight") or name == "tokens":
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.2), name


def test_a_fixed_start_is_one_standard_deviation_for_all() -> None:
    science = science_of("low_rank", init="fixed", init_std=0.5)
    weights = [p.detach().flatten() for name, p in build_gpt2(science).named_parameters() if "norm" not in name]
    assert all(float(weight.std()) == pytest.approx(0.5, rel=0.3) for weight in weights)
    assert float(torch.cat(weights).std()) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(("name", "arguments"), [("low_rank", {"rank": "d/4"}), ("btt", {"rank": 2})])
def test_singular_values_start_the_factors_nearest_to_the_dense_start(name: str, arguments: dict[str, object]) -> None:
    """Of the model of the same seed; the spectral norm is shared, and from_dense is the projection."""
    model, dense = build_gpt2(structured(name, "svd", **arguments)), build_gpt2(structured("dense", "fixed"))
    for block, of_dense in zip(model.blocks, dense.blocks, strict=True):
        layer, weight = block.ffn.up, of_dense.ffn.up.weight.detach()
        started = layer.to_dense().detach()
        residual = layer.from_dense(weight)
        torch.testing.assert_close(started, layer.to_dense().detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close((weight - started).square().sum(), residual, rtol=1e-9, atol=0)
        if name == "low_rank":
            U, S, V = torch.linalg.svd(weight, full_matrices=False)
            torch.testing.assert_close(started, U[:, :8] * S[:8] @ V[:8], rtol=0, atol=1e-12)
            A, B = (factor.flatten().norm() for factor in layer.equation_factors())
            torch.testing.assert_close(A, B, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("block_shuffle", {"blocks": 2}), ("block_dense", {"blocks": 4, "rank": "3/4*d"}), ("btt", {"rank": 2})],
)
def test_blocks_start_orthonormal(name: str, arguments: dict[str, object]) -> None:
    """Every block U V^T: all of its singular values are 1, so the map's lie in [0, 1]."""
    model = build_gpt2(structured(name, "orthonormal", **arguments))
    for layer in (module for module in model.modules() if isinstance(module, EinsumLinear)):
        for factor in layer.plan.factors:
            blocks = getattr(layer, factor.name).detach().reshape(-1, factor.fan_out, factor.fan_in)
            values = torch.linalg.svdvals(blocks)
            torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-12)
    layer = model.blocks[0].ffn.up
    if name == "block_shuffle":
        assert float(torch.linalg.svdvals(layer.to_dense().detach()).max()) <= 1 + 1e-12


def test_zero_starts_that_are_asked_for_hold_under_every_start() -> None:
    for name, init in (("dense", "fixed"), ("low_rank", "svd"), ("low_rank", "orthonormal")):
        model = build_gpt2(science_of(name, init=init, zero_start=("blocks.*.ffn.down",)))
        for block in model.blocks:
            assert not block.ffn.down.to_dense().any()
            assert block.ffn.up.to_dense().any()


def test_one_rate_for_all_and_decay_by_role() -> None:
    science = replace(
        science_of("btt", **RECIPE | {"init": "svd"}), optim=OptimConfig(rate_rule="plain", batch_tokens=64)
    )
    assert {spec.rate for spec in collect_specs(GPT2(science)).values()} == {1.0}
    routed = replace(science_of("btt"), moe=MoeConfig("btt"), optim=science.optim)
    assert {spec.rate for spec in collect_specs(GPT2(routed)).values()} == {1.0}
    model = build_gpt2(science)
    sizes: dict[str, int] = dict.fromkeys(ROLES, 0)
    for name, spec in collect_specs(model).items():
        sizes[spec.role] += dict(model.named_parameters())[name].numel()
    for roles in (("factor", "embedding", "router"), ("gain", "bias"), ROLES, ()):
        optim = replace(science.optim, weight_decay=0.1, decayed=roles)
        groups = make_optimizer(model, optim).param_groups
        decayed = sum(p.numel() for group in groups if group["weight_decay"] for p in group["params"])
        assert decayed == sum(sizes[role] for role in roles)
    assert sizes["bias"] == 2 * (4 * 32 + 128 + 32 + 2 * 32) + 32


def test_the_published_decay_moves_gains_and_biases() -> None:
    science = science_of("dense", dtype="float64", **RECIPE)
    moved = {}
    for roles in (("factor", "embedding"), ROLES):
        model = randomised(science)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        optimizer = make_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5, decayed=roles, batch_tokens=64))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        after = dict(model.named_parameters())
        moved[roles] = {name for name, value in before.items() if not torch.equal(value, after[name])}
        for name in moved[roles]:
            torch.testing.assert_close(after[name].detach(), before[name] * (1 - 0.1 * 0.5))
    assert moved[ROLES] == set(before)
    assert not any(name.endswith(("bias", "gain")) for name in moved["factor", "embedding"])


# ---- what another kind of model is called, and what cannot be combined -----------------------------------------------


def test_variants_tell_the_options_apart() -> None:
    sciences = {name: science_of("btt", **options) for name, options in OPTIONS.items()}
    variants = {name: science.variant for name, science in sciences.items()}
    assert len(set(variants.values())) == len(variants)
    assert variants["two kv heads"] == "btt+kv2"
    assert variants["rope"] == "btt+rope"
    assert science_of("dense", **OPTIONS["rope"]).variant == "dense+rope"
    assert science_of("dense").variant == "dense"
    plain_rate = replace(science_of("dense", **RECIPE), optim=OptimConfig(rate_rule="plain", batch_tokens=64))
    assert plain_rate.variant == "dense+structured-ffn"
    low_rank = replace(structured("low_rank", "svd", rank="d/4"), optim=plain_rate.optim)
    names = {init: replace(low_rank, model=replace(plain_rate.model, init=init)).variant for init in ("svd", "fixed")}
    assert names == {
        "svd": "low_rank-d:4+structured-ffn", "fixed": "low_rank-d:4+structured-ffn+fixed-init"
    }  # fmt: skip


def test_a_dense_model_has_no_factors_to_start() -> None:
    sciences = [science_of("dense", init=init) for init in ("fixed", "svd", "orthonormal")]
    assert len(set(sciences)) == 1
    assert sciences[0].model.init == "fixed"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "kv heads": ({"kv_heads": 3}, r"model.kv_heads = 3 does not divide the 4 heads of model.d_model = 32; give a div"),
    "attention width": ({"attention_width": 20}, r"attention_width = 20 is no multiple of model.d_head = 8; .*16, 24"),
    "odd heads": (
        {"positions": "rope", "d_head": None, "num_heads": 32}, r"model.positions = rope rotates halves of a head"
    ),
    "head": ({"tied": True, "structured": ("*",)}, r"model.structured = .* names the head, which under model.tied=tr"),
    "head bias": ({"tied": True, "biases": ("*",)}, r"model.biases = .* names the head"),
    "zero head": ({"tied": True, "zero_start": ("head",)}, r"model.zero_start = .* names the head"),
    "norm of nothing": ({"qk_norm": False, "biases": ("*q_norm",)}, r"model.biases = '\*q_norm' matches no linear or"),
    "cap": ({"init": "fixed", "weight_norm": "fixed"}, r"model.weight_norm = fixed caps factors at their spectral"),
    "start": ({"init": "xavier"}, r"model.init = 'xavier' is unknown; valid: fixed, orthonormal, spectral, svd"),
    "deviation": ({"init_std": 0.0}, r"model.init_std = 0.0 must be a number above 0"),
    "positions": ({"positions": "alibi"}, r"model.positions = 'alibi' is unknown; valid: learned, rope"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as refused:
        science_of("btt", **options)
    assert "\n" not in str(refused.value)


def test_layouts_chains_and_experts_that_an_option_does_not_fit_are_refused() -> None:
    aware = StructureConfig(science_of("btt").structure.theta, head_layout="nddn")
    for options in ({"kv_heads": 2}, {"attention_width": 16}):
        with pytest.raises(UserError, match=r"structure.head_layout = nddn lays out q, k, v and o of one shape"):
            replace(science_of("btt", **options), structure=aware)
    with pytest.raises(UserError, match=r"model.init = svd starts layers of two factors, and moe = btt has others"):
        replace(science_of("btt", init="svd"), moe=MoeConfig("btt"))
    with pytest.raises(UserError, match=r"model.init = svd starts layers of two factors, and structure btt-r2-c3"):
        structured("btt", "svd", factors=3, rank=2)


@pytest.mark.parametrize("kind", ["btt", "ffn", "dense", "low_rank"])
@pytest.mark.parametrize("option", ["narrow", "tied", "orthonormal"])
def test_mixtures_take_the_options(kind: str, option: str) -> None:
    """Counted exactly and decoded; the experts' blocks start orthonormal too."""
    options: dict[str, Any] = {
        "narrow": {"attention_width": 16, "kv_heads": 1, "positions": "rope"},
        "tied": {"tied": True, "qk_norm": False},
        "orthonormal": {"init": "orthonormal"},
    }[option]
    science = replace(science_of("btt", dtype="float64", **options), moe=MoeConfig(kind, 4, layers="all"))
    model, tokens = randomised(science).eval(), some_tokens(science)
    assert sum(parameter.numel() for parameter in model.parameters()) == ledger(science).params_total
    with torch.no_grad():
        wanted = model(tokens)
        found = torch.cat([Decoder(model).read(tokens[:, :3])], 1)
    torch.testing.assert_close(found, wanted[:, :3], rtol=1e-10, atol=1e-11)
    if option == "orthonormal" and kind == "btt":
        layer = build_gpt2(science).blocks[0].ffn.up.experts
        values = torch.linalg.svdvals(layer.A.detach().reshape(-1, *layer.param_specs()["A"].blocks))
        torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-12)


@pytest.mark.parametrize("option", OPTIONS)
def test_bfloat16_is_near_float32(option: str) -> None:
    science = science_of("btt", **OPTIONS[option])
    model, tokens = randomised(science), some_tokens(science)
    wide = cross_entropy(model(tokens), tokens.roll(-1))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = cross_entropy(model(tokens), tokens.roll(-1))
    assert float(narrow.detach()) == pytest.approx(float(wide.detach()), rel=0.1)
    narrow.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_dense_layers_are_dense_where_the_patterns_leave_them() -> None:
    """The first feed-forward network and all of attention."""
    model = GPT2(science_of("low_rank", **RECIPE))
    kinds = {
        name: type(module) for name, module in model.named_modules() if isinstance(module, DenseLinear | EinsumLinear)
    }
    assert {name for name, kind in kinds.items() if kind is EinsumLinear} == {"blocks.1.ffn.up", "blocks.1.ffn.down"}
    assert vocab_size("char96") == model.vocabulary
