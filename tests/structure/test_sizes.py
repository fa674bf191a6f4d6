"""Integer sizes: the exact policy loses no feature, zero exponents give one, and the paper's policy is the paper's."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlin.errors import UserError
from structlin.structure import Theta, factorise, lookup
from structlin.structure.sizes import nearest_divisors
from tests.strategies import thetas

WIDTHS = st.one_of(st.integers(1, 1500), st.sampled_from([2, 7, 97, 127, 509, 997, 768, 1024, 2048, 50_304]))
LETTERS = dict(zip("abgdefr", ("alpha", "beta", "gamma", "delta", "epsilon", "phi", "rho"), strict=True))


@settings(max_examples=200, deadline=None)
@given(thetas(), WIDTHS, WIDTHS)
def test_the_exact_policy_loses_no_feature(theta: Theta, d_in: int, d_out: int) -> None:
    sizes = factorise(theta, d_in, d_out)
    assert (sizes.used_in, sizes.used_out) == (d_in, d_out)
    assert (sizes.d_in, sizes.d_out, sizes.dense) == (d_in, d_out, theta.is_dense)


@settings(max_examples=100, deadline=None)
@given(thetas(), WIDTHS, WIDTHS, st.sampled_from(["exact", "paper"]))
def test_a_zero_exponent_gives_one(theta: Theta, d_in: int, d_out: int, rounding: str) -> None:
    sizes = factorise(theta, d_in, d_out, rounding)
    for letter, name in LETTERS.items():
        assert getattr(sizes, letter) >= 1
        assert getattr(theta, name) != 0 or getattr(sizes, letter) == 1


@settings(max_examples=50, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense))
def test_exponents_of_whole_powers_are_realised_exactly(theta: Theta) -> None:
    realised = factorise(theta, 2**12, 2**24).exponents
    assert realised == pytest.approx([float(exponent) for exponent in theta.exponents], abs=1e-12)


@pytest.mark.parametrize(("d", "a"), [(128, 4), (256, 8), (512, 8), (1024, 8), (2048, 16)])
def test_thirds_move_with_the_divisors(d: int, a: int) -> None:
    assert factorise(lookup("btt13"), d, d).a == a


def test_the_divisors_are_the_nearest_in_log_distance() -> None:
    half = lookup("btt").alpha
    assert set(nearest_divisors(768, (half, half))) == {(24, 32), (32, 24)}
    sizes = factorise(lookup("btt"), 768, 768)
    assert {sizes.a, sizes.g} == {24, 32}


@pytest.mark.parametrize("d", [12, 60, 96, 97, 640])
def test_no_divisor_is_nearer(d: int) -> None:
    alpha = float(lookup("btt2").alpha)
    chosen = factorise(lookup("btt2"), d, d).a
    best = min(abs(math.log(a) - alpha * math.log(d)) for a in range(1, d + 1) if d % a == 0)
    assert abs(math.log(chosen) - alpha * math.log(d)) == pytest.approx(best)


def test_equally_near_sizes_take_the_higher_rank() -> None:
    assert factorise(lookup("btt"), 32, 32).rank_bound == 32


@pytest.mark.parametrize(
    ("rounding", "d_in", "named"),
    [("nearest", 8, "did you mean|valid: exact, paper"), ("exact", 0, "0 x 8"), ("paper", -3, "-3 x 8")],
)
def test_a_wrong_request_is_refused(rounding: str, d_in: int, named: str) -> None:
    with pytest.raises(UserError, match=named):
        factorise(lookup("btt"), d_in, 8, rounding)
