"""The arithmetic of rungs: how many arms, how much compute, what is kept for the rungs above."""

import pytest

from structlin.errors import UserError
from structlin.search.rungs import counts_of, ladder, largest, reserve


@pytest.mark.parametrize(
    ("arms", "eta", "rungs", "least", "counts"),
    [
        (27, 3, None, 2, (27, 9, 3, 2)),
        (29, 3, None, 3, (29, 10, 4, 3)),
        (27, 3, 3, 2, (27, 9, 3)),
        (8, 2, None, 2, (8, 4, 2)),
        (2, 3, None, 2, (2,)),
        (5, 3, 1, 2, (5,)),
        (2, 3, 3, 2, (2, 2, 2)),
    ],
)
def test_counts(arms: int, eta: float, rungs: int | None, least: int, counts: tuple[int, ...]) -> None:
    assert counts_of(arms, eta, rungs, least) == counts


def price(one) -> float:
    """Each rung costs what lies between two, at four widths."""
    steps = [one.flops[0], *(b - a for a, b in zip(one.flops, one.flops[1:], strict=False))]
    return 4 * sum(count * step for count, step in zip(one.counts, steps, strict=True))


@pytest.mark.parametrize("budget", [1e6, 1e9, 3.7e12])
def test_the_ladder_uses_the_budget_and_no_more(budget: float) -> None:
    found = largest((27, 9, 3, 2), 3.0, budget, 1e15, price)
    assert 0.85 * budget < price(found) <= budget
    assert found.flops[-1] == pytest.approx(27 * found.flops[0])


def test_twenty_seven_arms_with_one_at_the_top_cost_a_ninth_of_everything() -> None:
    one = ladder((27, 9, 3, 1), 1.0, 3.0)
    assert price(one) / (4 * 27 * one.top) == pytest.approx(81 / 729)


def test_no_rung_goes_beyond_the_target() -> None:
    assert largest((9, 3), 3.0, 1e30, 1e6, price).top == pytest.approx(1e6)


def test_a_budget_below_every_first_rung_is_refused() -> None:
    with pytest.raises(UserError, match="pays for no first rung of 9 arms: the smallest search of them takes about 1e"):
        largest((9, 3), 3.0, 10.0, 1e6, lambda one: max(price(one), 100.0))


def test_a_target_below_every_first_rung_is_refused_whatever_the_budget() -> None:
    with pytest.raises(UserError, match=r"target = 1e\+06 FLOPs leaves the first of 2 rungs 3\.33e\+05 FLOPs a run"):
        largest((9, 3), 3.0, 1e30, 1e6, lambda one: float("inf"))


def test_the_rungs_above_are_thinned_and_never_below_their_plan() -> None:
    assert reserve(9, (9, 3, 2), (10.0, 100.0), 3.0) == 3 * 10 + 2 * 100
    assert reserve(27, (9, 3, 2), (10.0, 100.0), 3.0) == 9 * 10 + 3 * 100
    assert reserve(1, (9, 3, 2), (10.0, 100.0), 3.0) == 10 + 100
