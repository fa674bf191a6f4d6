"""The families: names and arguments lead to thetas and back, and what cannot be is one line that names the way out."""

import re
from fractions import Fraction as F

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from structlin.errors import UserError
from structlin.structure import CATALOG, FAMILIES, Term, Theta, lookup, name_of, theta_of
from structlin.structure.families import output_order_of, parse_rank
from structlin.structure.naming import family_of
from structlin.structure.served import plan_served
from structlin.structure.sizes import UnservedWidth
from tests.strategies import maps, thetas, useful_thetas

WRITTEN = {
    "low_rank-d:4": ("low_rank", {"rank": "d/4"}, "(1|0|0|0|1|0|1/4*1)"),
    "low_rank-r64": ("low_rank", {"rank": 64}, "(1|0|0|0|1|0|64*0)"),
    "low_rank-3d:8": ("low_rank", {"rank": "3/8*d"}, "(1|0|0|0|1|0|3/8*1)"),
    "low_rank-d": ("low_rank", {"rank": "d"}, "(1|0|0|0|1|0|1)"),
    "low_rank-r1": ("low_rank", {"rank": 1}, "(1|0|0|0|1|0|0)"),
    "low_rank": ("low_rank", {}, "(1|0|0|0|1|0|1/2)"),
    "monarch-b4": ("monarch", {"blocks": 4}, "(1/4*1|0|4*0|0|1/4*1|4*0|1/16*1)"),
    "block_shuffle-b4": ("block_shuffle", {"blocks": 4}, "(1/4*1|0|4*0|0|1/4*1|4*0|1/16*1)"),
    "block_dense-b2-d:2": ("block_dense", {"blocks": 2, "rank": "d/2"}, "(1/2*1|0|2*0|0|1|0|1/4*1)"),
    "block_dense-b4-r64": ("block_dense", {"blocks": 4, "rank": 64}, "(1/4*1|0|4*0|0|1|0|16*0)"),
    "kronecker_sum-n4": ("kronecker_sum", {"terms": 4}, "(1/4*1|4*0|0|1/4*1|4*0|0|4*0)"),
    "btt": ("btt", {"factors": 2}, "(1/2|0|1/2|0|1/2|1/2|0)"),
    "btt-r4": ("btt", {"rank": 4}, "(1/2|0|1/2|0|1/2|1/2|4*0)"),
    "btt-c3": ("btt", {"factors": 3}, "x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3"),
    "btt-r4-c3": (
        "btt",
        {"rank": 4, "factors": 3},
        "x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=4*0 r23=4*0",
    ),
    "mpo-c3-r8": (
        "mpo",
        {"cores": 3, "bond": 8},
        "x1=1/3 x2=1/3 x3=1/3 y1=1/3 y2=1/3 y3=1/3 r12=8*0 r23=8*0",
    ),
    "blast-b4-d:4": (
        "blast",
        {"blocks": 4, "rank": "d/4"},
        "x1=1/4*1 x12=4*0 y3=1/4*1 y23=4*0 r123=1/4*1",
    ),
}


@pytest.mark.parametrize(("name", "written"), WRITTEN.items(), ids=WRITTEN)
def test_a_family_writes_a_theta_that_has_its_name(name: str, written: tuple[str, dict[str, object], str]) -> None:
    family, arguments, text = written
    theta = theta_of(family, arguments=arguments)
    assert str(theta) == text
    assert theta == Theta.parse(text)
    assert name_of(theta, output_order_of(family)) == name


def test_names_without_arguments_are_the_catalogues() -> None:
    for name in CATALOG:
        assert theta_of(name) == lookup(name)
    assert name_of(theta_of("monarch")) == "btt"


SIZES = st.one_of(
    st.integers(1, 300).map(lambda number: Term(F(0), F(number))),
    st.tuples(st.integers(1, 16), st.integers(1, 16)).map(lambda pair: Term(F(1), F(min(pair), max(pair)))),
)
WHOLE = {
    "blocks": st.integers(2, 64),
    "terms": st.integers(2, 64),
    "factors": st.integers(2, 4),
    "cores": st.integers(2, 4),
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, object]]:
    """Any family with any arguments that it takes."""
    name = draw(st.sampled_from(sorted(FAMILIES)))
    return name, {key: draw(WHOLE.get(key, SIZES)) for key in FAMILIES[name].needs}


def useful(name: str, arguments: dict[str, object]) -> Theta:
    try:
        return theta_of(name, arguments=arguments)
    except UserError:
        raise
    except ValueError:
        # Degenerate: a rank of d in a train, say.
        assume(False)
        raise


@settings(max_examples=300, deadline=None)
@given(calls())
def test_a_theta_of_a_family_leads_back_to_its_words(call: tuple[str, dict[str, object]]) -> None:
    """To itself or, where two families write one theta, to one that writes the same theta and the same order."""
    name, arguments = call
    theta, order = useful(name, arguments), output_order_of(name)
    found = family_of(theta, order)
    assert found is not None
    again, values = found
    assert output_order_of(again) == order
    assert theta_of(again, arguments=values) == theta
    assert name_of(theta, order) == name_of(Theta.parse(str(theta)), order)
    assert re.fullmatch(r"[a-z_0-9:-]+", name_of(theta, order))
    if name not in ("mpo", "btt"):
        assert (again, values) == (name, arguments)


@settings(max_examples=300, deadline=None)
@given(calls(), calls())
def test_different_structures_have_different_names(
    one: tuple[str, dict[str, object]], other: tuple[str, dict[str, object]]
) -> None:
    structures = [(useful(*call), output_order_of(call[0])) for call in (one, other)]
    names = [name_of(*structure) for structure in structures]
    assert (names[0] == names[1]) == (structures[0] == structures[1])


@settings(max_examples=300, deadline=None)
@given(st.one_of(useful_thetas(), thetas(), st.integers(2, 4).flatmap(maps)), st.sampled_from(["fed", "efd"]))
def test_no_other_theta_takes_the_name_of_a_family_or_of_the_catalogue(theta: Theta, order: str) -> None:
    """A name of words is read back to the theta; what has none is its text, or a hash of it."""
    name = name_of(theta, order)
    if theta.is_dense:
        return
    if theta.num_factors == 2 and name.startswith("("):
        assert name == str(theta) + ("" if order == "fed" else "-efd")
    elif name.startswith("theta"):
        assert re.fullmatch(rf"theta{theta.num_factors}-[0-9a-f]{{8}}(-efd)?", name)
    elif name.removesuffix("-efd") in CATALOG:
        assert theta == lookup(name.removesuffix("-efd"))
    else:
        found = family_of(theta, order)
        base = name.removesuffix("-efd").split("-")[0]
        assert found is not None or base in CATALOG


def test_a_catalogue_name_takes_a_rank() -> None:
    theta = theta_of("btt7", arguments={"rank": 4})
    assert (str(theta), name_of(theta)) == ("(2/3|0|1/3|0|2/3|1/3|4*0)", "btt7-r4")
    explicit = theta_of("einsum", theta="(2/3|0|1/3|0|2/3|1/3|0)", arguments={"rank": "4"})
    assert explicit == theta
    assert theta_of("btt2", rounding="paper", arguments={"rank": 4})["x1"].exponent == F("0.33")


def test_the_order_of_the_output_is_in_the_name() -> None:
    theta = theta_of("monarch", arguments={"blocks": 4})
    assert (name_of(theta), name_of(theta, "efd")) == ("monarch-b4", "block_shuffle-b4")
    assert (name_of(lookup("btt")), name_of(lookup("btt"), "efd")) == ("btt", "btt-efd")
    assert name_of(lookup("dense"), "efd") == "dense"


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("64", Term(F(0), F(64))),
        ("d", Term(F(1))),
        ("d/4", Term(F(1), F(1, 4))),
        ("3/8*d", Term(F(1), F(3, 8))),
        ("0.25*d", Term(F(1), F(1, 4))),
        (" 3 * d / 8 ", Term(F(1), F(3, 8))),
    ],
)
def test_a_rank_is_a_number_or_a_part_of_d(text: str, term: Term) -> None:
    assert parse_rank(text) == term


@pytest.mark.parametrize(
    "text", ["2*d", "0", "1.5", "x", "-4", "d/0", "d*2", "3d", "", "inf", "nan", "0*d", "-1*d", "dd"]
)
def test_what_is_no_rank_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"write a whole number such as 64, or a part of d .*: d, d/4, 3/8\*d$") as no:
        parse_rank(text)
    assert f"structure.rank = {text}:" in str(no.value)


WRONG = {
    "structure=monarch blocks=1": "structure.blocks = 1 must be a whole number of at least 2",
    "structure=monarch blocks=2.5": "structure.blocks = 2.5 must be a whole number",
    "structure=monarch blocks=inf": "structure.blocks = inf must be a whole number",
    "structure=btt factors=5": "structure.factors = 5 must be a whole number from 2 to 4",
    "structure=btt factors=1": "structure.factors = 1 must be a whole number from 2 to 4",
    "structure=kronecker_sum terms=1": "structure.terms = 1 must be a whole number of at least 2",
    "structure=mpo cores=1 bond=4": "structure.cores = 1 must be a whole number from 2 to 4",
    "structure=monarch rank=4": "structure=monarch takes no structure.rank; it takes structure.blocks",
    "structure=btt7 factors=3": "structure=btt7 takes no structure.factors; it takes structure.rank",
    "structure=dense rank=4": "structure=dense takes no structure.rank: a dense layer has none",
    "structure=blast blocks=4": "structure=blast needs structure.rank, such as structure.rank=d/4",
    "structure=mpo": "needs structure.cores and structure.bond, such as structure.cores=3 structure.bond=8",
    "structure=block_shuffle": "needs structure.blocks, such as structure.blocks=4",
    "structure=mpo cores=3 bond=0": "structure.bond = 0: write a whole number",
    "structure=lowrank": "unknown structure 'lowrank'; did you mean 'low_rank'",
    "structure=btt size=3": "unknown argument structure.size; ",
}


@pytest.mark.parametrize(("call", "named"), WRONG.items(), ids=WRONG)
def test_wrong_arguments_are_one_line(call: str, named: str) -> None:
    name, *words = (word.partition("=") for word in call.split())
    arguments = {key: float(value) if value in ("2.5", "inf") else int(value) for key, _, value in words}
    with pytest.raises(UserError) as refused:
        theta_of(name[2], arguments=arguments)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_argument_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(UserError, match=r"structure=einsum takes no structure\.blocks; it takes structure\.rank"):
        theta_of("einsum", theta="1|0|0|0|1|0|1/2", arguments={"blocks": 4})
    for change in ({"rho": "1/4"}, {"arguments": {"rank": 4}}):
        with pytest.raises(UserError, match="joins no two factors by a rank; write one into it, such as r12="):
            theta_of("einsum", theta="x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3", **change)  # type: ignore[arg-type]


def test_ranks_that_cost_more_than_a_dense_layer_are_degenerate() -> None:
    with pytest.raises(ValueError, match="degenerate"):
        theta_of("tensor_train", arguments={"rank": "d"})
    with pytest.raises(ValueError, match=r"degenerate: it costs d\^3.33 per row"):
        theta_of("btt", arguments={"rank": "d", "factors": 3})


# --- what a width can serve ---------------------------------------------------------------------------------------

SERVED = {
    ("monarch", 64, 64): ({"blocks": 16}, "blocks", 8),
    ("block_shuffle", 32, 128): ({"blocks": 16}, "blocks", 5),
    ("kronecker_sum", 32, 32): ({"terms": 64}, "terms", 11),
    ("low_rank", 128, 32): ({"rank": 64}, "rank", 32),
    ("block_dense", 32, 32): ({"blocks": 64, "rank": "d/2"}, "blocks", 16),
    ("mpo", 32, 48): ({"cores": 3, "bond": 64}, "bond", 32),
    ("blast", 16, 64): ({"blocks": 4, "rank": 64}, "rank", 16),
}


@pytest.mark.parametrize("where", SERVED, ids=lambda where: "-".join(map(str, where)))
def test_a_width_names_the_nearest_argument_that_works(where: tuple[str, int, int]) -> None:
    """The largest smaller one: it serves, and the next larger does not."""
    name, d_in, d_out = where
    arguments, key, nearest = SERVED[where]
    order = {"output_order": output_order_of(name)}
    with pytest.raises(UnservedWidth) as refused:
        plan_served(theta_of(name, arguments=arguments), d_in, d_out, **order)
    said = re.search(rf"the nearest that works there: structure\.{key}=(\d+)$", str(refused.value))
    assert f"structure {name}" in str(refused.value)
    assert f"layer of {d_in} x {d_out}" in str(refused.value)
    assert said is not None, str(refused.value)
    found = int(said[1])
    plan_served(theta_of(name, arguments={**arguments, key: found}), d_in, d_out, **order)
    with pytest.raises(UnservedWidth):
        plan_served(theta_of(name, arguments={**arguments, key: found + 1}), d_in, d_out, **order)
    assert found == nearest


def test_a_theta_of_no_family_is_refused_by_its_indices() -> None:
    theta = Theta.parse("(1/8*1|0|8*0|0|1/2|1/2|0)")
    with pytest.raises(
        UnservedWidth, match=r"alpha = 1/8\*1 would have size 0\.5, below 1; it takes widths of at least 8$"
    ):
        plan_served(theta, 4, 64)
