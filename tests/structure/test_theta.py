"""theta: kept as written, refused where it is wrong, redundant and degenerate ones mended by name."""

from fractions import Fraction as F

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlin.structure import Term, Theta
from structlin.structure.index import Index, indices
from structlin.structure.theta import parse_fraction
from tests.strategies import maps, thetas

BTT = (F(1, 2), F(0), F(1, 2), F(0), F(1, 2), F(1, 2), F(0))


@pytest.mark.parametrize(
    "text",
    [
        "(1/2|0|1/2|0|1/2|1/2|0)",
        "(0.5|0|0.5|0|0.5|0.5|0)",
        "0.5,0,0.5,0,0.5,0.5,0",
        " ( .5 | 0 | 1/2 | 0.0 | 2/4 | 0.50 | 0 ) ",
        "[1/2, 0, 1/2, 0, 1/2, 1/2, 0]",
    ],
)
def test_every_written_form_of_btt_is_one_theta(text: str) -> None:
    assert Theta.parse(text).exponents == BTT


def test_decimals_are_kept_as_written() -> None:
    theta = Theta.parse("(0.33|0|0.67|0|0.67|0.33|1/3)")
    assert theta.exponents == (F(33, 100), 0, F(67, 100), 0, F(67, 100), F(33, 100), F(1, 3))
    assert theta != Theta.parse("(1/3|0|2/3|0|2/3|1/3|1/3)")


@given(thetas())
def test_the_text_of_a_theta_reads_back(theta: Theta) -> None:
    assert Theta.parse(str(theta)) == theta
    assert Theta.parse(str(theta)[1:-1].replace("|", ",")) == theta


@pytest.mark.parametrize("text", ["(0.33|0.33|0.33|0|1/2|1/2|0)", "(1/2|0|0.51|0|1/2|0.49|0)"])
def test_sums_within_a_hundredth_pass(text: str) -> None:
    Theta.parse(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("(1/2|0|0.52|0|1/2|1/2|0)", ["alpha + beta + gamma = 1.02"]),
        ("(1/2|0|1/2|0|1/2|0.48|0)", ["delta + epsilon + phi = 0.98"]),
        ("(1/2|0|1/2|0|1/2|1/2)", ["6 numbers", "needs 7"]),
        ("(1/2|0|1/2|0|1/2|1/2|0|0)", ["8 numbers"]),
        ("", ["1 numbers"]),
        ("(x|0|1/2|0|1/2|1/2|0)", ["'x'", "not a number"]),
        ("(1/0|0|1/2|0|1/2|1/2|0)", ["'1/0'"]),
        ("(nan|0|1/2|0|1/2|1/2|0)", ["'nan'"]),
        ("(3/2|-1/2|0|0|1/2|1/2|0)", ["alpha = 3/2", "[0, 1]"]),
        ("(1/2|0|1/2|0|1/2|1/2|-1/4)", ["rho = -1/4"]),
        ("(1/2|0|1/2|0|1/2|1/2|5/4)", ["rho = 5/4"]),
    ],
)
def test_a_wrong_theta_is_refused_by_what_is_wrong(text: str, named: list[str]) -> None:
    with pytest.raises(ValueError) as refused:
        Theta.parse(text)
    assert all(word in str(refused.value) for word in named), str(refused.value)


def test_a_redundant_theta_names_the_swap_that_mends_it() -> None:
    theta = Theta.parse("(0|1/2|1/2|1/2|0|1/2|0)")
    with pytest.raises(ValueError, match="redundant") as refused:
        theta.check_useful()
    mended = str(refused.value).rsplit(" ", 1)[1]
    assert mended == "(1/2|0|1/2|0|1/2|1/2|0)"
    Theta.parse(mended).check_useful()


def test_a_degenerate_theta_names_the_largest_rank() -> None:
    theta = Theta.parse("(1/3|0|2/3|0|2/3|1/3|1/2)")
    with pytest.raises(ValueError, match=r"degenerate.*use rho <= 1/3"):
        theta.check_useful()
    theta.with_rank(Term(F(1, 3))).check_useful()


@given(thetas())
def test_swapping_twice_changes_nothing_and_mends_redundancy(theta: Theta) -> None:
    assert theta.swapped.swapped == theta
    assert theta.is_degenerate == theta.swapped.is_degenerate
    assert not (theta.is_redundant and theta.swapped.is_redundant)


# --- coefficients and any number of factors -----------------------------------------------------------------------

BTT3 = "x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=4*0 r23=4*0"


def present(theta: Theta) -> list[Index]:
    """The indices that a theta has."""
    return [index for index in theta.indices if not theta[index.name].is_absent]


@given(st.integers(1, 4).flatmap(maps))
def test_the_text_of_any_map_reads_back(theta: Theta) -> None:
    """By the canonical text, and by its indices in any order, with commas, brackets and spaces."""
    assert Theta.parse(str(theta)) == theta
    words = [f"{index.name}={theta[index.name]}" for index in present(theta)]
    if theta.num_factors > 2 or any(2 in index for index in present(theta)):
        assert Theta.parse(" ".join(reversed(words))) == theta
        assert Theta.parse(f"[ {', '.join(words)} ]") == theta


@given(thetas())
def test_seven_numbers_and_named_indices_are_one_theta(theta: Theta) -> None:
    words = [f"{index.name}={term}" for index, term in zip(indices(2), theta.terms, strict=True)]
    assert Theta.parse(" ".join(words)) == theta


def test_one_factor_is_a_dense_layer() -> None:
    assert Theta.parse("x1=1 y1=1").is_dense
    assert str(Theta.parse("x1=1 y1=1")) == "(0|0|1|0|0|1|0)"


def test_a_coefficient_stands_before_a_star() -> None:
    quarter = Theta.parse("(1|0|0|0|1|0|1/4*1)")
    assert quarter["r12"] == Term(F(1), F(1, 4))
    assert (str(quarter), quarter.is_plain, quarter["r12"].size(64)) == ("(1|0|0|0|1|0|1/4*1)", False, 16)
    assert Theta.parse("1,0,0,0,1,0,0.25*1") == quarter == Theta.parse("x1=1 y2=1 r12=2/8*1")
    assert Theta.parse("(1|0|0|0|1|0|1*1/2)") == Theta.parse("(1|0|0|0|1|0|1/2)")


def test_an_index_is_absent_where_its_size_is_one_at_every_width() -> None:
    theta = Theta.parse(BTT3)
    assert str(theta) == BTT3
    assert " ".join(index.name for index in present(theta)) == "x1 x12 x123 y3 y23 y123 r12 r23"
    assert theta["r12"].exponent == 0
    assert not theta["r12"].is_absent
    assert theta["r123"].is_absent


WRONG_MAPS = {
    "x1=1/2 x12=1/3 y2=1": "input indices .* alpha \\+ beta \\+ gamma = 0.8333, but must be 1",
    "x123=1/2 x1=1/4 y3=1": "input indices of theta x1=1/4 .* they = 0.75, but must be 1",
    "x123=1 y3=1/2": "output indices .* they = 0.5",
    "x1=2*1/2 x12=1/2 y2=1": "coefficients of the input indices .* multiply to 2, but must to 1",
    "x123=1 y3=1/2 y23=1/3*1/2": "coefficients of the output indices .* multiply to 1/3",
    "x123=1 y3=1 r12=-4*0": r"r12 = -4\*0 .* a coefficient must be above 0",
    "x123=1 y3=1 r12=0*1": r"r12 = 0\*1 .* above 0",
    "x123=1 y3=1 r12=3/2": r"r12 = 3/2 .* outside \[0, 1\]",
    "x123=1 y3=1 r12=a*1": "'a' in .* is not a number such as 0.5 or 1/3",
    "x123=1 y3=1 r12=4*": "'' in .* is not a number",
    "x123=1 y3=1 r12=2*4*0": r"'4\*0' in",
    "x123=1 y3=1 r12": "'r12' in .* is no index=size, such as x12=1/3",
    "x12345=1 y1=1": "'x12345' is no index",
    "x5=1 y5=1": "'x5' is no index",
    "x21=1 y1=1": "'x21' is no index; .* rising from 1 to 4",
    "r1=1/2 x12=1 y2=1": "'r1' is no index; .*r joins two or more",
    "q1=1 y2=1": "'q1' is no index; write x, y or r",
    "x1=1/2 x3=1/2 y1=1/2 y3=1/2": "factor 2 of theta .* has no index; number the factors without a gap",
    "x1=1/2 x1=1/2 y2=1": "gives x1 twice",
    "(1|0|0|0|1|0|0|0)": "8 numbers, but needs 7: .* more than two factors are written by their indices: x1=1/3",
}


@pytest.mark.parametrize(("text", "named"), WRONG_MAPS.items(), ids=WRONG_MAPS)
def test_a_wrong_map_is_refused_in_one_line(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named) as refused:
        Theta.parse(text)
    assert "\n" not in str(refused.value)


def test_many_factors_that_cost_more_than_dense_are_degenerate() -> None:
    theta = Theta.parse("x1=1 y3=1 r12=1 r23=1 r123=1/2")
    with pytest.raises(ValueError, match=r"costs d\^2.5 per row, more than the d\^2 of a dense layer; use smaller"):
        theta.check_useful()
    Theta.parse(BTT3).check_useful()


def test_a_rank_goes_to_every_rank_there_is() -> None:
    eight = Term(F(0), F(8))
    changed = Theta.parse(BTT3).with_rank(eight)
    assert [changed[name] for name in ("r12", "r23", "r13", "r123")] == [eight, eight, Term(F(0)), Term(F(0))]
    assert Theta.parse("(1/2|0|1/2|0|1/2|1/2|0)").with_rank(eight)["r12"] == eight


@pytest.mark.parametrize(("text", "value"), [("1/3", F(1, 3)), ("0.25", F(1, 4)), ("1e-1", F(1, 10))])
def test_parse_fraction(text: str, value: F) -> None:
    assert parse_fraction(text) == value
