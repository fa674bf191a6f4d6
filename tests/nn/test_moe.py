"""Mixtures: equal to a loop over experts on every path, forward and backward; cost what is counted; compile; resume."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels.experts import (
    chunk as chunk_products,
)
from structlin.kernels.experts import (
    chunks as expert_chunks,
)
from structlin.kernels.experts import (
    ffn as expert_ffn,
)
from structlin.kernels.experts import grouped
from structlin.kernels.experts import (
    paths as expert_products,
)
from structlin.kernels.experts.grouped import grouped_product
from structlin.nn import moe
from structlin.nn.experts import Experts
from structlin.nn.linear import LinearOptions, make_linear
from structlin.nn.moe import MoeFfn, MoeLinear, each_of
from structlin.nn.ranks import ALONE
from structlin.nn.router import (
    Part,
    Router,
    auxiliary_loss,
    count_assignments,
    part_of_batch,
    router_record,
    routers,
)
from structlin.nn.spec import collect_specs, initialise
from structlin.structure import Sizes, factorise, lookup, plan_linear
from tests.nn.moe_reference import expert_rows, loop_forward
from tests.nn.test_linear import A_FIRST, B_FIRST, CUT_AND_PADDED, PADDED_AND_CUT

EXACT = {"rtol": 0.0, "atol": 1e-9}
NUM_EXPERTS = 4
LOW_RANK = Sizes.of_two(24, 36, a=24, b=1, g=1, d=1, e=36, f=1, r=6)
LAYERS = {
    "dense": factorise(lookup("dense"), 24, 36),
    "btt": factorise(lookup("btt"), 24, 36),
    "btt-rank-3": Sizes.of_two(24, 36, a=6, b=1, g=4, d=1, e=9, f=4, r=3),
    "low-rank": LOW_RANK,
    "btt11": factorise(lookup("btt11"), 36, 24),
    "a-first": A_FIRST,
    "b-first": B_FIRST,
    "cut-and-padded": CUT_AND_PADDED,
    "padded-and-cut": PADDED_AND_CUT,
}


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """In float64, every parameter about as large as a factor of its size."""
    module = module.double()
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.copy_(randn(*parameter.shape, seed=seed + index) / math.sqrt(max([1, *parameter.shape[-1:]])))
    return module


def moe_linear(sizes: Sizes, num_experts: int = NUM_EXPERTS, top_k: int = 2, **options: Any) -> MoeLinear:
    capacity = options.pop("capacity", 0.0)
    router = Router(sizes.d_in, num_experts, top_k, base_d_in=8, capacity=capacity)
    return MoeLinear(router, Experts(plan_linear(sizes), num_experts, LinearOptions(8, **options)))


def moe_ffn(structure: str, width: int = 12, num_experts: int = NUM_EXPERTS, top_k: int = 2) -> MoeFfn:
    theta, hidden = lookup(structure), 4 * width
    up, down = factorise(theta, width, hidden), factorise(theta, hidden, width)
    experts = (Experts(plan_linear(sizes), num_experts, LinearOptions(8)) for sizes in (up, down))
    return MoeFfn(Router(width, num_experts, top_k, base_d_in=8), *experts)


def gradients(y: Tensor, layer: nn.Module, x: Tensor) -> list[Tensor]:
    cotangent = randn(*y.shape, seed=9)
    inputs = [x, *layer.parameters()]
    found = torch.autograd.grad((y * cotangent).sum(), inputs, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for i, g in zip(inputs, found, strict=True)]


@contextmanager
def on_path(monkeypatch: pytest.MonkeyPatch, path: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(expert_products, "choose_path", lambda *_: path)
        patch.setattr(expert_products, "grouped_product", poisoned_product)
        yield


def poisoned_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Grouped products with poison where they promise nothing: beyond the last group."""
    beyond = torch.arange(x.shape[0])[:, None] >= ends[-1]
    return grouped_product(x, weights, ends).masked_fill(beyond, math.nan)


def assert_equals_the_loop(layer: MoeLinear | MoeFfn, d_in: int, top_k: int) -> None:
    x = randn(23, d_in, seed=5).requires_grad_()
    y, wanted = layer(x), loop_forward(layer, x, top_k)
    torch.testing.assert_close(y, wanted, **EXACT)
    for found, expected in zip(gradients(y, layer, x), gradients(wanted, layer, x), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)


# ---- equal to the loop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["chunks", "plain", "grouped"])
@pytest.mark.parametrize("top_k", [1, 2, NUM_EXPERTS])
@pytest.mark.parametrize("sizes", LAYERS.values(), ids=LAYERS)
def test_a_layer_is_a_loop_over_its_experts(
    sizes: Sizes, top_k: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = randomised(moe_linear(sizes, top_k=top_k))
    with on_path(monkeypatch, path):
        assert_equals_the_loop(layer, sizes.d_in, top_k)


@pytest.mark.parametrize("path", ["chunks", "plain", "grouped"])
@pytest.mark.parametrize("top_k", [1, 2, NUM_EXPERTS])
@pytest.mark.parametrize("structure", ["dense", "btt", "g2", "low_rank"])
def test_an_ffn_is_a_loop_over_its_experts(
    structure: str, top_k: int, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = randomised(moe_ffn(structure, top_k=top_k))
    with on_path(monkeypatch, path):
        assert_equals_the_loop(layer, 12, top_k)


@pytest.mark.parametrize("norm", ["fixed", "learned"])
def test_caps_are_those_of_each_expert_alone(norm: str) -> None:
    layer = randomised(moe_linear(LAYERS["btt"], weight_norm=norm))
    with torch.no_grad():
        layer.experts.A[1] *= 30
        layer.experts.B[2] *= 0.01
    assert_equals_the_loop(layer, 24, 2)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_the_size_of_a_chunk_changes_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_products.torch_path, "densifies", lambda *_: False)
    monkeypatch.setattr(chunk_products.torch_path, "chunk_rows", lambda _: rows)
    monkeypatch.setattr(chunk_products.Dense, "rows", rows)
    for name in ("dense", "btt", "btt-rank-3", "low-rank", "a-first", "b-first"):
        assert_equals_the_loop(randomised(moe_linear(LAYERS[name])), LAYERS[name].d_in, 2)


def test_plain_torch_serves_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both codes on the same float32 layer, at a width where the fused kernel serves."""
    layer = randomised(moe_linear(factorise(lookup("btt"), 128, 96))).float()
    x = randn(300, 128).float().requires_grad_()
    fused = gradients(layer(x), layer, x)
    monkeypatch.setattr(chunk_products.cpp, "kernel", lambda _: None)
    monkeypatch.setattr(chunk_products.torch_path, "densifies", lambda *_: False)
    for found, expected in zip(gradients(layer(x), layer, x), fused, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["dense", "btt", "g2", "low_rank"])
def test_one_expert_is_the_layer_without_a_mixture(name: str) -> None:
    sizes = factorise(lookup(name), 24, 36)
    mixture = randomised(moe_linear(sizes, num_experts=1, top_k=1))
    layer = make_linear(plan_linear(sizes), LinearOptions(8)).double()
    with torch.no_grad():
        for parameter_name, parameter in layer.named_parameters():
            parameter.copy_(dict(mixture.experts.named_parameters())[parameter_name][0])
    x = randn(9, 24).requires_grad_()
    y, wanted = mixture(x), layer(x)
    torch.testing.assert_close(y, wanted, **EXACT)
    found, expected = gradients(y, mixture.experts, x), gradients(wanted, layer, x)
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.reshape(other.shape), other, **EXACT)


def test_a_btt_mixture_that_chooses_all_with_equal_weights_is_the_btt_of_rank_e() -> None:
    """The experts are its rank slices; zero logits give each the weight 1/E."""
    sizes = factorise(lookup("btt"), 24, 36)
    mixture = randomised(moe_linear(sizes, top_k=NUM_EXPERTS))
    with torch.no_grad():
        mixture.router.weight.zero_()
    of_rank = Sizes.of_two(24, 36, a=sizes.a, g=sizes.g, e=sizes.e, f=sizes.f, r=NUM_EXPERTS)
    whole = make_linear(plan_linear(of_rank), LinearOptions(8)).double()
    with torch.no_grad():
        whole.A.copy_(mixture.experts.A.transpose(0, 1).flatten(1, 2).view(whole.A.shape))
        whole.B.copy_(mixture.experts.B.permute(1, 2, 3, 4, 0, 5).reshape(whole.B.shape))
    x = randn(7, 24)
    torch.testing.assert_close(NUM_EXPERTS * mixture(x), whole(x), **EXACT)


@pytest.mark.parametrize("path", ["chunks", "plain", "grouped"])
def test_a_capacity_drops_terms_and_nothing_else(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = LAYERS["btt"]
    layer, x = randomised(moe_linear(sizes, capacity=1.0)), randn(40, 24).requires_grad_()
    with torch.no_grad():
        layer.router.weight[0] *= 5
    routes = layer.router(x)
    assert 0 < int(routes.kept_N().sum()) < 80
    terms = torch.zeros(40, 36, dtype=torch.float64)
    start = 0
    for expert, end in enumerate(routes.ends_E.tolist()):
        rows = expert_rows(layer.experts, expert, x[routes.token_N[start:end]])
        terms = terms.index_add(0, routes.token_N[start:end], rows * routes.weight_N[start:end, None])
        start = end
    with on_path(monkeypatch, path):
        y = layer(x)
        torch.testing.assert_close(y, terms, **EXACT)
        for found, expected in zip(gradients(y, layer, x), gradients(terms, layer, x), strict=True):
            torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("structure", ["btt", "dense"])
def test_a_mixed_ffn_drops_alike_on_every_path(structure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = randomised(moe_ffn(structure)), randn(40, 12).requires_grad_()
    layer.router.capacity = 1.0
    results = []
    for path in ("plain", "chunks", "grouped"):
        with on_path(monkeypatch, path):
            y = layer(x)
            results.append([y, *gradients(y, layer, x)])
    assert layer.router.statistics().dropped > 0
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(found, expected, **EXACT)


def test_an_expert_without_tokens_gets_a_gradient_of_zero() -> None:
    layer = randomised(moe_linear(LAYERS["btt"], top_k=1))
    x = torch.ones(6, 24, dtype=torch.float64)
    layer(x).sum().backward()
    used = int((layer.router.weight @ x[0]).argmax())
    nonzero = {e for e in range(NUM_EXPERTS) if layer.experts.A.grad[e].any()}
    assert nonzero == {used}


def test_an_expert_of_an_ffn_without_tokens_gets_a_gradient_of_zero() -> None:
    layer = randomised(moe_ffn("dense", top_k=1))
    x = torch.ones(6, 12, dtype=torch.float64)
    torch.full((1 << 16,), math.nan, dtype=torch.float64)  # what an empty tensor may find
    layer(x).sum().backward()
    used = int((layer.router.weight @ x[0]).argmax())
    for weight in (layer.up.weight, layer.down.weight):
        assert {e for e in range(NUM_EXPERTS) if weight.grad[e].any()} == {used}


# ---- precision and devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense", "btt", "low-rank"])
def test_bfloat16_is_near_float32(name: str) -> None:
    layer = randomised(moe_linear(LAYERS[name])).float()
    x = randn(64, 24).float().requires_grad_()
    wide = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x)
    assert narrow.dtype == torch.bfloat16
    scale = wide.detach().abs().max()
    assert float((narrow - wide).detach().abs().max() / scale) < 0.02
    for found, expected in zip(gradients(narrow, layer, x), gradients(wide, layer, x), strict=True):
        assert found.dtype == torch.float32
        assert float((found - expected).abs().max() / expected.abs().max()) < 0.05


def test_a_mixed_ffn_in_bfloat16_is_near_float32() -> None:
    layer, x = randomised(moe_ffn("dense")).float(), randn(64, 12).float().requires_grad_()
    wide = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x)
    assert narrow.dtype == torch.bfloat16
    assert float((narrow - wide).detach().abs().max() / wide.detach().abs().max()) < 0.03
    for found, expected in zip(gradients(narrow, layer, x), gradients(wide, layer, x), strict=True):
        assert found.dtype == torch.float32
        assert float((found - expected).abs().max() / expected.abs().max()) < 0.05


@pytest.mark.parametrize("name", ["dense", "btt"])
@pytest.mark.parametrize("capacity", [0.0, 1.0])
def test_torchs_own_grouped_product_serves(name: str, capacity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of bfloat16 on recent GPUs, on the CPU, where torch has the same operator."""
    monkeypatch.setattr(grouped, "torch_serves", lambda *_: True)
    sizes = factorise(lookup(name), 64, 256)
    layer = randomised(moe_linear(sizes, capacity=capacity)).float()
    x = randn(96, 64).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        chunks = layer(x)
        with on_path(monkeypatch, "plain"):
            plain = layer(x)
        monkeypatch.setattr(expert_products, "choose_path", lambda *_: "grouped")
        by_torch = layer(x)
    for y in (chunks, plain):
        assert float((y - by_torch).detach().abs().max()) < 0.03 * float(plain.detach().abs().max())
    for found, expected in zip(gradients(by_torch, layer, x), gradients(plain, layer, x), strict=True):
        assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("device", "dtype", "path"),
    [
        ("cpu", torch.float32, "chunks"),
        ("meta", torch.bfloat16, "chunks"),
        ("cuda", torch.bfloat16, "grouped"),
        ("cuda", torch.float32, "grouped"),
        ("cuda", torch.float64, "plain"),
    ],
)
def test_the_path_follows_device_and_dtype(device: str, dtype: torch.dtype, path: str) -> None:
    rows = SimpleNamespace(device=torch.device(device), dtype=dtype)
    assert expert_products.choose_path(rows) == path  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["btt", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_grouped_path_never_waits_for_the_device(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device a value that the host reads is an error."""
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: "grouped")
    with torch.device("meta"):
        layer = moe_linear(factorise(lookup(name), 64, 256), capacity=1.5).to(dtype)
        x = torch.zeros(40, 64, dtype=dtype, requires_grad=True)
        y = layer(x)
        (y.float().sum() + auxiliary_loss(layer, 0.1)).backward()
    assert y.shape == (40, 256)


@pytest.mark.parametrize("path", ["chunks", "grouped"])
def test_torch_compile_gives_the_same_in_one_graph(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators are opaque to it, and the losses come out of the graph."""
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: path)
    layer = randomised(moe_linear(factorise(lookup("btt"), 64, 64))).float()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for rows in (40, 40, 24):
        x = randn(rows, 64, seed=rows).float().requires_grad_()
        results = []
        for forward in (layer, compiled):
            y = forward(x)
            results.append([y, *gradients(y, layer, x), auxiliary_loss(layer, 0.1)])
        for found, wanted in zip(*results, strict=True):
            assert found.shape == wanted.shape
            assert float((found - wanted).detach().abs().max()) <= 1e-5 * float(wanted.detach().abs().max())


def test_torch_compile_takes_a_mixed_ffn_in_one_graph() -> None:
    layer = randomised(moe_ffn("dense")).float()
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for rows in (40, 24):
        x = randn(rows, 12, seed=rows).float().requires_grad_()
        results = []
        for forward in (layer, compiled):
            y = forward(x)
            results.append([y, *gradients(y, layer, x), auxiliary_loss(layer, 0.1)])
        for found, wanted in zip(*results, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.detach().abs().max()))


# ---- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["plain", "chunks"])
@pytest.mark.parametrize("name", ["dense", "btt", "low-rank", "btt11", "a-first", "b-first"])
def test_only_chosen_experts_are_computed(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by torch on the batched products that run, with the routing of random tokens; forward and backward."""
    sizes, rows, top_k, num_experts = LAYERS[name], 50, 2, 8
    layer = randomised(moe_linear(sizes, num_experts, top_k))
    x = randn(rows, sizes.d_in).requires_grad_()
    router_macs = sizes.d_in * num_experts
    with on_path(monkeypatch, path):
        with FlopCounterMode(display=False) as forward:
            y = layer(x)
        with FlopCounterMode(display=False) as backward:
            y.sum().backward()
    expected = 2 * rows * (top_k * plan_linear(sizes).macs + router_macs)
    assert forward.get_total_flops() == expected
    assert backward.get_total_flops() == 2 * expected


@pytest.mark.parametrize("path", ["plain", "chunks"])
@pytest.mark.parametrize("structure", ["dense", "btt"])
def test_only_chosen_ffns_are_computed(structure: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, rows = randomised(moe_ffn(structure, num_experts=8)), 50
    x = randn(rows, 12).requires_grad_()
    with on_path(monkeypatch, path):
        with FlopCounterMode(display=False) as forward:
            y = layer(x)
        with FlopCounterMode(display=False) as backward:
            y.sum().backward()
    work = 2 * (layer.up.plan.macs + layer.down.plan.macs)
    expected = 2 * rows * (work + 12 * 8)
    assert forward.get_total_flops() == expected
    assert backward.get_total_flops() == 2 * expected


def test_the_operator_of_whole_ffns_runs_what_it_counts() -> None:
    layer, x = randomised(moe_ffn("dense", num_experts=8)), randn(50, 12)
    routes = layer.router(x)
    common = (x, routes.weight_N, layer.up.weight, layer.down.weight, routes.token_N, routes.ends_E)
    # Torch counts mm, but not into a given tensor.
    written = {torch.ops.aten.mm.out: lambda a, b, **_: 2 * a[0] * a[1] * b[1]}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=written) as forward:
        y, inner, kept = expert_ffn.ffn_forward(*common)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=written) as backward:
        expert_ffn.ffn_backward(y, *common, inner, kept)
    useful = 2 * 50 * 2 * 2 * 12 * 48
    assert forward.get_total_flops() == useful
    assert backward.get_total_flops() == 2 * useful


def test_the_operator_runs_no_more_than_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products inside it, counted as they run: those of k experts, and z once more in the backward pass."""
    sizes, rows = LAYERS["btt-rank-3"], 50
    monkeypatch.setattr(chunk_products.torch_path, "densifies", lambda *_: False)
    layer, x = randomised(moe_linear(sizes, 8, 2)), randn(rows, 24)
    routes = layer.router(x)
    first, second = layer.experts._products(x)
    common = (x, routes.weight_N, first, second, routes.token_N, routes.ends_E, True)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        expert_chunks.experts_forward(*common, rows, True, True)
    # Torch counts baddbmm, but not in place.
    in_place = {torch.ops.aten.baddbmm_: lambda total, a, b, **_: 2 * a[0] * a[1] * a[2] * b[2]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as backward, torch.no_grad():
        expert_chunks.experts_backward(randn(rows, 36), *common, True, True)
    useful = 2 * rows * 2 * plan_linear(sizes).macs
    again = 2 * rows * 2 * sizes.d_in * sizes.r * sizes.f
    assert forward.get_total_flops() == useful
    assert backward.get_total_flops() == 2 * useful + again


def test_parameters_are_those_of_all_experts() -> None:
    for sizes in LAYERS.values():
        plan = plan_linear(sizes)
        assert sum(p.numel() for p in Experts(plan, 5, LinearOptions(8)).parameters()) == 5 * plan.params


# ---- start, rates, state --------------------------------------------------------------------------------------------


def test_experts_start_and_learn_as_if_alone() -> None:
    sizes = factorise(lookup("btt"), 256, 1024)
    layer = moe_linear(sizes, 8, 2, starts_at_zero=True)
    initialise(layer, 0)
    specs = collect_specs(layer)
    for factor in plan_linear(sizes).factors:
        assert specs[f"experts.{factor.name}"].rate == factor.adam_multiplier(8)
    first, last = plan_linear(sizes).factors
    stds = getattr(layer.experts, first.name).detach().flatten(1).std(1)
    torch.testing.assert_close(stds, torch.full((8,), first.std), rtol=0.05, atol=0)
    assert not getattr(layer.experts, last.name).any()
    assert not layer.router.weight.any()


def test_its_state_is_a_plain_dictionary_that_restores_it() -> None:
    layer, other = (randomised(moe_ffn("btt"), seed) for seed in (0, 100))
    x = randn(10, 12)
    layer(x)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), other(x))
    assert set(layer.state_dict()) == {"router.weight", "up.A", "up.B", "down.A", "down.B"}


def test_equal_inputs_give_equal_bits() -> None:
    layer = randomised(moe_linear(factorise(lookup("btt"), 64, 64), 8, 3)).float()
    x = randn(500, 64).float().requires_grad_()
    once, again = (gradients(layer(x), layer, x) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


# ---- several mixtures that read the same ----------------------------------------------------------------------------


def three(sizes: Sizes, **options: Any) -> nn.ModuleList:
    """Mixtures of equal sizes; one of them has routers at their start, where all experts tie."""
    layers = nn.ModuleList([randomised(moe_linear(sizes, **options), seed) for seed in (0, 20, 40)])
    nn.init.zeros_(layers[1].router.weight)
    return layers


@pytest.mark.parametrize("mode", ["train", "eval", "parts", "rank"])
@pytest.mark.parametrize("sizes", LAYERS.values(), ids=LAYERS)
def test_joined_they_make_and_keep_what_each_makes_and_keeps(
    sizes: Sizes, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, gradients, losses, statistics and the counts of a batch in parts, in float64."""
    layers = three(sizes, weight_norm="learned", shares_cap=True)
    x = randn(2, 11, sizes.d_in, seed=5).requires_grad_()
    layers.train(mode != "eval")
    for _, router in routers(layers):
        router.expect(Part(2 if mode == "parts" else 1), 0)
        router.ranks = Middle() if mode == "rank" else ALONE
    results = []
    with on_path(monkeypatch, "grouped"):
        for joins in (True, False):
            monkeypatch.setattr(moe, "_joins", lambda *_, joins=joins: joins)
            part_of_batch(layers, Part(2 if mode == "parts" else 1), 0)
            found = each_of(list(layers), x)
            assert [y.shape for y in found] == [(2, 11, sizes.d_out)] * 3
            counted = count_assignments(layers) if mode == "parts" else None
            loss = auxiliary_loss(layers, 0.1, None if counted is None else 2 * counted)
            assert (loss is None) == (mode == "eval")
            known = torch.zeros(0) if counted is None else counted.double()
            total = torch.cat([*(y.flatten() for y in found), *([] if loss is None else [loss[None]])])
            results.append((total, known, *gradients(total, layers, x), router_record(layers)))
    for joined, alone in zip(*(result[:-1] for result in results), strict=True):
        torch.testing.assert_close(joined, alone, rtol=0, atol=1e-12)
    assert results[0][-1] == results[1][-1]
    assert (results[0][-1] is None) == (mode == "eval")


class Middle:
    """The second of three ranks, whose sums are its own."""

    rank, world_size = 1, 3

    def sum(self, values: Tensor) -> Tensor:
        return values

    def mean(self, values: Tensor) -> Tensor:
        return values


GPU = SimpleNamespace(device=torch.device("cuda"))


@pytest.mark.parametrize(
    ("kinds", "dtype", "joins"),
    [
        (["btt"] * 3, torch.bfloat16, True),
        (["btt"] * 3, torch.float16, False),
        (["btt"] * 3, None, False),
        (["btt", "btt", "dense"], torch.bfloat16, False),
        (["btt", "btt", "none"], torch.bfloat16, False),
        (["btt", "capacity", "btt"], torch.bfloat16, False),
        (["capacity"] * 3, torch.bfloat16, False),
        (["dense"] * 3, torch.bfloat16, True),
        (["many"] * 2, torch.bfloat16, True),
        (["many"] * 3, torch.bfloat16, False),
    ],
)
def test_mixtures_of_one_size_are_joined_on_a_gpu_in_bfloat16(
    kinds: list[str], dtype: torch.dtype | None, joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``many``: 512 groups, of which torch's grouped product takes less than two of them."""
    btt = factorise(lookup("btt"), 64, 64)
    made = {
        "btt": lambda: moe_linear(btt),
        "dense": lambda: moe_linear(factorise(lookup("dense"), 64, 64)),
        "capacity": lambda: moe_linear(btt, capacity=1.5),
        "many": lambda: moe_linear(btt, num_experts=63),
        "none": lambda: nn.Linear(64, 64),
    }
    monkeypatch.setattr(moe, "product_dtype", lambda _: dtype)
    first, *others = (made[kind]() for kind in kinds)
    assert moe._joins(first, others, GPU) is joins  # type: ignore[arg-type]
    assert not moe._joins(first, others, torch.zeros(3, 64))


@pytest.mark.parametrize("of", [1, 2])
def test_joined_they_never_wait_for_the_device_and_are_one_graph(of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts too: the second one's ties and counts go on from the first."""
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: "grouped")
    monkeypatch.setattr(moe, "_joins", lambda *_: True)
    with torch.device("meta"):
        layers = nn.ModuleList([moe_linear(factorise(lookup("btt"), 64, 64)) for _ in range(3)])
        x = torch.zeros(40, 64, requires_grad=True)
        (torch.stack(each_of(list(layers), x)).sum() + auxiliary_loss(layers, 0.1)).backward()
    torch._dynamo.reset()
    layers = three(factorise(lookup("btt"), 64, 64)).float()
    x = randn(40, 64).float().requires_grad_()
    results = []
    for compiles in (True, False):
        whole = torch.compile(partial(each_of, list(layers)), fullgraph=True, backend="aot_eager", disable=not compiles)
        found = []
        for index in range(of):
            part_of_batch(layers, Part(of), index)
            y = torch.stack(whole(x))
            loss = auxiliary_loss(layers, 0.1)
            assert loss is not None
            found += [y, loss, *gradients(torch.cat([y.flatten(), loss[None]]), layers, x)]
        found += [torch.as_tensor(router.counted_E) for _, router in routers(layers)]
        results.append(found)
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["dense", "btt"])
@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_joined_in_bfloat16_they_are_each_alone_but_for_rounding(
    name: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = three(factorise(lookup(name), 64, 64)).float().to(device)
    x = randn(96, 64).float().to(device).requires_grad_()
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: "grouped")
    results = []
    for joins in (True, False):
        monkeypatch.setattr(moe, "_joins", lambda *_, joins=joins: joins)
        with torch.autocast(device, torch.bfloat16):
            y = torch.stack(each_of(list(layers), x))
        cotangent = randn(*y.shape, seed=9).to(y)
        results.append([y, *torch.autograd.grad((y * cotangent).sum(), [x, *layers.parameters()])])
    for joined, alone in zip(*results, strict=True):
        assert joined.dtype == alone.dtype
        assert float((joined - alone).detach().abs().max()) < 0.02 * float(alone.detach().abs().max())
