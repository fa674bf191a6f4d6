"""The fused kernel of experts equals a loop over them in float64, whatever the routes, blocks, threads and vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels import compiler
from structlin.kernels.experts import cpp as moe_cpp
from structlin.kernels.experts import paths as expert_products
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.steps.library import library
from structlin.nn.experts import Experts
from structlin.nn.linear import LinearOptions
from structlin.nn.moe import MoeFfn, MoeLinear
from structlin.nn.router import Router
from structlin.structure import Sizes, factorise, lookup, plan_linear, plan_theta
from tests.nn.moe_reference import loop_forward

RELATIVE = 1e-5
LAYERS = {
    "btt-512": factorise(lookup("btt"), 512, 512),
    "btt-wider": factorise(lookup("btt"), 96, 160),
    "btt-odd": Sizes.of_two(65, 66, a=13, b=1, g=5, d=1, e=11, f=6, r=1),
    "btt-rank-3": Sizes.of_two(72, 84, a=9, b=1, g=8, d=1, e=7, f=12, r=3),
    "low-rank": Sizes.of_two(72, 65, a=72, b=1, g=1, d=1, e=65, f=1, r=6),
}


def random_layer(sizes: Sizes, num_experts: int = 4, top_k: int = 2, capacity: float = 0.0) -> MoeLinear:
    router = Router(sizes.d_in, num_experts, top_k, base_d_in=8, capacity=capacity)
    return _filled(MoeLinear(router, Experts(plan_linear(sizes), num_experts, LinearOptions(8))))


def random_ffn(width: int, num_experts: int = 4) -> MoeFfn:
    btt = lookup("btt")
    experts = (Experts(plan_theta(btt, *ends), num_experts, LinearOptions(8)) for ends in ((width, 128), (128, width)))
    return _filled(MoeFfn(Router(width, num_experts, 2, base_d_in=8), *experts))


def _filled(layer: Any) -> Any:
    # Here, since layers draw their own start when they are made.
    torch.manual_seed(1)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    return layer


def results(layer: nn.Module, x: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """y and the gradients of x and of every parameter, towards a fixed random direction."""
    x = x.detach().requires_grad_()
    y = (layer if forward is None else forward)(x)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], dy)]


def in_float64(layer: MoeLinear | MoeFfn) -> Any:
    """The same layer where the kernel does not serve."""
    layer.router.take_scores()  # of the last batch: they are no leaves, which a copy cannot hold
    return copy.deepcopy(layer).double()


def assert_near(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Relative to the largest entry of each tensor."""
    for left, right in zip(found, wanted, strict=True):
        assert left.shape == right.shape
        assert float((left.double() - right).abs().max()) <= RELATIVE * float(right.abs().max())


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernel's passes that ran; empty where torch served instead."""
    seen: list[str] = []
    for name in ("forward", "backward"):
        original = getattr(moe_cpp.Kernel, name)

        def spy(*operands: Any, name: str = name, original: Any = original) -> Any:
            seen.append(name)
            return original(*operands)

        monkeypatch.setattr(moe_cpp.Kernel, name, spy)
    return seen


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("sizes", LAYERS.values(), ids=LAYERS)
def test_a_layer_is_a_loop_over_its_experts(sizes: Sizes, top_k: int, calls: list[str]) -> None:
    layer = random_layer(sizes, top_k=top_k)
    x = torch.randn(61, sizes.d_in)
    found = results(layer, x)
    assert calls == ["forward", "backward"]
    exact = in_float64(layer)
    assert_near(found, results(exact, x.double(), lambda rows: loop_forward(exact, rows, top_k)))


def test_a_mixed_ffn_is_a_loop_over_its_experts(calls: list[str]) -> None:
    """Its first layer leaves a row an assignment, its second reads them."""
    layer = random_ffn(64)
    x = torch.randn(61, 64)
    found = results(layer, x)
    assert calls == ["forward", "forward", "backward", "backward"]
    exact = in_float64(layer)
    assert_near(found, results(exact, x.double(), lambda rows: loop_forward(exact, rows, 2)))


@pytest.mark.parametrize("capacity", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("tokens", [1, 511, 1300])
def test_blocks_of_tokens_and_dropped_assignments_change_nothing(tokens: int, capacity: float) -> None:
    """Against the torch path in float64, which equals the loop; an expert is overfull, so that a capacity drops."""
    layer = random_layer(LAYERS["btt-wider"], 8, capacity=capacity)
    with torch.no_grad():
        layer.router.weight[0] += 1.0
    x = torch.randn(tokens, 96) + 0.2
    assert_near(results(layer, x), results(in_float64(layer), x.double()))


@pytest.mark.parametrize("capacity", [0.0, 0.3])
def test_a_mixed_ffn_of_many_tokens_drops_alike(capacity: float) -> None:
    layer = random_ffn(64, 8)
    layer.router.capacity = capacity
    x = torch.randn(1300, 64)
    assert_near(results(layer, x), results(in_float64(layer), x.double()))


def test_experts_without_tokens_have_gradients_of_zero() -> None:
    layer = random_layer(LAYERS["btt-wider"], 8, top_k=1)
    x = torch.randn(1, 96).expand(70, 96)
    used = int((layer.router.weight @ x[0]).argmax())
    torch.full((1 << 20,), torch.nan)  # what an empty tensor may find
    _, _, _, d_first, d_second = results(layer, x)
    for gradient in (d_first, d_second):
        assert {expert for expert in range(8) if gradient[expert].any()} == {used}


def test_threads_share_tokens_and_repeat_bit_by_bit() -> None:
    layer, x = random_layer(LAYERS["btt-wider"], 8), torch.randn(1300, 96)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found, again = results(layer, x), results(layer, x)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(left, right) for left, right in zip(found, again, strict=True))
    assert_near(found, results(in_float64(layer), x.double()))


def test_what_an_expert_computes_depends_on_its_own_rows_only() -> None:
    layer, x = random_layer(LAYERS["btt-wider"], 8).eval(), torch.randn(700, 96)
    with torch.no_grad():
        assert torch.equal(layer(x)[:20], layer(x[:20]))


def test_without_a_compiler_torch_serves(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    layer, x = random_layer(LAYERS["btt-wider"]), torch.randn(61, 96)
    monkeypatch.setenv("PATH", "")
    caches = (compiler.find_compiler, moe_cpp.kernel, library, compiler._say_once)
    for cache in caches:
        cache.cache_clear()
    try:
        found = results(layer, x)
    finally:
        for cache in caches:
            cache.cache_clear()
    assert calls == []
    assert_near(found, results(in_float64(layer), x.double()))


def test_shared_factors_and_narrow_layers_have_no_such_kernel(calls: list[str]) -> None:
    assert not moe_cpp.serves(ProductSizes(g=8, b=2, a=8, r=1, f=8, d=1, e=16, a_first=True))
    results(random_layer(factorise(lookup("btt"), 32, 128)), torch.randn(9, 32))
    assert calls == []


def test_torch_compile_takes_it_as_one_operator(calls: list[str]) -> None:
    layer, x = random_layer(LAYERS["btt-wider"]), torch.randn(61, 96)
    wanted = results(layer, x)
    torch._dynamo.reset()
    found = results(layer, x, torch.compile(layer, fullgraph=True, backend="aot_eager"))
    assert calls == ["forward", "backward"] * 2
    assert_near(found, [tensor.double() for tensor in wanted])


def test_its_flops_are_those_of_the_plain_path(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    layer, x = random_layer(LAYERS["btt-wider"]), torch.randn(61, 96, requires_grad=True)
    with FlopCounterMode(display=False) as fused:
        layer(x).sum().backward()
    assert calls == ["forward", "backward"]
    monkeypatch.setattr(expert_products, "choose_path", lambda *_: "plain")
    with FlopCounterMode(display=False) as plain:
        layer(x).sum().backward()
    assert fused.get_total_flops() == plain.get_total_flops() > 0


def test_narrow_vectors_and_tiles_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms for AVX2 and for no vectors, which this machine would not choose, and the tiles of wider layers."""
    layer, x = random_layer(LAYERS["btt-odd"]), torch.randn(150, 65)
    wanted = results(in_float64(layer), x.double())
    sizes = ProductSizes(g=5, b=1, a=13, r=1, f=6, d=1, e=11, a_first=True)
    x86 = compiler.platform.machine() in ("x86_64", "AMD64")
    narrow = [["-mno-avx512f"], ["-mno-avx512f", "-mno-avx2", "-mno-avx"]] if x86 else []
    for rows, flags in [(32, []), (16, []), *((48, flags) for flags in narrow)]:
        monkeypatch.setattr(moe_cpp, "tile_rows", lambda _, rows=rows: rows)
        library = compiler.load(moe_cpp._SOURCE, [*moe_cpp._defines(sizes), *flags])
        assert library is not None
        built = moe_cpp.Kernel(sizes, library)
        with monkeypatch.context() as patch:
            patch.setattr(moe_cpp, "kernel", lambda _, built=built: built)
            assert_near(results(layer, x), wanted)


def test_wide_layers_have_small_tiles() -> None:
    rows = [moe_cpp.tile_rows(_roles(factorise(lookup("btt"), d, 4 * d))) for d in (128, 512, 1024, 4096)]
    assert rows == [48, 48, 32, 16]


def _roles(sizes: Sizes) -> ProductSizes:
    s = sizes
    return ProductSizes(s.g, s.b, s.a, s.r, s.f, s.d, s.e, a_first=True)


def test_rows_of_dropped_assignments_are_zero_where_nothing_is_combined() -> None:
    layer = random_layer(LAYERS["btt-wider"], 8, capacity=0.1)
    x = torch.randn(64, 96)
    routes = layer.router(x)
    torch.full((1 << 20,), torch.nan)  # what an empty tensor may find
    rows = layer.experts(x, routes, combines=False)
    assert int(routes.ends_E[-1]) < len(rows)
    assert not rows[int(routes.ends_E[-1]) :].any()
