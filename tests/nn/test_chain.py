"""Three factors and more: equal to a slow reference forward and backward, as dear as counted, of the rank of their cut.

The families of all kinds too, under both roundings and orders; and no layer is made without a start.
"""

import math
import random
import string
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from structlin.errors import UserError
from structlin.nn.linear import ChainLinear, Linear, LinearOptions, make_linear
from structlin.nn.reference import reference_forward, reference_matrix
from structlin.nn.spec import collect_specs, initialise
from structlin.structure import CATALOG, ROUNDINGS, LinearPlan, Sizes, Theta, lookup, plan_linear, plan_theta, theta_of
from structlin.structure.families import output_order_of
from structlin.structure.index import indices
from structlin.structure.plan import CONTRACTIONS
from structlin.structure.served import plan_served
from tests.nn.test_linear import EXACT, gradients, randn
from tests.strategies import maps

WIDTHS = st.sampled_from([8, 12, 13, 16, 24, 27])
FAMILY_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "low_rank": ("low_rank", {"rank": "d/4"}),
    "low_rank-8": ("low_rank", {"rank": 8}),
    "monarch": ("monarch", {"blocks": 4}),
    "block_shuffle": ("block_shuffle", {"blocks": 2}),
    "block_dense": ("block_dense", {"blocks": 2, "rank": "d/2"}),
    "kronecker_sum": ("kronecker_sum", {"terms": 4}),
    "btt-2": ("btt", {"rank": 4}),
    "btt-3": ("btt", {"rank": 4, "factors": 3}),
    "btt-4": ("btt", {"rank": 2, "factors": 4}),
    "blast": ("blast", {"blocks": 4, "rank": "d/4"}),
    "mpo-2": ("mpo", {"cores": 2, "bond": 4}),
    "mpo-3": ("mpo", {"cores": 3, "bond": 8}),
    "mpo-4": ("mpo", {"cores": 4, "bond": 2}),
}
SHAPES = [(48, 48), (48, 96), (96, 48), (45, 77)]


def random_layer(plan: LinearPlan, *, bias: bool = False) -> Linear:
    """In float64, factors about as large as keeps the outputs near 1."""
    layer, generator = make_linear(plan, LinearOptions(64, bias=bias)).double(), torch.Generator().manual_seed(0)
    fan_in = {factor.name: factor.fan_in for factor in plan.factors}
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(values / fan_in.get(name, 1) ** 0.5)
    return layer


def assert_equals_the_reference(layer: Linear) -> None:
    """Forward and gradients of x and of every parameter, against one einsum and against the dense matrix."""
    sizes = layer.sizes
    x, cotangent = randn(5, sizes.d_in).requires_grad_(), randn(5, sizes.d_out, seed=2)
    inputs = [x, *layer.parameters()]
    by_matrix = x @ reference_matrix(layer).T
    by_matrix = by_matrix if layer.bias is None else by_matrix + layer.bias
    results = [layer(x), reference_forward(layer, x), by_matrix]
    grads = [gradients(y, cotangent, inputs) for y in results]
    for y, grad in zip(results[::2], grads[::2], strict=True):
        torch.testing.assert_close(y, results[1], **EXACT)
        for found, wanted in zip(grad, grads[1], strict=True):
            torch.testing.assert_close(found, wanted, **EXACT)
    assert all(bool(grad.any()) for grad in grads[0]) or 0 in (sizes.used_in, sizes.used_out)


def family_plan(case: str, shape: tuple[int, int], **options: str) -> LinearPlan:
    name, arguments = FAMILY_CASES[case]
    theta = theta_of(name, arguments=arguments, rounding=options.get("rounding", "exact"))
    return plan_served(theta, *shape, **{"output_order": output_order_of(name), **options})


# --- equal to the reference ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4).flatmap(maps),
    WIDTHS,
    WIDTHS,
    st.sampled_from(ROUNDINGS),
    st.sampled_from(CONTRACTIONS),
    st.booleans(),
)
def test_any_map_equals_the_reference(
    theta: Theta, d_in: int, d_out: int, rounding: str, contraction: str, bias: bool
) -> None:
    try:
        plan = plan_theta(theta, d_in, d_out, rounding=rounding, contraction=contraction)
    except UserError:
        return  # no layer of this shape can have it: said by the sizes
    layer = random_layer(plan, bias=bias)
    assert isinstance(layer, ChainLinear) == (theta.num_factors > 2)
    assert_equals_the_reference(layer)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("case", FAMILY_CASES)
def test_every_family_equals_the_reference(case: str, shape: tuple[int, int], contraction: str, rounding: str) -> None:
    assert_equals_the_reference(random_layer(family_plan(case, shape, rounding=rounding, contraction=contraction)))


@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("name", ["btt", "g2", "tt3", "btt13", "low_rank"])
def test_the_other_order_of_the_output_equals_the_reference(name: str, contraction: str) -> None:
    for shape in ((24, 36), (36, 24)):
        for rounding in ROUNDINGS:
            options = {"rounding": rounding, "contraction": contraction, "output_order": "efd"}
            assert_equals_the_reference(random_layer(plan_theta(lookup(name), *shape, **options), bias=True))


@pytest.mark.parametrize(
    ("plan", "equation"),
    [
        (
            plan_theta(Theta.parse("x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=2*0 r23=3*0"), 64, 64),
            "tcba,fgcba,fehgcb,fedhc->tfed",
        ),
        (
            plan_theta(Theta.parse("x1=1/4*1 x12=4*0 y23=4*0 y3=1/4*1 r123=3*0"), 32, 64),
            # V[r j q], S[i r j], U[i p r]
            "tjq,rjq,irj,ipr->tip",
        ),
        (
            plan_theta(Theta.parse("x1=1/4 x2=1/4 x3=1/4 x4=1/4 y1=1/4 y2=1/4 y3=1/4 y4=1/4 r12=2*0 r34=2*0"), 16, 81),
            "tdcba,era,frb,gsc,hsd->thgfe",
        ),
    ],
    ids=["btt-3", "blast", "mpo-of-two-pairs"],
)
def test_equations_written_by_hand(plan: LinearPlan, equation: str) -> None:
    """The layer is the einsum of its stored factors with axes of size 1 left out."""
    layer, x = random_layer(plan), randn(4, plan.sizes.d_in)
    operands = equation.split("->")[0].split(",")
    factors = [factor.squeeze() for factor in layer.equation_factors()]
    sizes = {
        letter: size
        for letters, factor in zip(operands[1:], factors, strict=True)
        for letter, size in zip(letters, factor.shape, strict=True)
    }
    x_T = x.reshape(-1, *(sizes[letter] for letter in operands[0][1:]))
    wanted = torch.einsum(equation, x_T, *factors).reshape(4, -1)
    torch.testing.assert_close(layer(x), wanted, **EXACT)


def test_leading_dimensions_pass_through() -> None:
    layer, x = random_layer(family_plan("btt-3", (64, 27))), randn(2, 3, 64)
    assert layer(x).shape == (2, 3, 27)
    torch.testing.assert_close(layer(x)[1], layer(x[1]), **EXACT)


def test_many_factors_have_no_closed_projection() -> None:
    with pytest.raises(ValueError, match="nearest map of 3 factors has no closed form; take a structure of two"):
        random_layer(family_plan("btt-3", (64, 64))).from_dense(randn(64, 64))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["btt-3", "blast", "mpo-4", "btt-2", "block_shuffle"])
def test_a_family_goes_through_torch_compile_in_one_graph(case: str) -> None:
    torch._dynamo.reset()
    layer, x = random_layer(family_plan(case, (48, 96))), randn(7, 48).requires_grad_()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    plain, inputs = layer(x), [x, *layer.parameters()]
    torch.testing.assert_close(compiled, plain, **EXACT)
    found, wanted = (gradients(y, randn(7, 96, seed=2), inputs) for y in (compiled, plain))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


# --- cost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("contraction", CONTRACTIONS)
@pytest.mark.parametrize("shape", [(64, 64), (48, 96), (45, 77)])
@pytest.mark.parametrize("case", FAMILY_CASES)
def test_flops_and_parameters_are_the_counted_ones(
    case: str, shape: tuple[int, int], contraction: str, rounding: str
) -> None:
    plan, rows = family_plan(case, shape, rounding=rounding, contraction=contraction), 10
    with torch.device("meta"):
        layer = make_linear(plan, LinearOptions(64))
        x = torch.zeros(rows, plan.sizes.d_in, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = layer(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert forward.get_total_flops() == 2 * plan.macs * rows
    assert backward.get_total_flops() == 2 * forward.get_total_flops()
    assert {name: parameter.numel() for name, parameter in layer.named_parameters()} == {
        factor.name: factor.params for factor in plan.factors
    }
    assert sum(parameter.numel() for parameter in layer.parameters()) == plan.params


# --- rank ---------------------------------------------------------------------------------------------------------


def random_sizes(draw: random.Random) -> Sizes:
    """Of three factors: up to three indices a side of 2 to 6 features, and up to two ranks of 2 or 3."""
    while True:
        sizes = dict.fromkeys(indices(3), 1)
        for side, most, largest in (("x", 3, 6), ("y", 3, 6), ("r", 2, 3)):
            own = [index for index in sizes if index.side == side]
            for index in draw.sample(own, draw.randint(side != "r", most)):
                sizes[index] = draw.randint(2, largest)
        d_in, d_out = (math.prod(size for index, size in sizes.items() if index.side == side) for side in "xy")
        if max(d_in, d_out) <= 64:
            return Sizes(3, tuple(sizes.values()), d_in, d_out)


def test_the_rank_of_three_factors_is_their_least_cut() -> None:
    """At random weights, for random sizes: 75 of full rank and 75 below it."""
    draw = random.Random(0)
    drawn = [random_sizes(draw) for _ in range(1000)]
    below = [sizes for sizes in drawn if sizes.rank_bound < min(sizes.d_in, sizes.d_out)][:75]
    full = [sizes for sizes in drawn if sizes.rank_bound == min(sizes.d_in, sizes.d_out)][:75]
    assert len(below) == len(full) == 75
    for sizes in below + full:
        matrix = reference_matrix(random_layer(plan_linear(sizes))).detach()
        assert int(torch.linalg.matrix_rank(matrix)) == sizes.rank_bound, sizes


@pytest.mark.parametrize("shape", [(32, 32), (32, 64)])
@pytest.mark.parametrize("case", FAMILY_CASES)
def test_the_rank_of_a_family_is_its_bound(case: str, shape: tuple[int, int]) -> None:
    layer = random_layer(family_plan(case, shape))
    assert int(torch.linalg.matrix_rank(layer.to_dense().detach())) == layer.sizes.rank_bound


# --- start --------------------------------------------------------------------------------------------------------

MADE = {**{name: (name, {}) for name in sorted(CATALOG)}, **FAMILY_CASES}


@pytest.mark.parametrize("weight_norm", ["none", "fixed", "learned"])
@pytest.mark.parametrize("case", MADE)
def test_a_layer_is_alive_as_soon_as_it_is_made(case: str, weight_norm: str) -> None:
    """Without any initialiser: finite output that is not zero, and such gradients for every parameter."""
    torch.manual_seed(0)
    name, arguments = MADE[case]
    plan = plan_served(theta_of(name, arguments=arguments), 48, 96, output_order=output_order_of(name))
    layer = make_linear(plan, LinearOptions(48, weight_norm=weight_norm, bias=True))
    x = torch.randn(64, 48, requires_grad=True)
    y = layer(x)
    (y * torch.randn(64, 96)).sum().backward()
    assert 0.2 < float(y.detach().square().mean().sqrt()) < 2
    for key, tensor in {"x": x, **dict(layer.named_parameters())}.items():
        assert tensor.grad is not None, key
        assert bool(tensor.grad.isfinite().all()), key
        assert bool(tensor.grad.any()), key


@pytest.mark.parametrize("case", ["btt-3", "btt-4", "blast", "mpo-3"])
def test_many_factors_start_and_learn_by_their_plan(case: str) -> None:
    plan = family_plan(case, (256, 256))
    layer = make_linear(plan, LinearOptions(768, starts_at_zero=True, weight_norm="learned", bias=True))
    initialise(layer, seed=0)
    specs = collect_specs(layer)
    names = {f"G{number}" for number in range(1, plan.sizes.num_factors + 1)}
    assert specs.keys() == names | {f"scale_{name}" for name in names} | {"bias"}
    for factor in plan.factors:
        weight = getattr(layer, factor.name).detach().double()
        assert specs[factor.name].rate == 768 / (plan.sizes.num_factors * factor.fan_in)
        assert bool(weight.any()) != factor.is_last
        if not factor.is_last:
            error = 4 / (2 * weight.numel()) ** 0.5  # four standard errors of an estimated deviation
            assert float(weight.std()) == pytest.approx(factor.std, rel=error)
    assert not layer(torch.randn(3, 256)).any()
    (layer(torch.randn(5, 256)) - 1).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert getattr(layer, plan.factors[-1].name).grad.any()


def test_the_letters_of_an_equation_suffice() -> None:
    """Four factors have 41 indices; with all of them there is a letter for each and one for the rows."""
    sizes = Sizes(4, (2,) * 41, 2**15, 2**15)
    letters = plan_linear(sizes, "first").letters
    assert len(set(letters.values())) == 41
    assert set(letters.values()) <= set(string.ascii_letters) - {"t"}
