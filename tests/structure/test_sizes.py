"""Integer sizes: the exact policy loses no feature, zero exponents give one, and the paper's policy is the paper's."""

import itertools
import math
import random
from fractions import Fraction as F

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlin.errors import UserError
from structlin.structure import Sizes, Term, Theta, factorise, lookup
from structlin.structure.sizes import UnservedWidth, _disproportion, nearest_divisors
from tests.strategies import maps, thetas

WIDTHS = st.one_of(st.integers(1, 1500), st.sampled_from([2, 7, 97, 127, 509, 997, 768, 1024, 2048, 50_304]))


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
    if theta.is_dense:
        assert sizes.of_indices == (d_in, d_out)
        return
    for (index, size), exponent in zip(sizes.items(), theta.exponents, strict=True):
        assert size >= 1
        assert exponent != 0 or size == 1, index


@settings(max_examples=50, deadline=None)
@given(thetas().filter(lambda theta: not theta.is_dense))
def test_exponents_of_whole_powers_are_realised_exactly(theta: Theta) -> None:
    realised = factorise(theta, 2**12, 2**24).exponents
    assert realised == pytest.approx([float(exponent) for exponent in theta.exponents], abs=1e-12)


@pytest.mark.parametrize(("d", "a"), [(128, 4), (256, 8), (512, 8), (1024, 8), (2048, 16)])
def test_thirds_move_with_the_divisors(d: int, a: int) -> None:
    assert factorise(lookup("btt13"), d, d).a == a


def test_the_divisors_are_the_nearest_in_log_distance() -> None:
    half = Term(F(1, 2))
    assert set(nearest_divisors(768, (half, half))) == {(24, 32), (32, 24)}
    sizes = factorise(lookup("btt"), 768, 768)
    assert {sizes.a, sizes.g} == {24, 32}


@pytest.mark.parametrize("d", [12, 60, 96, 97, 640])
def test_no_divisor_is_nearer(d: int) -> None:
    alpha = float(lookup("btt2")["x1"].exponent)
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


# --- nearest divisors, by trying everything -----------------------------------------------------------------------


def every_factorisation(size: int, parts: int) -> list[tuple[int, ...]]:
    """All tuples of so many divisors whose product is the size."""
    if parts == 1:
        return [(size,)]
    divisors = [one for one in range(1, size + 1) if size % one == 0]
    return [(one, *rest) for one in divisors for rest in every_factorisation(size // one, parts - 1)]


def by_trying_all(size: int, terms: tuple[Term, ...]) -> set[tuple[int, ...]]:
    """The factorisations of least squared log distance, absent indices at 1."""
    if all(term.is_absent for term in terms):
        return {(size, *[1] * (len(terms) - 1))}

    def distance(sizes: tuple[int, ...]) -> float:
        pairs = zip(sizes, terms, strict=True)
        return sum((math.log(s) - term.log_size(math.log(size))) ** 2 for s, term in pairs if not term.is_absent)

    allowed = [
        sizes
        for sizes in every_factorisation(size, len(terms))
        if all(s == 1 for s, term in zip(sizes, terms, strict=True) if term.is_absent)
    ]
    least = min(map(distance, allowed))
    return {sizes for sizes in allowed if distance(sizes) < least + 1e-8}


def random_terms(draw: random.Random) -> tuple[Term, ...]:
    """One to four sizes with exponents that sum to one, coefficients that multiply to one, and perhaps absent ones."""
    count = draw.randint(1, 4)
    parts = [draw.randint(0, 4) for _ in range(count - 1)] + [draw.randint(1, 4)]
    exponents = [F(part, sum(parts)) for part in parts]
    shares = [F(1)] * count
    if count > 1:
        one = draw.choice([F(1), F(2), F(1, 2), F(4), F(3, 2)])
        shares[0], shares[1] = one, 1 / one
    return tuple(map(Term, exponents, shares))


@pytest.mark.parametrize("seed", range(8))
def test_nearest_divisors_are_those_of_trying_all(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(40):
        size = draw.choice([draw.randint(1, 200), draw.choice([64, 96, 128, 144, 180, 192, 210, 240])])
        terms = random_terms(draw)
        found = nearest_divisors(size, terms)
        assert list(found) == sorted(set(found))
        assert set(found) == by_trying_all(size, terms), (size, list(map(str, terms)))


def test_among_equally_near_sizes_of_three_factors_the_most_proportionate_is_taken() -> None:
    """An input size counts where its index ends, an output size where its index begins; the closest ratios win."""
    theta = Theta.parse("x1=1/2 x12=1/2 y123=1/4 y23=1/4 y3=1/2 r12=1/4 r23=1/4")
    for width in (32, 128, 512, 2048):
        sizes = factorise(theta, width, width)

        def moved(sizes: Sizes, width: int = width) -> float:
            logs = {index.name: math.log(size) for index, size in sizes.items()}
            asked = {name: theta[name].log_size(math.log(width)) for name in logs}
            change = {name: logs[name] - asked[name] for name in logs}
            first = change["x1"] - change["y123"]
            second = change["x12"] - change["y23"]
            third = -change["y3"]
            return round(abs(first) + abs(second) + abs(third), 9)

        assert _disproportion(theta, sizes) == moved(sizes)


def test_ties_are_found_whatever_their_number() -> None:
    """6 into three of 6^(1/3): all six orders of 1, 2 and 3."""
    third = Term(F(1, 3))
    assert set(nearest_divisors(6, (third,) * 3)) == set(itertools.permutations((1, 2, 3)))


# --- coefficients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["exact", "paper"])
@pytest.mark.parametrize(("d_in", "d_out"), [(64, 64), (64, 256), (96, 48)])
def test_four_blocks_are_four_at_every_width(d_in: int, d_out: int, rounding: str) -> None:
    theta = Theta.parse("(1/4*1|0|4*0|0|1/4*1|4*0|1/16*1)")
    sizes = factorise(theta, d_in, d_out, rounding)
    wanted = (d_in // 4, 1, 4, 1, d_out // 4, 4, min(d_in, d_out) // 16)
    assert (sizes.a, sizes.b, sizes.g, sizes.d, sizes.e, sizes.f, sizes.r) == wanted


@pytest.mark.parametrize(
    ("text", "d_in", "d_out", "named"),
    [
        ("(1/4*1|0|4*0|0|1/4*1|4*0|1/16*1)", 8, 64, "rho = 1/16*1 would have size 0.5, below 1; .* at least 16"),
        ("(1/8*1|0|8*0|0|1|0|0)", 4, 64, "alpha = 1/8*1 would have size 0.5, below 1; .* at least 8"),
        ("(1|0|0|0|1|0|64*0)", 128, 32, "rho = 64*0 would have size 64, above the 32 features there are"),
        ("(1|0|0|1/4*0|4*1|0|0)", 64, 64, "delta = 1/4*0 would have size 0.25, below 1; .* at least 1"),
        ("x1=1/4*1 x12=4*0 y23=4*0 y3=1/4*1 r123=1/2", 64, 2, "y3 = 1/4*1 would have size 0.5"),
    ],
)
def test_a_width_that_cannot_have_a_structure_is_told(text: str, d_in: int, d_out: int, named: str) -> None:
    with pytest.raises(UnservedWidth, match=named.replace("*", r"\*").replace(r".\*", ".*")) as refused:
        factorise(Theta.parse(text), d_in, d_out)
    assert f"a layer of {d_in} x {d_out}" in str(refused.value)
    assert "\n" not in str(refused.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 4).flatmap(maps), st.sampled_from([48, 64, 72]), st.sampled_from([48, 64, 96]))
def test_any_map_loses_no_feature_or_says_that_it_cannot_be_had(theta: Theta, d_in: int, d_out: int) -> None:
    try:
        sizes = factorise(theta, d_in, d_out)
    except UnservedWidth:
        assert not theta.is_plain
        return
    assert (sizes.used_in, sizes.used_out) == (d_in, d_out)
    for index, size in sizes.items():
        assert theta.is_dense or not theta[index.name].is_absent or size == 1


def test_the_letters_of_two_factors_are_their_indices() -> None:
    sizes = Sizes.of_two(6, 35, a=2, b=1, g=3, d=5, e=7, r=11)
    assert [sizes[name] for name in ("x1", "x2", "x12", "y1", "y2", "y12", "r12")] == [2, 1, 3, 5, 7, 1, 11]
    assert (sizes.a, sizes.b, sizes.g, sizes.d, sizes.e, sizes.f, sizes.r) == (2, 1, 3, 5, 7, 1, 11)
    assert (sizes.used_in, sizes.used_out, sizes.dense) == (6, 35, False)
    assert Sizes.dense_layer(6, 35).of_indices == (6, 35)
