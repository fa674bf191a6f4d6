"""The taxonomy: the order-free form is the paper's, costs and ranks grow as it says, the rank bound is the rank."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlin.structure import CATALOG, Sizes, Term, Theta, factorise, lookup, plan_theta
from tests.strategies import btts, maps, thetas, useful_thetas


def papers_form(theta: Theta) -> tuple[Fraction, Fraction, Fraction]:
    """nu, omega and psi as arXiv 2410.02117 writes them, for A contracted first."""
    alpha, beta, _, delta, epsilon, _, rho = theta.exponents
    least = min(alpha, epsilon)
    nu = 1 + rho - least
    omega = min(alpha + delta, beta + epsilon) - least
    psi = 1 + min(Fraction(0), 1 + rho - alpha - epsilon)
    return nu, omega, psi


def random_matrix(sizes: Sizes, seed: int = 0) -> np.ndarray:
    """W (used_in, used_out) of random factors, from the definition."""
    s, draw = sizes, np.random.default_rng(seed).standard_normal
    A, B = draw((s.f, s.d, s.r, s.g, s.a)), draw((s.f, s.e, s.r, s.g, s.b))
    W = np.einsum("fdrga,fergb->gbafed", A, B).reshape(s.used_in, s.used_out)
    return W[: s.d_in, : s.d_out]


@given(useful_thetas())
def test_the_order_free_form_is_the_papers(theta: Theta) -> None:
    place = theta.taxonomy
    assert (place.nu, place.omega, place.psi) == pytest.approx(tuple(map(float, papers_form(theta))))


@given(thetas())
def test_swapping_a_and_b_moves_nothing(theta: Theta) -> None:
    place, swapped = theta.taxonomy, theta.swapped.taxonomy
    assert (place.nu, place.omega, place.psi) == pytest.approx((swapped.nu, swapped.omega, swapped.psi), abs=1e-15)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("dense", (1, 0, 1)),
        ("btt", (1 / 2, 0, 1)),
        ("low_rank", (1 / 2, 0, 1 / 2)),
        ("kronecker", (1 / 2, 1 / 2, 1)),
        ("tensor_train", (3 / 4, 1 / 2, 1)),
        ("btt11", (3 / 4, 0, 1)),
        ("btt7", (1 / 3, 0, 2 / 3)),
    ],
)
def test_worked_places(name: str, place: tuple[float, ...]) -> None:
    found = lookup(name).taxonomy
    assert (found.nu, found.omega, found.psi) == pytest.approx(place)


@settings(max_examples=60, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense))
def test_cost_sharing_and_rank_grow_as_the_exponents_say(theta: Theta) -> None:
    """At d = 2^12 the sizes are exact powers, and each sum of two terms lies within a factor 2 of its larger one."""
    d = 2**12
    plan, place = plan_theta(theta, d, d), theta.taxonomy
    assert plan.macs / d ** (1 + place.nu) * (1 + 1e-9) >= 1
    assert plan.macs / d ** (1 + place.nu) <= 2 * (1 + 1e-9)
    shared = plan.macs / plan.params / d**place.omega
    assert 0.5 * (1 - 1e-9) <= shared <= 2 * (1 + 1e-9)
    assert plan.sizes.rank_bound == pytest.approx(d**place.psi)
    assert plan.sizes.taxonomy.nu == pytest.approx(place.nu)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        # d^(1/3) features an index: three steps of d^(4/3), factors as large, full rank.
        ("x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3", (1 / 3, 0, 1)),
        ("x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=4*0 r23=4*0", (1 / 3, 0, 1)),
        ("x1=1/4 x12=1/4 x123=1/4 x1234=1/4 y4=1/4 y34=1/4 y234=1/4 y1234=1/4", (1 / 4, 0, 1)),
        # A tensor train of three cores: factors of d^(2/3), steps of d^(4/3).
        ("x1=1/3 x2=1/3 x3=1/3 y1=1/3 y2=1/3 y3=1/3", (1 / 3, 2 / 3, 1)),
        # Rank d/4: constants decide at nu = 1; exponents are those of dense.
        ("(1|0|0|0|1|0|1/4*1)", (1, 0, 1)),
        # BLAST of 4 blocks and rank d^(1/2).
        ("x1=1/4*1 x12=4*0 y23=4*0 y3=1/4*1 r123=1/2", (1 / 2, 0, 1 / 2)),
    ],
)
def test_worked_places_of_many_factors(text: str, place: tuple[float, ...]) -> None:
    found = Theta.parse(text).taxonomy
    assert (found.nu, found.omega, found.psi) == pytest.approx(place)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 4).flatmap(lambda count: maps(count, coefficients=False)))
def test_many_factors_grow_as_the_exponents_say(theta: Theta) -> None:
    """At d = 2^12 every index is an exact power and a sum of n steps lies within a factor n of its largest."""
    d, count = 2**12, theta.num_factors
    plan, place = plan_theta(theta, d, d), theta.taxonomy
    assert 1 - 1e-9 <= plan.macs / d ** (1 + place.nu) <= count * (1 + 1e-9)
    shared = plan.macs / plan.params / d**place.omega
    assert (1 - 1e-9) / count <= shared <= count * (1 + 1e-9)
    assert plan.sizes.rank_bound == pytest.approx(d**place.psi)
    realised = plan.sizes.taxonomy
    assert (realised.nu, realised.omega, realised.psi) == pytest.approx((place.nu, place.omega, place.psi))


SHAPES = [(16, 16), (36, 36), (48, 48), (16, 64), (60, 24)]


@settings(max_examples=40, deadline=None)
@given(btts(), st.sampled_from(SHAPES))
def test_the_rank_of_a_btt_is_its_bound(theta: Theta, shape: tuple[int, int]) -> None:
    sizes = factorise(theta, *shape)
    assert np.linalg.matrix_rank(random_matrix(sizes)) == sizes.rank_bound


@pytest.mark.parametrize("rounding", ["exact", "paper"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", sorted(set(CATALOG) - {"dense"}))
def test_no_rank_exceeds_its_bound(name: str, shape: tuple[int, int], rounding: str) -> None:
    sizes = factorise(lookup(name), *shape, rounding)
    assert np.linalg.matrix_rank(random_matrix(sizes)) <= sizes.rank_bound


@settings(max_examples=40, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense), st.sampled_from([(16, 16), (24, 36)]))
def test_no_rank_of_any_theta_exceeds_its_bound(theta: Theta, shape: tuple[int, int]) -> None:
    capped = theta.with_rank(Term(min(theta["r12"].exponent, Fraction(1, 2))))
    sizes = factorise(capped, *shape)
    assert np.linalg.matrix_rank(random_matrix(sizes)) <= sizes.rank_bound


def test_a_dense_layer_has_full_rank_and_its_own_place() -> None:
    sizes = factorise(lookup("dense"), 24, 96)
    assert sizes.rank_bound == 24
    assert sizes.taxonomy == lookup("dense").taxonomy
