"""A search as a function of its store: within its budget, the same at every look, and on from wherever it was ended."""

from dataclasses import replace

import pytest

from structlin.errors import UserError
from structlin.search.course import Course, course
from structlin.search.report import bill, record, said
from tests.search.store import Planted, request, searched


def test_a_search_ends_with_a_winner_and_keeps_to_its_budget(whole: tuple[Course, Planted]) -> None:
    now, store = whole
    assert now.is_over
    assert now.winner in now.rungs[-1].arms
    assert store.spent == pytest.approx(now.spent)
    assert store.spent <= now.budget
    assert store.again == 0
    sizes = [len(rung.arms) for rung in now.rungs]
    assert sizes == sorted(sizes, reverse=True)
    assert [rung.flops for rung in now.rungs] == pytest.approx([now.steps.flops[0] * 3**k for k in range(len(sizes))])


def test_dense_and_btt_are_among_the_arms_and_dense_goes_to_the_top(whole: tuple[Course, Planted]) -> None:
    now, _ = whole
    names = [arm.name.split("+")[0] for arm in now.arms]
    assert names[:2] == ["dense", "btt"]
    assert all(0 in rung.arms for rung in now.rungs)


def test_second_seeds_are_trained_at_the_top_alone(whole: tuple[Course, Planted]) -> None:
    now, _ = whole
    for rung in now.rungs:
        seeds = {job.science.seed for job in rung.jobs}
        assert seeds == ({0, 1} if rung.number == len(now.rungs) - 1 else {0})


def test_new_arms_join_after_the_first_rung_and_are_explained(whole: tuple[Course, Planted]) -> None:
    now, _ = whole
    proposed = {number for number, arm in enumerate(now.arms) if arm.origin == "proposed"}
    assert proposed
    assert not proposed & set(now.rungs[0].arms)
    assert {one.arm.name for one in now.rungs[0].proposals} == {
        now.arms[n].name for n in now.rungs[1].arms if n in proposed
    }
    found = record(now)
    names = {one["name"] for one in found["arms"]}
    for one in found["rungs"][0]["proposals"]:
        assert {one["arm"], one["nearest"]} <= names


def test_every_arm_has_a_short_name_of_its_own_and_the_record_its_theta(whole: tuple[Course, Planted]) -> None:
    now, _ = whole
    arms = record(now)["arms"]
    assert len({one["name"] for one in arms}) == len(arms)
    assert max(len(one["name"]) for one in arms) <= 24
    assert [one["theta"] for one in arms] == [str(arm.theta) for arm in now.arms]
    sampled = [one for one in arms if one["variant"].startswith("(")]
    assert sampled
    assert all(one["name"].startswith("theta2-") and one["variant"].startswith(one["theta"]) for one in sampled)


@pytest.mark.parametrize("killed", [0.5, *(pytest.param(at, marks=pytest.mark.long) for at in (0.05, 0.3, 0.75, 0.95))])
def test_killed_at_any_moment_it_goes_on_to_the_same_runs_and_choice(
    whole: tuple[Course, Planted], killed: float
) -> None:
    end, reference = whole
    store = Planted()
    total, done = sum(len(rung.jobs) for rung in end.rungs), 0
    while (now := course(request(), store.read)).underway is not None:
        for job in now.underway.jobs:
            store.train(job)
            done += 1
            if done == int(killed * total) + 1:
                break  # what is in the store is all that is left
        else:
            continue
    assert store.steps == reference.steps
    assert record(now) == record(end)
    assert store.again == 0


def test_what_later_rungs_add_changes_no_earlier_decision(whole: tuple[Course, Planted]) -> None:
    end, store = whole
    fresh = Planted()
    now = course(request(), fresh.read)
    for job in now.underway.jobs:
        fresh.train(job)
    now = course(request(), fresh.read)
    again = course(request(), store.read)
    assert record(now)["rungs"][0] == record(again)["rungs"][0] == record(end)["rungs"][0]


@pytest.mark.parametrize(
    "words",
    [
        ("budget=9e12", "structure.count=13"),
        *(pytest.param((word,), marks=pytest.mark.long) for word in ("budget=9e12", "structure.count=13")),
    ],
)
def test_more_budget_or_more_arms_go_on_and_train_nothing_twice(words: tuple[str, ...]) -> None:
    store = Planted()
    searched(request(), store)
    before = store.spent
    now = searched(request(*words), store)
    assert now.is_over
    assert store.again == 0
    assert store.spent > before


def test_every_arm_is_trained_where_the_budget_is_enough_and_none_is_unlikely() -> None:
    store = Planted()
    now = searched(request("target=1e11", "budget=1e15", "structure.count=4", "search.level=0"), store)
    assert {len(rung.arms) for rung in now.rungs[:1]} == {6}
    assert len(now.rungs[-1].arms) == 6
    assert now.steps.top == pytest.approx(1e11)


def test_a_budget_that_ends_early_ends_the_search_at_the_rung_that_it_paid_for() -> None:
    store = Planted()
    now = searched(request("budget=4e10", "structure.count=14"), store)
    assert now.is_over
    assert store.spent <= 4e10
    assert now.winner is not None


def test_arms_that_diverge_leave(whole: tuple[Course, Planted]) -> None:
    store = Planted()
    loss = store.loss
    store.loss = lambda job, step: float("nan") if job.science.variant.startswith("btt") else loss(job, step)
    now = searched(request(), store)
    assert now.rungs[0].promotion.leave[1] == "not measured"
    assert now.winner != 1


def test_nothing_finite_is_said_in_one_line() -> None:
    store = Planted()
    store.loss = lambda job, step: float("nan")
    with pytest.raises(UserError, match="rung 0: none of its 12 arms has a finite loss"):
        searched(request(), store)


def test_the_bill_names_rungs_arms_and_everything_at_the_top() -> None:
    now = course(request("moe=none,btt,ffn"), Planted().read)
    lines = list(bill(now))
    for k in range(len(now.steps.flops)):
        assert any(line.startswith(f"rung {k}:") for line in lines)
    assert any(line.startswith("  dense:") for line in lines)
    assert any(line.startswith("  moe-btt8:") for line in lines)
    assert f"everything at the top: {now.everything:.3g}" in lines[-1]
    assert now.total <= now.budget


def test_arms_of_decided_rungs_need_not_be_said_again(whole: tuple[Course, Planted]) -> None:
    now, _ = whole
    short = list(bill(now, decided=False))
    assert [line for line in bill(now) if not line.startswith("  ")] == short


def test_runs_that_end_within_their_warm_up_are_said() -> None:
    short = course(request("target=1e9", "structure.count=4"), Planted().read)
    assert any("caution: rung 0: 6 of 6 runs end within their warm-up of 100 steps" in line for line in bill(short))
    assert not any("caution" in line for line in bill(course(request(), Planted().read)))


def test_the_end_is_said_with_p_multiplier_and_share(whole: tuple[Course, Planted]) -> None:
    now, _ = whole
    lines = list(said(record(now)))
    winner = record(now)["winner"]
    assert any("P(best)" in line and winner["name"] in line for line in lines)
    if winner["name"] != "dense":
        assert lines[-2].startswith("multiplier against dense:")
    assert lines[-1].startswith("forecast at 3e+14 FLOPs, to be scored by later runs: dense ")
    forecast = record(now)["forecast"]
    assert forecast["flops"] == 10 * now.search.target
    assert set(forecast["arms"]) <= {one["name"] for one in record(now)["rungs"][-1]["arms"]}


def test_another_schedule_is_refused() -> None:
    with pytest.raises(UserError, match="grid=search trains under schedule=constant, not cosine"):
        course(request("schedule=cosine"), Planted().read)


def test_widths_by_hand_are_those_of_every_rung() -> None:
    store = Planted()
    now = searched(request("grid.widths=[16,32]", "structure.count=4"), store)
    assert {job.science.model.d_model for rung in now.rungs for job in rung.jobs} == {16, 32}
    assert replace(now, measured=None).is_over
