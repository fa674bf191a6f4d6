"""The plan: the formulas of two factors in every bit, worked numbers, closed forms, and the rules for more factors."""

import csv
import gzip
import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlin.errors import UserError
from structlin.structure import LinearPlan, Sizes, Theta, factorise, lookup, plan_linear, plan_theta, theta_of
from structlin.structure.index import Index
from structlin.structure.plan import factor_axes, input_axes
from tests.strategies import maps, thetas

GOLDEN = Path(__file__).parents[1] / "golden" / "two_factors.csv.gz"
"""3,000 random cases of two factors, by the formulas that were written for two."""
BASE = 768
BTT3 = "x1=1/3 x12=1/3 x123=1/3 y3=1/3 y23=1/3 y123=1/3 r12=2*0 r23=2*0"


# --- two factors --------------------------------------------------------------------------------------------------


def test_two_factors_are_the_former_formulas_in_every_bit() -> None:
    with gzip.open(GOLDEN, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3000
    wrong = [row for row in rows if {key: value for key, value in row.items() if value} != said_by_the_plan(row)]
    assert not wrong, (len(wrong), wrong[0], said_by_the_plan(wrong[0]))
    assert {row["order"] for row in rows} == {"AB", "BA", "w"}


def said_by_the_plan(row: dict[str, str]) -> dict[str, str]:
    """A row of the table, made by the plan."""
    given_keys = ("theta", "d_in", "d_out", "rounding")
    plan = plan_theta(Theta.parse(row["theta"]), int(row["d_in"]), int(row["d_out"]), rounding=row["rounding"])
    found: dict[str, object] = {key: row[key] for key in given_keys}
    # The table leaves the letters of a dense layer empty.
    found |= {} if plan.dense else {letter: getattr(plan.sizes, letter) for letter in "abgdefr"}
    found |= {"macs": plan.macs, "params": plan.params, "rank_bound": plan.sizes.rank_bound}
    found["order"] = "w" if plan.dense else "".join(factor.name for factor in plan.factors)
    for number, factor in enumerate(plan.factors, 1):
        found |= {f"fan_in_{number}": factor.fan_in, f"fan_out_{number}": factor.fan_out}
        found |= {f"std_{number}": factor.std.hex(), f"rate_{number}": factor.adam_multiplier(BASE).hex()}
    return {key: str(value) for key, value in found.items()}


@st.composite
def sizes_of_two(draw: st.DrawFn) -> Sizes:
    """Any seven sizes, with layers wider or narrower than what they hold."""
    letters = {letter: draw(st.integers(1, 5)) for letter in "abgdefr"}
    used_in = letters["a"] * letters["b"] * letters["g"]
    used_out = letters["d"] * letters["e"] * letters["f"]
    return Sizes.of_two(used_in + draw(st.integers(0, 3)), used_out + draw(st.integers(0, 3)), **letters)


@settings(max_examples=200, deadline=None)
@given(sizes_of_two())
def test_the_closed_formulas_of_two_factors(sizes: Sizes) -> None:
    """arXiv 2410.02117, sections 3 and 4, and arXiv 2406.06248, section 3, written out."""
    s, plan = sizes, plan_linear(sizes)
    a_first = s.used_in * s.d * s.f * s.r + s.used_out * s.b * s.g * s.r
    b_first = s.used_in * s.e * s.f * s.r + s.used_out * s.a * s.g * s.r
    assert plan.macs == min(a_first, b_first)
    assert plan.a_first == (a_first <= b_first)
    assert plan_linear(sizes, "first").macs == a_first
    assert plan.params == s.a * s.g * s.d * s.f * s.r + s.b * s.g * s.e * s.f * s.r
    cuts = (s.b * s.g * s.r * s.d * s.f, s.a * s.g * s.r * s.e * s.f, s.used_in, s.used_out)
    assert s.rank_bound == min(s.d_in, s.d_out, *cuts)
    if plan.a_first:
        fans = [("A", s.a, s.d * s.f * s.r), ("B", s.b * s.g * s.r, s.e)]
        middle = s.b * s.g * s.d * s.f * s.r
    else:
        fans = [("B", s.b, s.e * s.f * s.r), ("A", s.a * s.g * s.r, s.d)]
        middle = s.a * s.g * s.e * s.f * s.r
    assert plan.middles == (middle,)
    assert [(factor.name, factor.fan_in, factor.fan_out) for factor in plan.factors] == fans
    for factor, (_, fan_in, fan_out) in zip(plan.factors, fans, strict=True):
        assert factor.std == math.sqrt(min(fan_in, fan_out)) / fan_in
        assert factor.adam_multiplier(BASE) == BASE / (2 * fan_in)
        assert factor.adam_multiplier(BASE, "naive") == BASE / s.d_in


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
    plan = plan_theta(lookup(name), *shape)
    assert plan_theta(lookup(name), *shape, contraction="first").macs == plan.macs == a_first_macs
    assert plan_linear(with_names_swapped(plan.sizes), "first").macs == b_first_macs
    assert plan.params == weights


def with_names_swapped(sizes: Sizes) -> Sizes:
    """The same layer with A called B, so that contracting the first factor first contracts B first."""
    s = sizes
    return Sizes.of_two(s.d_in, s.d_out, a=s.b, b=s.a, g=s.g, d=s.e, e=s.d, f=s.f, r=s.r)


def test_the_cheaper_order_is_taken_unless_the_first_is_asked_for() -> None:
    sizes = Sizes.of_two(16, 16, a=2, b=8, d=8, e=2)
    cheapest, first = plan_linear(sizes), plan_linear(sizes, "first")
    assert (first.macs, cheapest.macs) == (16 * 8 + 16 * 8, 16 * 2 + 16 * 2)
    assert ([factor.name for factor in first.factors], first.a_first) == (["A", "B"], True)
    assert ([factor.name for factor in cheapest.factors], cheapest.a_first) == (["B", "A"], False)
    assert first.params == cheapest.params


def test_a_tie_contracts_a_first() -> None:
    sizes = factorise(lookup("kronecker"), 64, 64)
    assert plan_linear(sizes).macs == plan_linear(with_names_swapped(sizes), "first").macs
    assert plan_linear(sizes).a_first


def test_a_dense_layer_is_one_weight() -> None:
    plan = plan_theta(lookup("dense"), 48, 192)
    assert plan.macs == plan.params == 48 * 192
    assert (plan.dense, plan.middles, [factor.name for factor in plan.factors]) == (True, (), ["weight"])
    assert plan == plan_theta(lookup("dense"), 48, 192, contraction="first", output_order="efd")


def test_what_the_papers_rounding_drops_is_not_paid() -> None:
    plan = plan_theta(Theta.parse("0.33|0|0.67|0|0.67|0.33|0"), 256, 256, rounding="paper")
    assert plan.macs == 246 * 6 + 246 * 41  # 6 x 41 features in, 41 x 6 out


@settings(max_examples=100, deadline=None)
@given(thetas(), st.integers(2, 300), st.integers(2, 300), st.sampled_from(["exact", "paper"]))
def test_parameters_are_the_sizes_of_the_factors(theta: Theta, d_in: int, d_out: int, rounding: str) -> None:
    assert_factors_are_their_axes(plan_theta(theta, d_in, d_out, rounding=rounding))


@settings(max_examples=100, deadline=None)
@given(thetas())
def test_the_order_of_the_factors_names_changes_no_cost(theta: Theta) -> None:
    plan, swapped = plan_theta(theta, 2**12, 2**12), plan_theta(theta.swapped, 2**12, 2**12)
    assert (plan.macs, plan.params) == (swapped.macs, swapped.params)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("btt", "tga,fga,feg->tfe"),
        ("dense", "ti,oi->to"),
        ("low_rank", "ta,ra,er->te"),
        ("tensor_train", "tba,dra,erb->ted"),
        ("g2", "tgba,fdrga,fergb->tfed"),
    ],
)
def test_the_equation_leaves_absent_indices_out(name: str, text: str) -> None:
    assert plan_theta(lookup(name), 256, 256).equation == text


def test_the_equation_knows_the_order_of_the_output() -> None:
    assert plan_theta(lookup("g2"), 256, 256, output_order="efd").equation.endswith("->tefd")
    assert plan_theta(lookup("btt"), 256, 256, output_order="efd").equation == "tga,fga,feg->tef"


# --- scale and rates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "d", "first", "second"),
    [
        ("low_rank", 256, 1 / 2, 256 / (2 * 16)),
        ("low_rank", 1024, 1 / 2, 1024 / (2 * 32)),
        ("l1", 256, 1 / 2, 256 / (2 * 64)),
        ("kronecker", 256, math.sqrt(256) / 2, math.sqrt(256) / 2),
        ("kronecker", 4096, 64 / 2, 64 / 2),
        ("monarch", 1024, 32 / 2, 32 / 2),
        ("btt11", 256, math.sqrt(256) / 2, math.sqrt(256) / (2 * 4)),
        ("btt11", 4096, 64 / 2, 64 / (2 * 8)),
        ("tensor_train", 256, math.sqrt(256) / 2, math.sqrt(256) / (2 * 4)),
        ("dense", 256, 1, None),
    ],
)
def test_rates_over_those_of_a_dense_layer_in_closed_form(
    name: str, d: int, first: float, second: float | None
) -> None:
    """kappa of arXiv 2406.06248: the rate at a base fan-in of the layer's own, where a dense layer's is lr0."""
    kappas = [factor.adam_multiplier(d) for factor in plan_theta(lookup(name), d, d).factors]
    assert kappas == pytest.approx([first] if second is None else [first, second])


@pytest.mark.parametrize(
    ("name", "shape", "fans"),
    [
        ("btt", (64, 256), [("A", 8, 16), ("B", 8, 16)]),
        ("btt11", (256, 256), [("A", 16, 64), ("B", 64, 16)]),
        ("low_rank", (64, 256), [("A", 64, 8), ("B", 8, 256)]),
        ("tensor_train", (256, 256), [("A", 16, 64), ("B", 64, 16)]),
        ("dense", (64, 256), [("weight", 64, 256)]),
    ],
)
def test_fans_and_std(name: str, shape: tuple[int, int], fans: list[tuple[str, int, int]]) -> None:
    factors = plan_theta(lookup(name), *shape).factors
    assert [(factor.name, factor.fan_in, factor.fan_out) for factor in factors] == fans
    for factor, (_, fan_in, fan_out) in zip(factors, fans, strict=True):
        assert factor.std == pytest.approx(math.sqrt(min(fan_in, fan_out)) / fan_in)
    assert [factor.is_last for factor in factors] == [False] * (len(fans) - 1) + [True]


def test_b_first_swaps_the_roles() -> None:
    first, last = plan_linear(Sizes.of_two(48, 80, a=2, b=8, g=3, d=8, e=2, f=5, r=7)).factors
    assert (first.name, first.fan_in, first.fan_out) == ("B", 8, 2 * 5 * 7)
    assert (last.name, last.fan_in, last.fan_out) == ("A", 2 * 3 * 7, 8)


def test_adam_multipliers_of_both_rules() -> None:
    first, last = plan_theta(lookup("low_rank"), 256, 256).factors
    assert first.adam_multiplier(768) == 768 / (2 * 256)
    assert last.adam_multiplier(768) == 768 / (2 * 16)
    assert {factor.adam_multiplier(768, "naive") for factor in (first, last)} == {768 / 256}
    with pytest.raises(UserError, match="'mup'; valid: naive, plain, structure"):
        first.adam_multiplier(768, "mup")


def test_at_the_base_width_a_dense_layer_learns_at_lr0() -> None:
    (factor,) = plan_theta(lookup("dense"), 768, 768).factors
    assert factor.adam_multiplier(768) == factor.adam_multiplier(768, "naive") == 1


# --- more factors -------------------------------------------------------------------------------------------------


def test_a_worked_train_of_three_blocks() -> None:
    """d = 64, four features an index, ranks of 2: z(x2 x3; y1 r) of 128 and z(x3; y1 y2 r) of 128 elements."""
    plan = plan_theta(Theta.parse(BTT3), 64, 64)
    assert [factor.name for factor in plan.factors] == ["G1", "G2", "G3"]
    assert [factor.params for factor in plan.factors] == [4**4 * 2, 4**4 * 4, 4**4 * 2]
    assert [factor.macs for factor in plan.factors] == [4**4 * 2, 4**4 * 4, 4**4 * 2]
    assert [(factor.fan_in, factor.fan_out) for factor in plan.factors] == [(4, 8), (8, 8), (8, 4)]
    assert plan.middles == (4 * 4 * 4 * 2, 4 * 4 * 4 * 2)
    assert [factor.adam_multiplier(96) for factor in plan.factors] == [96 / (3 * 4), 96 / (3 * 8), 96 / (3 * 8)]
    assert plan.equation == "tcba,fgcba,fehgcb,fedhc->tfed"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(maps), st.sampled_from([(64, 64), (48, 96)]), st.sampled_from(["exact", "paper"]))
def test_any_map_is_the_cheapest_of_its_orders(theta: Theta, shape: tuple[int, int], rounding: str) -> None:
    """Steps, fans and middles counted afresh from what each index joins, for all orders."""
    try:
        sizes = factorise(theta, *shape, rounding)
    except UserError:
        return
    plan = plan_linear(sizes)
    assert_factors_are_their_axes(plan)
    orders = list(itertools.permutations(range(1, sizes.num_factors + 1)))
    counted = [counted_by_hand(sizes, order) for order in orders]
    cheapest = min(counted, key=lambda found: sum(found["macs"]))
    assert read_off(plan) == cheapest
    assert read_off(plan_linear(sizes, "first")) == counted[0]


def counted_by_hand(sizes: Sizes, order: tuple[int, ...]) -> dict[str, list]:
    """What an order costs, by the definition of what lives between two steps."""
    own = dict(sizes.items())

    def size(chosen: set[Index]) -> int:
        return math.prod(own[index] for index in chosen)

    def alive(done: set[int]) -> set[Index]:
        kept = set()
        for index in own:
            joined = set(index.factors)
            begun, ended = bool(joined & done), joined <= done
            if (index.side == "x" and not ended) or (index.side == "y" and begun):
                kept.add(index)
            if index.side == "r" and begun and not ended:
                kept.add(index)
        return kept

    found: dict[str, list] = {"order": list(order), "macs": [], "middles": [], "fans": []}
    for place, number in enumerate(order):
        before, after = alive(set(order[:place])), alive(set(order[: place + 1]))
        factor = {index for index in own if number in index}
        found["macs"].append(size(before | factor))
        found["middles"].append(size(after))
        found["fans"].append((size((before & factor) - after), size(factor - before)))
    found["middles"].pop()
    return found


def read_off(plan: LinearPlan) -> dict[str, list]:
    return {
        "order": [factor.step.number for factor in plan.factors],
        "macs": [factor.macs for factor in plan.factors],
        "middles": list(plan.middles),
        "fans": [(factor.fan_in, factor.fan_out) for factor in plan.factors],
    }


def assert_factors_are_their_axes(plan: LinearPlan) -> None:
    """A factor has the weights of the axes that its equation names, and all axes are those of the sizes."""
    sizes, count = plan.sizes, plan.sizes.num_factors
    of_axes = {n: math.prod(sizes[index.name] for index in factor_axes(count, n)) for n in range(1, count + 1)}
    assert {factor.step.number: factor.params for factor in plan.factors} == of_axes
    assert plan.params == sum(of_axes.values())
    assert math.prod(sizes[index.name] for index in input_axes(count)) == sizes.used_in
    assert math.prod(sizes[index.name] for index in plan.output_axes) == sizes.used_out


@pytest.mark.parametrize(
    ("sizes", "options", "named"),
    [
        (Sizes.of_two(4, 4, a=4, e=4), {"contraction": "best"}, "'best'; .*valid: cheapest, first"),
        (Sizes.of_two(4, 4, a=4, e=4), {"output_order": "dfe"}, "'dfe'; .*efd"),
        (factorise(Theta.parse(BTT3), 8, 8), {"output_order": "efd"}, "two factors, not of 3; use output_order=fed"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(sizes: Sizes, options: dict[str, str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        plan_linear(sizes, **options)


# --- the families' costs, exactly ---------------------------------------------------------------------------------


def family(name: str, d_in: int, d_out: int, **arguments: object) -> LinearPlan:
    return plan_theta(theta_of(name, arguments=arguments), d_in, d_out)


SHAPES = [(64, 64), (64, 256), (256, 64), (96, 192)]


@pytest.mark.parametrize(("N", "M"), SHAPES)
def test_costs_of_two_factors_are_those_of_the_table(N: int, M: int) -> None:
    K = min(N, M)
    for R, written in ((16, 16), (K // 4, "d/4"), (3 * K // 8, "3/8*d"), (K, "d")):
        low_rank = family("low_rank", N, M, rank=written)
        assert (low_rank.params, low_rank.macs) == (R * (N + M), R * (N + M))
    for b in (2, 4):
        for name in ("monarch", "block_shuffle"):
            monarch = family(name, N, M, blocks=b)
            assert (monarch.params, monarch.macs) == (K * (N + M) // b, K * (N + M) // b)
            assert monarch.sizes.rank_bound == K // (1 if K % b**2 == 0 else b)
        for R, written in ((K // 2, "d/2"), (8, 8)):
            block_dense = family("block_dense", N, M, blocks=b, rank=written)
            assert block_dense.params == block_dense.macs == R * (M + N // b)
        n = b
        phm = family("kronecker_sum", N, M, terms=n)
        assert phm.params == N * M // n + n**3
        assert phm.macs == N * M + n**2 * min(N, M)


@pytest.mark.parametrize(("N", "M"), SHAPES)
@pytest.mark.parametrize("r", [1, 2, 4])
def test_costs_of_a_block_tensor_train_are_those_of_the_table(N: int, M: int, r: int) -> None:
    plan = family("btt", N, M, rank=r)
    s = plan.sizes
    assert (s.a * s.g, s.e * s.f, s.r) == (N, M, r)
    assert plan.params == plan.macs == r * (N * s.f + M * s.g)


@pytest.mark.parametrize(("N", "M"), SHAPES)
def test_costs_of_blast_are_those_of_the_table(N: int, M: int) -> None:
    for b, R in ((2, 8), (4, 16)):
        plan = family("blast", N, M, blocks=b, rank=R)
        assert plan.params == plan.macs == R * (N + M + b**2)


@pytest.mark.parametrize(("factors", "d"), [(2, 64), (3, 64), (3, 512), (4, 256)])
@pytest.mark.parametrize("r", [1, 2, 3])
def test_a_train_of_c_blocks_costs_r2_d_to_the_power_1_plus_1_over_c(factors: int, d: int, r: int) -> None:
    """The inner cores; the two at the ends have one rank, so r."""
    plan = family("btt", d, d, rank=r, factors=factors)
    m = round(d ** (1 / factors))
    assert m**factors == d
    assert plan.params == plan.macs == (2 * r + (factors - 2) * r**2) * d * m


@pytest.mark.parametrize(("cores", "d"), [(2, 64), (3, 64), (4, 256)])
@pytest.mark.parametrize("bond", [1, 2, 8])
def test_a_matrix_product_operator_has_cores_of_two_features_and_its_bonds(cores: int, d: int, bond: int) -> None:
    plan = family("mpo", d, d, cores=cores, bond=bond)
    m = round(d ** (1 / cores))
    assert plan.params == m**2 * (2 * bond + (cores - 2) * bond**2)
    # A step costs what lives, m^(c-1) m bonds, times the features that it brings.
    assert plan.macs == d * m * (2 * bond + (cores - 2) * bond**2)
