"""Cost: worked numbers in both orders, and parameters as the factors' sizes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlin.structure.cost import a_first, macs, macs_a_first, macs_b_first, params
from structlin.structure.equation import equation, shapes

from structlin.structure import Sizes, Theta, factorise, lookup
from tests.strategies import thetas


@pytest.mark.parametrize(
    ("name", "shape", "a_first_macs", "b_first_macs", "weights"),
    [
        ("btt", (64, 64), 64 * 8 + 64 * 8, 64 * 64 + 64 * 64, 2 * 8**3),
        ("low_rank", (64, 64), 64 * 8 + 64 * 8, 64 * 64 * 8 + 64 * 64 * 8, 2 * 64 * 8),
        ("low_rank", (64, 256), 64 * 8 + 256 * 8, 64 * 256 * 8 + 256 * 64 * 8, (64 + 256) * 8),
        ("kronecker", (64, 256), 64 * 16 + 256 * 8, 64 * 16 + 256 * 8, 8 * 16 + 8 * 16),
        ("btt11", (256, 256), 256 * 64 + 256 * 64, 256 * 256 * 4 + 256 * 256 * 4, 2 * 16**3 * 4),
        ("g1", (256, 256), 256 * 16 + 256 * 16, 256 * 64 + 256 * 64, 16 * 4 * 4 * 4 + 4 * 4 * 16 * 4),
    ],
)
def test_worked_numbers(name: str, shape: tuple[int, int], a_first_macs: int, b_first_macs: int, weights: int) -> None:
    sizes = factorise(lookup(name), *shape)
    assert (macs_a_first(sizes), macs_b_first(sizes)) == (a_first_macs, b_first_macs)
    assert macs(sizes) == a_first_macs
    assert params(sizes) == weights


def test_the_cheaper_order_is_taken() -> None:
    sizes = Sizes(a=2, b=8, g=1, d=8, e=2, f=1, r=1, d_in=16, d_out=16)
    assert (macs_a_first(sizes), macs_b_first(sizes)) == (16 * 8 + 16 * 8, 16 * 2 + 16 * 2)
    assert not a_first(sizes)
    assert macs(sizes) == 64


def test_a_tie_contracts_a_first() -> None:
    sizes = factorise(lookup("kronecker"), 64, 64)
    assert macs_a_first(sizes) == macs_b_first(sizes)
    assert a_first(sizes)


def test_a_dense_layer_is_one_weight() -> None:
    sizes = factorise(lookup("dense"), 48, 192)
    assert macs(sizes) == params(sizes) == 48 * 192


def test_what_the_papers_rounding_drops_is_not_paid() -> None:
    sizes = factorise(Theta.parse("0.33|0|0.67|0|0.67|0.33|0"), 256, 256, "paper")  # 6 x 41 features in, 41 x 6 out
    assert macs(sizes) == 246 * 6 + 246 * 41


@settings(max_examples=100, deadline=None)
@given(thetas(), st.integers(2, 300), st.integers(2, 300), st.sampled_from(["exact", "paper"]))
def test_parameters_are_the_sizes_of_the_factors(theta: Theta, d_in: int, d_out: int, rounding: str) -> None:
    sizes = factorise(theta, d_in, d_out, rounding)
    assert params(sizes) == sum(math.prod(shape) for shape in shapes(sizes).values())


@settings(max_examples=100, deadline=None)
@given(thetas())
def test_the_order_of_the_factors_names_changes_no_cost(theta: Theta) -> None:
    sizes, swapped = factorise(theta, 2**12, 2**12), factorise(theta.swapped, 2**12, 2**12)
    assert (macs(sizes), params(sizes)) == (macs(swapped), params(swapped))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("btt", "tga,fga,feg->tfe"),
        ("dense", "tg,fg->tf"),
        ("low_rank", "ta,ra,er->te"),
        ("tensor_train", "tba,dra,erb->ted"),
        ("g2", "tgba,fdrga,fergb->tfed"),
    ],
)
def test_the_equation_leaves_absent_indices_out(name: str, text: str) -> None:
    assert equation(lookup(name)) == text
