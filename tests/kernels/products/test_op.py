"""The operators equal the reference, forward and backward, through autograd, torch.compile and the FLOP counter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels import compiler
from structlin.kernels.backends import backend_name
from structlin.kernels.limits import FUSED_LEAST_WIDTH
from structlin.kernels.products import cpp, op, torch_path
from structlin.kernels.products import face as kernels
from structlin.kernels.products.face import structured_product
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.torch_path import tokens_last
from tests.kernels.products.reference import CASES, GELU_CASES, assert_equal, expected, named, operands


def run(function, sizes, rows):
    *inputs, dy = operands(sizes, rows)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = function(*leaves, sizes.a_first, sizes.gelu)
    return (y, *torch.autograd.grad(y, leaves, dy)), expected(sizes, *inputs, dy)


@pytest.mark.parametrize("rows", [1, 48, 131])
@pytest.mark.parametrize("sizes", [*CASES, *GELU_CASES], ids=named)
def test_equals_the_reference(sizes, rows):
    assert_equal(*run(op.products, sizes, rows))
    assert_equal(*run(structured_product, sizes, rows))


@pytest.mark.parametrize(("width", "served"), [(FUSED_LEAST_WIDTH // 2, False), (FUSED_LEAST_WIDTH, True)])
def test_narrow_layers_build_nothing(width, served, monkeypatch):
    calls = []
    monkeypatch.setattr(kernels, "products", lambda *operands: calls.append(operands) or op.products(*operands))
    sizes = ProductSizes(g=width // 8, b=1, a=8, r=1, f=8, d=1, e=width // 8, a_first=True)
    assert_equal(*run(structured_product, sizes, 30))
    assert bool(calls) == served


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
# bfloat16 keeps 8 bits, and what lies between the products is rounded to them.
LIMITS = {torch.float32: 3e-6, torch.bfloat16: 4 * 2**-8}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("sizes", [*CASES[1:6], *GELU_CASES[:2]], ids=named)
def test_every_device_and_dtype(sizes, dense, dtype, device, monkeypatch):
    monkeypatch.setattr(torch_path, "densifies", lambda *_: dense)
    *inputs, dy = (tensor.to(device, dtype) for tensor in operands(sizes, 700))
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = op.products(*leaves, sizes.a_first, sizes.gelu)
    found = (y, *torch.autograd.grad(y, leaves, dy))
    for left, right in zip(found, expected(sizes, *inputs, dy), strict=True):
        assert left.dtype == dtype
        assert (left.double() - right).abs().max() <= LIMITS[dtype] * right.abs().max()


small = st.integers(1, 6)


@settings(max_examples=5, deadline=None, derandomize=True)  # each builds a kernel
@given(st.tuples(small, small, st.integers(1, 20), st.integers(1, 3), small, small, st.integers(1, 20)), st.booleans())
def test_equals_the_reference_at_any_size(values, a_first):
    assert_equal(*run(op.products, ProductSizes(*values, a_first), rows=50))


def test_the_fused_kernel_runs_where_there_is_a_compiler():
    kernel = cpp.kernel(CASES[0])
    assert (kernel is not None) == (compiler.find_compiler() is not None)
    assert backend_name(torch.device("cpu"), torch.float32).startswith("torch" if kernel is None else "cpp (g++")
    assert backend_name(torch.device("cpu"), torch.bfloat16) == backend_name(torch.device("cpu"), torch.float32)
    assert backend_name(torch.device("cpu"), torch.float64) == "torch"


def test_equal_inputs_give_equal_bits():
    first_time, _ = run(op.products, CASES[1], 500)
    again, _ = run(op.products, CASES[1], 500)
    assert all(torch.equal(left, right) for left, right in zip(first_time, again, strict=True))


def test_threads_share_the_rows(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found, wanted = run(op.products, CASES[2], 1300)
    assert_equal(found, wanted)


@pytest.mark.parametrize(("rows", "threads"), [(1, 4), (48, 2), (1000, 2), (8192, 3), (1537, 7)])
def test_runs_cover_all_rows(rows, threads):
    runs = cpp.split_rows(rows, 48, threads)
    assert [row for run in runs for row in range(run.start, run.stop)] == list(range(rows))
    assert len(runs) <= threads
    assert all(run.start % 48 == 0 for run in runs)


@pytest.mark.parametrize("sizes", CASES, ids=named)
@pytest.mark.parametrize("needs", [(True, True, True), (False, True, True), (True, False, False)])
def test_flops_equal_those_of_the_plain_pair(sizes, needs):
    counts = []
    for function in (op.products, tokens_last):
        *inputs, dy = operands(sizes, 10)
        leaves = [tensor.requires_grad_(need) for tensor, need in zip(inputs, needs, strict=True)]
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(function(*leaves, sizes.a_first), dy)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_gradients_that_are_not_needed_are_not_made():
    x, first, second, dy = operands(CASES[2], 60)
    x.requires_grad_()
    y = op.products(x, first, second, True)
    (dx,) = torch.autograd.grad(y, x, dy)
    assert_equal((dx,), expected(CASES[2], x, first, second, dy)[1:2])
    dx, d_first, d_second = torch.ops.structlin.products_backward.default(
        dy, x.detach(), first, second, True, False, True
    )
    assert dx.numel() == 0
    assert_equal((d_first, d_second), expected(CASES[2], x, first, second, dy)[2:])


def test_operators_keep_torchs_contract():
    *inputs, dy = operands(CASES[2], 60)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    torch.library.opcheck(torch.ops.structlin.products.default, (*leaves, True))
    torch.library.opcheck(
        torch.ops.structlin.products_backward.default, (dy, *(leaf.detach() for leaf in leaves), True, True, True)
    )


@pytest.mark.skipif(compiler.find_compiler() is None, reason="the fused kernel needs g++")
def test_gelu_is_float32s_on_a_whole_range_of_inputs():
    # One product by ones and one by the identity: y and dx are GELU and its slope, entry by entry.
    x = torch.linspace(-12, 12, 64 * 800).view(800, 64).requires_grad_()
    y = op.products(x, torch.ones(64, 1, 1, 1, 1), torch.eye(64).view(1, 64, 64, 1, 1), True, True)
    (slope,) = torch.autograd.grad(y.sum(), x)
    exact = x.detach().double()
    share = torch.special.erfc(-exact / 2**0.5) / 2
    wanted, density = exact * share, torch.exp(-exact.square() / 2) / (2 * torch.pi) ** 0.5
    assert (y - wanted).abs().max() < 6e-7
    assert (slope - share - exact * density).abs().max() < 4e-7
    # Far below zero nothing cancels: what is left is right relative to itself.
    tail = (x < -1) & (x > -5)
    assert (y[tail] / wanted[tail] - 1).abs().max() < 2e-3


def test_torch_compile_keeps_one_graph():
    compiled = torch.compile(structured_product, fullgraph=True, backend="aot_eager")
    assert_equal(*run(compiled, CASES[2], 60))
    assert_equal(*run(compiled, GELU_CASES[1], 60))


def test_strided_inputs_are_served():
    x, first, second, dy = operands(CASES[2], 60)
    wanted = expected(CASES[2], x, first, second, dy)
    strided = x.t().contiguous().t()
    assert_equal((op.products(strided, first, second, True),), wanted[:1])
    found = torch.ops.structlin.products_backward.default(
        dy.t().contiguous().t(), strided, first, second, True, True, True
    )
    assert_equal(found, wanted[1:])


def test_other_dtypes_take_the_plain_way():
    *inputs, _ = operands(CASES[3], 6)
    leaves = tuple(tensor.double().requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(lambda *tensors: structured_product(*tensors, False), leaves)


def test_autocast_gives_its_dtype_and_gradients_of_the_weights():
    sizes = CASES[1]
    *inputs, dy = operands(sizes, 60)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        y = structured_product(*leaves, sizes.a_first)
    assert y.dtype == torch.bfloat16
    found = (y, *torch.autograd.grad(y, leaves, dy.bfloat16()))
    assert [tensor.dtype for tensor in found[1:]] == [torch.float32] * 3
    for left, right in zip(found, expected(sizes, *inputs, dy), strict=True):
        assert (left.double() - right).abs().max() <= 2 * LIMITS[torch.bfloat16] * right.abs().max()


def test_factors_that_do_not_belong_together_are_named():
    with pytest.raises(ValueError, match="do not share f, g and r"):
        ProductSizes.of((2, 1, 3, 1, 4), (3, 4, 2, 1, 2), True)
