"""Causal attention equals its definition in float64, forward and backward, whatever runs; and it sees no future."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels import compiler
from structlin.kernels.attention import attention
from structlin.kernels.attention.attention import causal_attention

# (N, T, H, K): whole blocks, single tokens, tokens beyond a block, odd and even numbers of vectors a head.
SHAPES = [(2, 64, 3, 64), (3, 1, 2, 32), (2, 7, 2, 16), (1, 131, 2, 48), (1, 200, 1, 128)]


def operands(shape: tuple[int, ...], size: float = 1.0) -> list[Tensor]:
    """q and k off centre, v, both gains (``size`` large), dy."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, dy = (torch.randn(shape, generator=generator) for _ in range(4))
    gains = [size * (0.5 + torch.rand(shape[-1], generator=generator)) for _ in "qk"]
    return [*(tensor.requires_grad_() for tensor in (3 * q - 1, k / 4 + 2, v, *gains)), dy]


def normed(x: Tensor, gain: Tensor) -> Tensor:
    """A layer norm by its definition."""
    centred = x - x.mean(-1, keepdim=True)
    return gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def defined(q: Tensor, k: Tensor, v: Tensor, q_gain: Tensor, k_gain: Tensor, scale: float) -> Tensor:
    """The definition, in plain products."""
    q, k = normed(q, q_gain), normed(k, k_gain)
    scores_NHTS = scale * torch.einsum("nthk,nshk->nhts", q, k)
    future = torch.ones(scores_NHTS.shape[-2:], dtype=torch.bool).triu(1)
    return torch.einsum("nhts,nshk->nthk", scores_NHTS.masked_fill(future, -math.inf).softmax(-1), v)


def results(function, *tensors: Tensor, scale: float = 0.25) -> list[Tensor]:
    *leaves, dy = tensors
    y = function(*leaves, scale)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def expected(*tensors: Tensor) -> list[Tensor]:
    return results(defined, *(tensor.detach().double().requires_grad_() for tensor in tensors))


def assert_near(found: list[Tensor], wanted: list[Tensor], limit: float = 3e-6) -> None:
    for left, right in zip(found, wanted, strict=True):
        assert left.shape == right.shape
        assert left.dtype == torch.float32
        assert (left.double() - right).abs().max() <= limit * right.abs().max()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_definition(shape: tuple[int, ...]) -> None:
    tensors = operands(shape)
    assert_near(results(causal_attention, *tensors), expected(*tensors))


@pytest.mark.parametrize("shape", SHAPES[2:4], ids=str)
def test_torch_serves_where_nothing_can_be_built(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "kernel", lambda _: None)
    tensors = operands(shape)
    assert_near(results(torch.ops.structlin.attention.default, *tensors), expected(*tensors))


def test_the_kernel_serves_where_there_is_a_compiler() -> None:
    assert (attention.kernel(64) is not None) == (compiler.find_compiler() is not None)
    name = type(causal_attention(*operands(SHAPES[0])[:5], 0.25).grad_fn).__name__
    assert ("structlin_attention" in name) == (compiler.find_compiler() is not None)


def test_large_scores_neither_overflow_nor_lose_their_gradient() -> None:
    """Scores of some thousand: the softmax is all but one-hot, the smallest weights are exactly 0."""
    tensors = operands((1, 70, 2, 32), size=30.0)
    found = results(causal_attention, *tensors)
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    assert_near(found[:1], expected(*tensors)[:1], limit=1e-3)


def test_a_nan_reaches_only_what_sees_it() -> None:
    q, k, *others, _ = operands((1, 80, 1, 32))
    with torch.no_grad():
        k[0, 40] = math.nan
        y = causal_attention(q, k, *others, 0.25)
    assert bool(y[0, :40].isfinite().all())
    assert bool(y[0, 40:].isnan().all())


def test_no_later_token_changes_a_bit() -> None:
    *leaves, _ = operands((1, 80, 2, 32))
    with torch.no_grad():
        before = causal_attention(*leaves, 0.25)
        for tensor in leaves[:3]:
            tensor[:, 50:] *= torch.linspace(-1, 2, 32)
        after = causal_attention(*leaves, 0.25)
    assert torch.equal(before[:, :50], after[:, :50])
    assert not torch.equal(before[:, 50:], after[:, 50:])


def test_bits_are_equal_under_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LEAST_MACS", 1)
    tensors = operands((3, 40, 5, 32))
    found = []
    for threads in (1, 1, 4, 100):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(results(causal_attention, *tensors))
    for other in found[1:]:
        assert all(torch.equal(left, right) for left, right in zip(found[0], other, strict=True))


def test_strided_operands_are_served() -> None:
    tensors = operands((2, 36, 3, 32))
    strided = [
        (tensor.detach().mT.contiguous().mT if tensor.dim() > 1 else tensor.detach()).requires_grad_()
        for tensor in tensors
    ]
    assert_near(results(causal_attention, *strided), expected(*tensors))


@pytest.mark.parametrize("options", [{"dtype": torch.float64}, {"dtype": torch.float32, "features": 8}], ids=str)
def test_other_dtypes_and_sizes_take_the_plain_way(options: dict) -> None:
    shape = (2, 9, 2, options.get("features", 16))
    tensors = [tensor.detach().to(options["dtype"]).requires_grad_() for tensor in operands(shape)]
    found = results(causal_attention, *tensors)
    assert_near([tensor.float() for tensor in found], expected(*tensors))
    assert all(tensor.dtype == options["dtype"] for tensor in found)


def test_autocast_keeps_its_dtype() -> None:
    *leaves, _ = operands((2, 9, 2, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert causal_attention(*leaves, 0.25).dtype == torch.bfloat16


def test_flops_are_those_of_torchs_attention() -> None:
    counts = []
    for device in ("cpu", "meta"):
        *leaves, dy = (tensor.detach().to(device).requires_grad_() for tensor in operands((2, 33, 3, 16)))
        function = torch.ops.structlin.attention.default if device == "cpu" else causal_attention
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(function(*leaves, 0.25), dy)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 3 * 4 * 2 * 3 * 33**2 * 16


def test_operators_keep_torchs_contract() -> None:
    *leaves, dy = operands((2, 9, 2, 16))
    torch.library.opcheck(torch.ops.structlin.attention.default, (*leaves, 0.25))
    plain = (tensor.detach() for tensor in (dy, *leaves))
    torch.library.opcheck(torch.ops.structlin.attention_backward.default, (*plain, 0.25))


def test_torch_compile_keeps_one_graph() -> None:
    tensors = operands((2, 33, 2, 32))
    compiled = torch.compile(causal_attention, fullgraph=True, backend="aot_eager")
    assert_near(results(compiled, *tensors), expected(*tensors))
