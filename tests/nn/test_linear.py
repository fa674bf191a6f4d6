"""The layers: any theta equals a slow reference forward and backward, costs what is counted, projects optimally."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from structlin.nn.linear import DenseLinear, EinsumLinear, LinearOptions, make_linear
from structlin.nn.reference import reference_forward, reference_matrix
from structlin.structure import CATALOG, ROUNDINGS, Sizes, Theta, factorise, lookup, plan_linear
from tests.strategies import thetas

Layer = DenseLinear | EinsumLinear
EXACT = {"rtol": 0.0, "atol": 1e-10}
WIDTHS = st.sampled_from([6, 8, 12, 13, 16, 20])
A_FIRST = Sizes.of_two(12, 24, a=2, b=3, g=2, d=2, e=4, f=3, r=2)
B_FIRST = Sizes.of_two(48, 32, a=2, b=8, g=3, d=8, e=2, f=2, r=2)
CUT_AND_PADDED = Sizes.of_two(20, 11, a=3, b=3, g=2, d=3, e=2, f=2, r=2)
PADDED_AND_CUT = Sizes.of_two(17, 14, a=3, b=3, g=2, d=3, e=2, f=2, r=2)
BY_HAND = [A_FIRST, B_FIRST, CUT_AND_PADDED, PADDED_AND_CUT]


def random_layer(sizes: Sizes, seed: int = 0) -> Layer:
    """A float64 layer whose factors are all standard normal."""
    generator = torch.Generator().manual_seed(seed)
    layer = make_linear(plan_linear(sizes), LinearOptions(64)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(y: Tensor, cotangent: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad((y * cotangent).sum(), inputs))


def assert_equals_the_reference(layer: EinsumLinear) -> None:
    """Forward and gradients of x and of every factor, against the three-operand einsum and the dense matrix."""
    sizes = layer.sizes
    x = randn(5, sizes.d_in).requires_grad_()
    cotangent = randn(5, sizes.d_out, seed=2)
    inputs = [x, *layer.parameters()]
    results = [layer(x), reference_forward(layer, x), x @ reference_matrix(layer).T]
    grads = [gradients(y, cotangent, inputs) for y in results]
    scale = max(1.0, *(float(values.detach().abs().max()) for values in (results[1], *grads[1])))
    for y, grad in zip(results[::2], grads[::2], strict=True):
        torch.testing.assert_close(y / scale, results[1] / scale, **EXACT)
        for found, wanted in zip(grad, grads[1], strict=True):
            torch.testing.assert_close(found / scale, wanted / scale, **EXACT)


# --- equal to the reference ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense), WIDTHS, WIDTHS, st.sampled_from(ROUNDINGS))
def test_any_theta_equals_the_reference(theta: Theta, d_in: int, d_out: int, rounding: str) -> None:
    layer = random_layer(factorise(theta, d_in, d_out, rounding))
    assert isinstance(layer, EinsumLinear)
    assert_equals_the_reference(layer)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", sorted(set(CATALOG) - {"dense"}))
def test_every_catalogue_entry_equals_the_reference(name: str, rounding: str) -> None:
    for shape in ((24, 36), (36, 24)):
        layer = random_layer(factorise(lookup(name), *shape, rounding))
        assert isinstance(layer, EinsumLinear)
        assert_equals_the_reference(layer)


@pytest.mark.parametrize("sizes", BY_HAND)
def test_sizes_of_every_kind_equal_the_reference(sizes: Sizes) -> None:
    layer = random_layer(sizes)
    assert isinstance(layer, EinsumLinear)
    assert_equals_the_reference(layer)


def test_both_contraction_orders_are_among_the_cases() -> None:
    assert [plan_linear(sizes).a_first for sizes in (A_FIRST, B_FIRST)] == [True, False]


@pytest.mark.parametrize("sizes", BY_HAND)
def test_the_reference_is_the_definition(sizes: Sizes) -> None:
    """W[(g b a), (f e d)] = sum_r A B, by Python loops over numpy arrays."""
    layer = random_layer(sizes)
    assert isinstance(layer, EinsumLinear)
    A, B = (factor.detach().numpy() for factor in layer.equation_factors())
    s = sizes
    assert (A.shape, B.shape) == ((s.f, s.d, s.r, s.g, s.a), (s.f, s.e, s.r, s.g, s.b))
    W = np.zeros((s.g * s.b * s.a, s.f * s.e * s.d))
    for row, (g, b, a) in enumerate(itertools.product(range(s.g), range(s.b), range(s.a))):
        for column, (f, e, d) in enumerate(itertools.product(range(s.f), range(s.e), range(s.d))):
            W[row, column] = sum(A[f, d, r, g, a] * B[f, e, r, g, b] for r in range(s.r))
    wanted = np.zeros((s.d_in, s.d_out))
    rows, columns = min(s.d_in, W.shape[0]), min(s.d_out, W.shape[1])
    wanted[:rows, :columns] = W[:rows, :columns]
    np.testing.assert_allclose(reference_matrix(layer).detach().numpy(), wanted.T, atol=1e-12)
    np.testing.assert_allclose(layer.to_dense().detach().numpy(), wanted.T, atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "btt", "g2"])
def test_leading_dimensions_pass_through(name: str) -> None:
    layer = random_layer(factorise(lookup(name), 16, 36))
    x = randn(2, 3, 16)
    assert layer(x).shape == (2, 3, 36)
    torch.testing.assert_close(layer(x)[1], layer(x[1]), **EXACT)


# --- cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", sorted(CATALOG))
@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (96, 48)])
def test_flops_and_parameters_are_the_counted_ones(name: str, shape: tuple[int, int], rounding: str) -> None:
    sizes, rows = factorise(lookup(name), *shape, rounding), 10
    plan = plan_linear(sizes)
    with torch.device("meta"):
        layer = make_linear(plan, LinearOptions(64))
        x = torch.zeros(rows, sizes.d_in, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = layer(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert forward.get_total_flops() == 2 * plan.macs * rows
    assert forward.get_total_flops() + backward.get_total_flops() == 3 * 2 * plan.macs * rows
    assert sum(parameter.numel() for parameter in layer.parameters()) == plan.params


@pytest.mark.parametrize("sizes", BY_HAND)
def test_flops_of_sizes_of_every_kind(sizes: Sizes) -> None:
    layer = make_linear(plan_linear(sizes), LinearOptions(64))
    with FlopCounterMode(display=False) as forward:
        layer(torch.zeros(7, sizes.d_in))
    assert forward.get_total_flops() == 2 * plan_linear(sizes).macs * 7


# --- projection ---------------------------------------------------------------------------------------------------


def dropped_singular_values(W: Tensor, sizes: Sizes) -> float:
    """The squared singular values beyond rank r of every (g, f) block, for sizes that lose no feature."""
    s = sizes
    blocks = W.T.reshape(s.g, s.b, s.a, s.f, s.e, s.d)
    total = 0.0
    for g, f in itertools.product(range(s.g), range(s.f)):
        block = blocks[g, :, :, f].permute(1, 3, 0, 2).reshape(s.a * s.d, s.b * s.e)
        total += float(torch.linalg.svdvals(block)[s.r :].square().sum())
    return total


def residual(layer: Layer, W: Tensor) -> float:
    return float((W - layer.to_dense()).detach().square().sum())


@settings(max_examples=40, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense), WIDTHS, WIDTHS)
def test_the_residual_is_the_dropped_singular_values(theta: Theta, d_in: int, d_out: int) -> None:
    sizes, W = factorise(theta, d_in, d_out), randn(d_out, d_in, seed=3)
    layer = random_layer(sizes)
    reported = float(layer.from_dense(W))
    assert reported == pytest.approx(residual(layer, W), abs=1e-9)
    assert reported == pytest.approx(dropped_singular_values(W, sizes), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense), WIDTHS, WIDTHS)
def test_under_the_papers_rounding_the_residual_is_what_is_left(theta: Theta, d_in: int, d_out: int) -> None:
    assert_the_residual_is_what_is_left(factorise(theta, d_in, d_out, "paper"))


@pytest.mark.parametrize("sizes", BY_HAND)
def test_the_residual_of_sizes_of_every_kind_is_what_is_left(sizes: Sizes) -> None:
    assert_the_residual_is_what_is_left(sizes)


def assert_the_residual_is_what_is_left(sizes: Sizes) -> None:
    layer, W = random_layer(sizes), randn(sizes.d_out, sizes.d_in, seed=3)
    assert float(layer.from_dense(W)) == pytest.approx(residual(layer, W), abs=1e-9)


@pytest.mark.parametrize("sizes", [A_FIRST, B_FIRST, *(factorise(lookup(n), 24, 36) for n in ("btt", "l2", "tt3"))])
def test_no_neighbour_is_nearer_than_the_projection(sizes: Sizes) -> None:
    layer, W = random_layer(sizes), randn(sizes.d_out, sizes.d_in, seed=3)
    best = float(layer.from_dense(W))
    assert best < 0.9 * float(W.square().sum())
    start = [parameter.detach().clone() for parameter in layer.parameters()]
    for seed, size in itertools.product(range(20), (1e-3, 1e-2, 1e-1)):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter, value in zip(layer.parameters(), start, strict=True):
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(value + size * noise)
        assert residual(layer, W) > best


@pytest.mark.parametrize("name", sorted(set(CATALOG) - {"dense"}))
def test_a_matrix_of_the_structure_is_its_own_projection(name: str) -> None:
    sizes = factorise(lookup(name), 24, 36)
    W = random_layer(sizes, seed=5).to_dense().detach()
    layer = random_layer(sizes)
    assert float(layer.from_dense(W)) == pytest.approx(0, abs=1e-18 + 1e-20 * float(W.square().sum()))
    torch.testing.assert_close(layer.to_dense().detach(), W, rtol=0, atol=1e-10)


def test_a_dense_layer_keeps_any_matrix() -> None:
    layer, W = random_layer(factorise(lookup("dense"), 12, 20)), randn(20, 12)
    assert float(layer.from_dense(W)) == 0
    assert torch.equal(layer.to_dense(), W)
