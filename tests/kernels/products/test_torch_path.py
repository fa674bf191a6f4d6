"""Without a compiler: the plain pair, its chunks and its dense form equal the reference."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from structlin.kernels.products import face as kernels
from structlin.kernels.products import shared_factors, torch_path
from structlin.kernels.products.layout import ProductSizes
from tests.kernels.products.reference import CASES, assert_equal, expected, named, operands


@pytest.mark.parametrize("sizes", CASES, ids=named)
def test_tokens_last_equals_the_reference(sizes):
    *inputs, dy = operands(sizes, 30)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    y = torch_path.tokens_last(*leaves, sizes.a_first)
    assert_equal((y, *torch.autograd.grad(y, leaves, dy)), expected(sizes, *inputs, dy))


# One group only, with enough columns that nothing is permuted; and each gradient left out in turn.
ONE_GROUP = ProductSizes(g=1, b=5, a=7, r=3, f=1, d=16, e=9, a_first=True)


@pytest.mark.parametrize("sizes", [*CASES, ONE_GROUP], ids=named)
@pytest.mark.parametrize(
    "needs", [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_rows_first_equals_the_reference(sizes, needs):
    *inputs, dy = operands(sizes, 30)
    leaves = [tensor.requires_grad_(need) for tensor, need in zip(inputs, needs, strict=True)]
    y = shared_factors.rows_first(*leaves, sizes.a_first)
    wanted_y, *wanted = expected(sizes, *inputs, dy)
    found = torch.autograd.grad(y, [leaf for leaf in leaves if leaf.requires_grad], dy)
    assert_equal((y, *found), (wanted_y, *(gradient for gradient, need in zip(wanted, needs, strict=True) if need)))


def test_rows_first_counts_the_flops_of_the_pair():
    counts = []
    for function in (shared_factors.rows_first, torch_path.tokens_last):
        *inputs, dy = operands(ONE_GROUP, 10)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(function(*(tensor.requires_grad_() for tensor in inputs), True), dy)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(("backend", "kept"), [("torch", True), ("cpp", False)])
def test_shared_factors_keep_z_only_without_a_compiler(backend, kept, monkeypatch):
    wide = ProductSizes(g=1, b=32, a=32, r=1, f=1, d=32, e=32, a_first=True)
    calls = []
    monkeypatch.setattr(kernels, "backend_of", lambda device, dtype: backend)
    monkeypatch.setattr(kernels, "rows_first", lambda *operands: calls.append(operands) or operands[0])
    x, first, second, _ = operands(wide, 4)
    kernels.structured_product(x, first, second, True)
    assert bool(calls) == kept


@pytest.mark.parametrize("densify", [False, True], ids=["chunks", "dense"])
@pytest.mark.parametrize("sizes", CASES, ids=named)
def test_both_forms_equal_the_reference(monkeypatch, sizes, densify):
    monkeypatch.setattr(torch_path, "densifies", lambda *_: densify)
    monkeypatch.setattr(torch_path, "CHUNK_FLOATS", 0)
    x, first, second, dy = operands(sizes, 300)
    wanted = expected(sizes, x, first, second, dy)
    assert_equal((torch_path.forward(x, first, second, sizes),), wanted[:1])
    assert_equal(torch_path.backward(dy, x, first, second, sizes, True, True), wanted[1:])


@pytest.mark.parametrize("densify", [False, True], ids=["chunks", "dense"])
def test_unneeded_gradients_are_left_out(monkeypatch, densify):
    monkeypatch.setattr(torch_path, "densifies", lambda *_: densify)
    x, first, second, dy = operands(CASES[2], 20)
    _, dx, d_first, d_second = expected(CASES[2], x, first, second, dy)
    only_x = torch_path.backward(dy, x, first, second, CASES[2], True, False)
    assert_equal(only_x[:1], (dx,))
    assert only_x[1:] == (None, None)
    only_factors = torch_path.backward(dy, x, first, second, CASES[2], False, True)
    assert only_factors[0] is None
    assert_equal(only_factors[1:], (d_first, d_second))


def test_dense_matrix_is_the_layer():
    for sizes in CASES:
        _, first, second, dy = operands(sizes, sizes.used_in)
        identity = torch.eye(sizes.used_in)
        y = expected(sizes, identity, first, second, torch.zeros_like(dy))[0]
        assert_equal((torch_path.dense_matrix(first, second, sizes).T,), (y,))


def test_narrow_layers_are_densified_and_wide_ones_are_not():
    def btt(side: int, rank: int) -> ProductSizes:
        return ProductSizes(side, 1, side, rank, side, 1, side, True)

    assert torch_path.densifies(btt(8, 1))
    assert torch_path.densifies(btt(16, 4))
    assert not torch_path.densifies(btt(32, 1))
    assert not torch_path.densifies(btt(32, 4))


@pytest.mark.parametrize(("tiles", "dense"), [(True, True), (False, False)])
def test_tiles_of_bfloat16_densify_wider_layers(tiles, dense, monkeypatch):
    monkeypatch.setattr(torch_path, "multiplies_tiles", lambda: tiles)
    wide = ProductSizes(g=16, b=1, a=32, r=1, f=32, d=1, e=16, a_first=True)
    assert torch_path.densifies(wide, torch.bfloat16) == dense
    assert not torch_path.densifies(wide)


def test_shared_factors_are_densified_further():
    shared = ProductSizes(g=4, b=4, a=16, r=1, f=4, d=4, e=16, a_first=True)
    assert torch_path.densifies(shared)
    assert not shared_factors.is_faster(shared)
    one_group = ProductSizes(g=1, b=16, a=16, r=1, f=1, d=16, e=16, a_first=True)
    assert shared_factors.is_faster(one_group)
    assert not shared_factors.is_faster(ProductSizes(g=16, b=1, a=16, r=1, f=16, d=1, e=16, a_first=True))
