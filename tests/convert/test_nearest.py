"""The nearest map of a structure: met where it is of the structure, and as far as the dropped singular values say."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from structlin.convert import alternation, tree
from structlin.convert.nearest import nearest
from structlin.convert.network import Network, share_norms
from structlin.nn.linear import LinearOptions, make_linear
from structlin.nn.reference import reference_matrix
from structlin.structure import FAMILIES, LinearPlan, Sizes, plan_linear, plan_theta, theta_of
from structlin.structure.heads import HEAD_LAYOUTS, head_aware_sizes
from structlin.structure.index import indices
from tests.nn.test_chain import FAMILY_CASES, SHAPES, family_plan, random_layer
from tests.nn.test_linear import randn

MET = 1e-10
TREES = [case for case in FAMILY_CASES if case != "blast"]


def distance(found: Tensor, wanted: Tensor) -> float:
    """|W - W'| / |W|."""
    return float((found - wanted).norm() / wanted.norm())


def test_every_family_is_among_the_cases() -> None:
    assert {name for name, _ in FAMILY_CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", FAMILY_CASES)
def test_a_map_of_the_structure_is_met_and_the_layer_is_that_map(case: str, shape: tuple[int, int]) -> None:
    plan = family_plan(case, shape)
    W = reference_matrix(random_layer(plan)).detach()
    found = nearest(plan, W)
    assert distance(found.matrix, W) < MET
    layer = make_linear(plan, LinearOptions(64)).double()
    layer.take_factors(found.factors)
    torch.testing.assert_close(reference_matrix(layer).detach(), found.matrix, rtol=1e-12, atol=1e-12)
    for held, given in zip(layer.equation_factors(), found.factors, strict=True):
        assert torch.equal(held.detach(), given)


@pytest.mark.parametrize("shape", [(48, 96), (45, 77)])
@pytest.mark.parametrize("case", sorted(set(TREES) - {"mpo-3"}))
def test_so_it_is_where_rounding_cuts_features_or_appends_some(case: str, shape: tuple[int, int]) -> None:
    plan = family_plan(case, shape, rounding="paper")
    W = reference_matrix(random_layer(plan)).detach()
    assert distance(nearest(plan, W).matrix, W) < MET


def test_what_nobody_reads_is_left_out_and_the_error_never_grows() -> None:
    """48 features at 1/2 are 7 x 7 = 49 in the paper's rounding: what the last one does is free."""
    plan = plan_theta(theta_of("mpo", arguments={"cores": 2, "bond": 4}), 48, 48, rounding="paper")
    assert plan.sizes.used_in > 48
    W, network = randn(48, 48, seed=3), Network(plan)
    start, _ = tree.split(network, W)
    found, errors = alternation.descend(network, W, start)
    assert all(after <= before for before, after in pairwise(errors))
    assert errors[-1] < 0.999 * errors[0]
    assert nearest(plan, W).error == pytest.approx(errors[-1], rel=1e-9)
    assert float((W - network.matrix(network.product(found))).square().sum()) == pytest.approx(errors[-1], rel=1e-9)


@pytest.mark.parametrize("layout", sorted(set(HEAD_LAYOUTS) - {"none"}))
def test_sizes_of_head_layouts(layout: str) -> None:
    plan = plan_linear(head_aware_sizes(layout, 4, 12, theta_of("btt", arguments={"rank": 2})))
    W = reference_matrix(random_layer(plan)).detach()
    assert distance(nearest(plan, W).matrix, W) < MET


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", TREES)
def test_the_error_of_truncated_svds_is_the_sum_of_all_tails(case: str, shape: tuple[int, int]) -> None:
    plan = family_plan(case, shape)
    W = randn(shape[1], shape[0], seed=3)
    factors, dropped = tree.split(Network(plan), W)
    network = Network(plan)
    error = float((W - network.matrix(network.product(factors))).square().sum())
    assert dropped == pytest.approx(error, rel=1e-12, abs=1e-20 * float(W.square().sum()))
    assert nearest(plan, W).error == pytest.approx(error, rel=1e-12, abs=1e-20 * float(W.square().sum()))


@pytest.mark.parametrize("shape", [(48, 96), (64, 64)])
def test_an_mpo_is_the_tensor_train_svd_of_its_reshaped_matrix(shape: tuple[int, int]) -> None:
    """By hand: cores (x3 y3), (x2 y2), (x1 y1) of the matrix, split from core 1 on."""
    plan = plan_theta(theta_of("mpo", arguments={"cores": 3, "bond": 5}), *shape)
    s = plan.sizes
    W = randn(shape[1], shape[0], seed=3)
    sizes = [(s[f"y{core}"], s[f"x{core}"]) for core in (1, 2, 3)]
    tensor = W.reshape(s["y3"], s["y2"], s["y1"], s["x3"], s["x2"], s["x1"]).permute(2, 5, 1, 4, 0, 3)
    tails, rest = 0.0, tensor.reshape(1, *(math.prod(size) for size in sizes))
    for size in sizes[:-1]:
        _, S, V = torch.linalg.svd(rest.reshape(rest.shape[0] * math.prod(size), -1), full_matrices=False)
        tails += float(S[5:].square().sum())
        rest = S[:5, None] * V[:5]
    assert nearest(plan, W).error == pytest.approx(tails, rel=1e-12)


def test_of_two_factors_it_is_the_closed_form_of_the_layer() -> None:
    for case in ("low_rank", "monarch", "btt-2", "kronecker_sum", "block_shuffle", "mpo-2"):
        plan = family_plan(case, (48, 96))
        W, layer = randn(96, 48, seed=3), make_linear(plan, LinearOptions(64)).double()
        layer.from_dense(W)
        found = nearest(plan, W)
        torch.testing.assert_close(found.matrix, layer.to_dense().detach(), rtol=1e-10, atol=1e-12)
        norms = [float(one.norm()) for one in found.factors]
        assert norms[0] == pytest.approx(norms[1], rel=1e-12)


@pytest.mark.parametrize("case", ["btt-3", "mpo-4", "blast"])
def test_norms_are_shared_evenly(case: str) -> None:
    norms = [float(one.norm()) for one in nearest(family_plan(case, (48, 48)), 100 * randn(48, 48)).factors]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-10)


def test_zeros_are_met_by_zeros() -> None:
    for case in ("low_rank", "btt-3", "blast"):
        found = nearest(family_plan(case, (48, 48)), torch.zeros(48, 48, dtype=torch.float64))
        assert found.error == 0
        assert not bool(found.matrix.any())


@pytest.mark.parametrize("case", ["blast", "btt-3", "mpo-3"])
def test_an_alternation_never_makes_the_error_grow_and_knows_a_planted_map_beside_noise(case: str) -> None:
    # A rank that leaves the blocks of BLAST some room: where it does not, iterations may end elsewhere.
    name, arguments = FAMILY_CASES[case]
    plan = plan_theta(theta_of(name, arguments=arguments | ({"rank": 6} if case == "blast" else {})), 48, 48)
    network, planted = Network(plan), reference_matrix(random_layer(plan)).detach()
    noise = 0.01 * planted.norm() * randn(48, 48, seed=9) / 48
    W = planted + noise
    start = tree.split_along(network, W, (1, 2, 3))[0]
    errors = [float((W - network.matrix(network.product(start))).square().sum())]
    for sweeps in (1, 2, 4, 8):
        errors.append(alternation.alternate(network, W, start, sweeps)[1])
    assert all(after <= before for before, after in pairwise(errors))
    # The planted map is one of the structure: the nearest is no farther.
    assert nearest(plan, W).error <= float(noise.square().sum())


def test_large_problems_by_normal_equations_are_the_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = family_plan("blast", (48, 48))
    network, W = Network(plan), randn(48, 48, seed=3)
    start = tree.split_along(network, W, (1, 2, 3))[0]
    by_design = alternation.alternate(network, W, start, 3)
    monkeypatch.setattr(alternation, "_MOST_DESIGN", 0)
    by_gram = alternation.alternate(network, W, start, 3)
    assert by_gram[1] == pytest.approx(by_design[1], rel=1e-8)


def test_ranks_in_a_ring_are_no_tree_and_the_structure_is_still_met() -> None:
    ring = Sizes.dense_layer(8, 8)
    sizes = {"x1": 4, "x2": 3, "x3": 4, "y1": 3, "y2": 4, "y3": 4, "r12": 2, "r23": 2, "r13": 2}
    ring = replace(ring, num_factors=3, of_indices=tuple(sizes.get(i.name, 1) for i in indices(3)), d_in=48, d_out=48)
    plan = plan_linear(ring)
    assert tree.leaves(Network(plan)) is None
    with pytest.raises(ValueError, match="no tree"):
        tree.split(Network(plan), randn(48, 48))
    W = reference_matrix(random_layer(plan)).detach()
    assert distance(nearest(plan, W).matrix, W) < 1e-4


def test_another_shape_or_dtype_is_refused() -> None:
    plan: LinearPlan = family_plan("btt-2", (48, 96))
    with pytest.raises(ValueError, match=r"\(48, 96\) is none of a layer \(d_out, d_in\) = \(96, 48\)"):
        nearest(plan, randn(48, 96))
    with pytest.raises(ValueError, match="convert it to float64"):
        nearest(plan, randn(96, 48).float())


def test_shared_norms_keep_the_map() -> None:
    network = Network(family_plan("btt-3", (48, 48)))
    factors = network.present([one.detach() for one in random_layer(network.plan).equation_factors()])
    torch.testing.assert_close(network.product(share_norms(factors)), network.product(factors))
