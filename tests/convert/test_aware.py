"""The nearest map on the inputs that are met: the tail of W X for low rank, sweeps that never make the error grow."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from structlin.convert.aware import nearest_on, root, squared_error, truncated
from structlin.convert.nearest import nearest
from structlin.nn.linear import LinearOptions, make_linear
from structlin.structure import LinearPlan, plan_theta, theta_of
from tests.nn.test_chain import FAMILY_CASES, SHAPES, family_plan
from tests.nn.test_linear import randn

SWEPT = ("monarch", "block_shuffle", "block_dense", "btt-2")


def inputs(d_in: int, rows: int = 400) -> Tensor:
    """(d_in, rows) whose principal directions decay, and are no axes."""
    turned = torch.linalg.qr(randn(d_in, d_in, seed=7))[0]
    return turned @ (randn(d_in, rows, seed=8) * (torch.arange(1, d_in + 1, dtype=torch.float64) ** -0.7)[:, None])


def moment_of(X: Tensor) -> Tensor:
    return X @ X.T / X.shape[1]


@pytest.mark.parametrize("rows", [400, 20])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", ["low_rank", "low_rank-8"])
def test_of_low_rank_the_error_is_the_tail_of_the_outputs(case: str, shape: tuple[int, int], rows: int) -> None:
    """Also of fewer rows than features, where their moment is singular."""
    plan, X = family_plan(case, shape), inputs(shape[0], rows)
    W = randn(shape[1], shape[0], seed=3)
    found, errors = nearest_on(plan, W, moment_of(X))
    tail = float(torch.linalg.svdvals(W @ X)[plan.sizes.r :].square().sum()) / rows
    whole = float((W @ X).square().sum()) / rows
    assert abs(found.error - tail) < 1e-10 * whole
    assert abs(float(((W - found.matrix) @ X).square().sum()) / rows - tail) < 1e-10 * whole
    assert errors == [found.error]
    assert torch.linalg.matrix_rank(found.matrix) <= plan.sizes.r


def test_it_is_the_whitened_svd() -> None:
    """By hand: the SVD of W L, truncated, times the inverse of L."""
    W, C = randn(40, 24, seed=3), moment_of(inputs(24))
    L = torch.linalg.cholesky(C)
    U, S, V = torch.linalg.svd(W @ L, full_matrices=False)
    by_hand = (U[:, :5] * S[:5]) @ V[:5] @ torch.linalg.inv(L)
    torch.testing.assert_close(truncated(W, C, 5), by_hand, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(root(C) @ root(C).mT, C, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rounding", ["exact", pytest.param("paper", marks=pytest.mark.long)])
@pytest.mark.parametrize("shape", [(48, 96), pytest.param((45, 77), marks=pytest.mark.long)])
@pytest.mark.parametrize("case", [case for case in FAMILY_CASES if not case.startswith("low_rank")])
def test_no_sweep_makes_the_error_grow_and_inputs_pay(case: str, shape: tuple[int, int], rounding: str) -> None:
    plan, C = family_plan(case, shape, rounding=rounding), moment_of(inputs(shape[0]))
    W = randn(shape[1], shape[0], seed=3)
    found, errors = nearest_on(plan, W, C, sweeps=4)
    plain = squared_error(W, nearest(plan, W).matrix, C)
    assert errors[0] == pytest.approx(plain, rel=1e-9, abs=1e-12)
    assert all(after <= before for before, after in pairwise(errors))
    # 45 is 7 x 7 less 4 in the paper's rounding of btt-2, and less in others': what is cut is lost to both.
    assert found.error <= plain
    assert found.error == pytest.approx(errors[-1], rel=1e-8, abs=1e-12 * squared_error(W, 0 * W, C))
    layer = make_linear(plan, LinearOptions(64)).double()
    layer.take_factors(found.factors)
    assert squared_error(W, layer.to_dense().detach(), C) == pytest.approx(found.error, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("case", SWEPT)
def test_sweeps_over_blocks_end_where_no_direction_of_a_factor_helps(case: str) -> None:
    """The gradient at the end is small beside that at the start; conjugate gradients from there find nothing more."""
    plan, C = family_plan(case, (48, 48)), moment_of(inputs(48))
    W = randn(48, 48, seed=3)
    few, many = (nearest_on(plan, W, C, sweeps)[0].error for sweeps in (30, 300))
    plain = squared_error(W, nearest(plan, W).matrix, C)
    assert few < 0.5 * plain
    assert many <= few
    layer = make_linear(plan, LinearOptions(64)).double()
    slopes = []
    for factors in (nearest(plan, W).factors, nearest_on(plan, W, C, 3000)[0].factors):
        layer.take_factors(factors)
        rest = W - layer.to_dense()
        grads = torch.autograd.grad(((rest @ C) * rest).sum(), list(layer.parameters()))
        slopes.append(float(sum(grad.square().sum() for grad in grads)) ** 0.5)
    assert slopes[1] < 0.05 * slopes[0]


@pytest.mark.parametrize("case", ["monarch", "btt-2", "kronecker_sum", "btt-3"])
def test_of_white_inputs_it_is_the_nearest(case: str) -> None:
    plan, W = family_plan(case, (48, 96)), randn(96, 48, seed=3)
    found, _ = nearest_on(plan, W, torch.eye(48, dtype=torch.float64))
    # Of three factors the sweeps go on from what truncated SVDs give, which is not the least.
    assert found.error <= nearest(plan, W).error * (1 + 1e-12)
    if plan.sizes.num_factors == 2:
        assert found.error == pytest.approx(nearest(plan, W).error, rel=1e-9)


def test_a_dense_layer_takes_the_matrix_and_another_moment_is_refused() -> None:
    dense: LinearPlan = plan_theta(theta_of("dense"), 24, 40)
    W = randn(40, 24)
    assert torch.equal(nearest_on(dense, W, moment_of(inputs(24)))[0].matrix, W)
    with pytest.raises(ValueError, match=r"moment \(40, 40\) is none of an input of 24"):
        nearest_on(dense, W, torch.eye(40, dtype=torch.float64))
