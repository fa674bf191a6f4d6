"""Planning: cells hit their budgets, trunks are shared and extended, and a larger budget moves nothing made before."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from structlin.anatomy.compute import step_flops, steps_for_flops
from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request, train_request
from structlin.config.grid import GridConfig
from structlin.config.identity import run_id
from structlin.config.request import SweepRequest, Template
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.planning.grid import Plan, plan_run, plan_sweep
from structlin.planning.horizon import evaluation_steps, steps_for_tokens
from tests.tiny import tiny

DESIGNS = ("frontier", "isoflop", "cooldown")
PER_DECADE = 20
"""Evaluations of a trunk where nothing else is asked for."""
SCHEDULES = {"frontier": "constant", "isoflop": "cosine", "cooldown": "cooldown"}


@cache
def base_request() -> SweepRequest:
    return sweep_request(["scale=small", "budget=1e12"])


def request(
    design: str = "frontier", budgets: Sequence[float] = (1e12,), names: Sequence[str] = ("btt",), **grid: object
) -> SweepRequest:
    """The request of a small sweep, made without the command line."""
    base = base_request()
    science = base.templates[0].science
    templates = tuple(
        Template(
            replace(science, structure=replace(science.structure, theta=str(lookup_theta(name)))), SCHEDULES[design]
        )
        for name in names
    )
    planned = GridConfig(design=design, **grid)  # type: ignore[arg-type]
    return replace(base, templates=templates, budgets=() if planned.tokens else tuple(budgets), grid=planned)


def lookup_theta(name: str) -> str:
    return str(tiny(name).structure.theta)


def cells_of(plan: Plan) -> set[tuple[str, int, float | None]]:
    return {(run_id(cell.science), cell.step, cell.budget_flops) for cell in plan.cells}


# --- cells --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", ["dense", "btt", "low_rank", "tensor_train", "btt13"])
def test_a_cell_hits_its_budget_within_half_a_step(name: str, design: str) -> None:
    plan = plan_sweep(request(design, (1e12, 1e13), (name,)))
    assert {cell.budget_flops for cell in plan.cells} == {1e12, 1e13}
    for cell in plan.cells:
        assert cell.budget_flops is not None
        assert abs(cell.training_flops - cell.budget_flops) <= 0.5 * step_flops(cell.science) * (1 + 1e-12)
        assert cell.tokens == cell.step * 1024
        assert cell.training_flops == 6 * ledger(cell.science).macs_per_token * cell.tokens


@pytest.mark.parametrize("points", [1, 2, 6, 9])
@pytest.mark.parametrize("name", ["dense", "btt"])
def test_widths_are_multiples_of_a_head_around_the_asked_range(name: str, points: int) -> None:
    plan = plan_sweep(request(budgets=(1e14,), names=(name,), points=points))
    widths = [cell.science.model.d_model for cell in plan.cells]
    assert min(points, 4) <= len(widths) == len(set(widths)) <= points
    assert all(width % 16 == 0 for width in widths)
    ratios = [cell.tokens / ledger(cell.science).macs_per_token for cell in plan.cells]
    assert all(0.99 * 5 <= ratio <= 1.01 * 200 for ratio in ratios)
    if points >= 6:
        assert max(ratios) > 8 * min(ratios)


@pytest.mark.parametrize("budget", [1e12, 3e13, 1e15])
@pytest.mark.parametrize("ratios", [(5.0, 200.0), (20.0, 60.0), (30.0, 31.0)])
@pytest.mark.parametrize("points", [1, 2, 3, 6, 9])
def test_widths_are_those_of_the_coarsest_lattice_that_holds_enough(
    budget: float, ratios: tuple[float, float], points: int
) -> None:
    """Four, or as many as are asked for; then evenly by rank, the ends among them."""
    asked = request(budgets=(budget,), tokens_per_param=ratios, points=points)
    template = asked.templates[0]
    low, high = (math.sqrt(budget / (6 * ratio)) for ratio in reversed(ratios))
    sizes = {width: ledger(template.trunk(width)).macs_per_token for width in range(16, 4097, 16)}
    powers = [2**k for k in range(9)]
    lattices = [
        {16 * n for power in powers for n in (power, 1.5 * power)},
        {16 * n for power in powers for n in (power, 1.25 * power, 1.5 * power, 1.75 * power)},
        set(sizes),
    ]
    found: list[int] = []
    for members in lattices:
        inside = [width for width in sizes if width in members and low <= sizes[width] <= high]
        warm = template.science.schedule.warmup_steps
        lasting = [w for w in inside if steps_for_flops(lambda _, w=w: template.trunk(w), budget) >= 2 * warm]
        found = lasting or found
        if len(found) >= min(points, 4):
            break
    if not found:
        found = [min(sizes, key=lambda width: abs(math.log(sizes[width] / math.sqrt(low * high))))]
    if len(found) > points:
        places = [round(k * (len(found) - 1) / max(1, points - 1)) for k in range(points)]
        found = [found[place] for place in places]
    assert [cell.science.model.d_model for cell in plan_sweep(asked).cells] == found


def test_budgets_share_widths() -> None:
    plan = plan_sweep(request(budgets=(1e13, 1e14)))
    runs = {run_id(cell.science) for cell in plan.cells}
    assert len(runs) == len(plan.jobs) < len(plan.cells)


def test_given_widths_are_never_changed() -> None:
    plan = plan_sweep(request(widths=(48, 112, 48)))
    assert [cell.science.model.d_model for cell in plan.cells] == [48, 112]
    with pytest.raises(UserError, match=r"100 is no multiple.*nearest widths: 96, 112"):
        plan_sweep(request(widths=(100,)))


def test_tokens_by_hand_cover_whole_steps() -> None:
    plan = plan_sweep(request(widths=(32, 64), tokens=(5000, 10240)))
    assert [(cell.science.model.d_model, cell.step, cell.budget_flops) for cell in plan.cells] == [
        (32, 5, None),
        (32, 10, None),
        (64, 5, None),
        (64, 10, None),
    ]
    with pytest.raises(UserError, match=r"grid.widths=\[64,128\]"):
        plan_sweep(request(tokens=(5000,)))


def test_a_budget_below_a_step_is_refused() -> None:
    with pytest.raises(UserError, match="buys no whole step"):
        plan_sweep(request(budgets=(1e8,), widths=(128,)))


def test_a_budget_of_one_step_is_one_step() -> None:
    trunk = request().templates[0].trunk(128)
    (cell,) = plan_sweep(request(budgets=(step_flops(trunk),), widths=(128,))).cells
    assert (cell.step, cell.training_flops) == (1, cell.budget_flops)


def test_a_design_refuses_a_schedule_of_another() -> None:
    frontier = request("frontier")
    decayed = tuple(replace(template, schedule="cosine") for template in frontier.templates)
    with pytest.raises(UserError, match="grid=frontier trains under schedule=constant, not cosine"):
        plan_sweep(replace(frontier, templates=decayed))


# --- extension ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("added", [1e11, 3e12, 1e14])
def test_another_budget_keeps_every_cell_of_the_others(design: str, added: float) -> None:
    before, both = plan_sweep(request(design)), plan_sweep(request(design, (1e12, added)))
    alone = plan_sweep(request(design, (added,)))
    assert cells_of(both) == cells_of(before) | cells_of(alone)
    assert cells_of(before) <= cells_of(both)


def test_a_larger_budget_extends_the_trunks() -> None:
    before = {job.run_id: job for job in plan_sweep(request(widths=(64,))).jobs}
    both = {job.run_id: job for job in plan_sweep(request(budgets=(1e12, 1e13), widths=(64,))).jobs}
    assert before.keys() == both.keys()
    for identity, job in before.items():
        assert both[identity].target_step > 9 * job.target_step
        assert set(job.evaluations) <= set(both[identity].evaluations)


# --- designs ------------------------------------------------------------------------------------------------------


def test_a_frontier_is_one_trunk_per_width_evaluated_at_each_budget() -> None:
    plan = plan_sweep(request(budgets=(1e12, 1e13), names=("btt", "dense")))
    wanted: dict[str, set[int]] = {}
    for cell in plan.cells:
        assert cell.science.schedule.kind == "constant"
        wanted.setdefault(run_id(cell.science), set()).add(cell.step)
    assert sorted(wanted) == sorted(job.run_id for job in plan.jobs)
    for job in plan.jobs:
        assert wanted[job.run_id] <= set(job.evaluations)
        longest = max(wanted[job.run_id])
        assert job.target_step == longest
        assert set(job.evaluations) == wanted[job.run_id] | set(evaluation_steps(job.science, longest, PER_DECADE))
        assert job.checkpoints == ()


def test_isoflop_is_one_decayed_run_per_cell_evaluated_at_its_end() -> None:
    plan = plan_sweep(request("isoflop", (1e12, 1e13)))
    assert len(plan.jobs) == len(plan.cells)
    for job in plan.jobs:
        assert job.evaluations == (job.science.schedule.horizon_steps,)
        assert job.science.schedule.kind == "cosine"


def test_cooldown_trains_trunks_first_and_keeps_where_branches_leave() -> None:
    plan = plan_sweep(request("cooldown", (1e12, 1e13), widths=(32, 64)))
    kinds = [job.science.schedule.kind for job in plan.jobs]
    assert kinds == ["constant"] * 2 + ["cooldown"] * 4
    trunks = {job.run_id: job for job in plan.jobs if job.trunk is None}
    for branch in plan.jobs[2:]:
        assert branch.trunk is not None
        trunk = trunks[run_id(branch.trunk)]
        start = branch.science.schedule.cooldown_start
        assert start in trunk.checkpoints
        assert start in trunk.evaluations
        assert branch.evaluations == (branch.science.schedule.horizon_steps,)
    for trunk in trunks.values():
        last = max(trunk.checkpoints)
        assert len(trunk.checkpoints) == 2
        assert trunk.target_step == last
        assert set(trunk.evaluations) == {*trunk.checkpoints, *evaluation_steps(trunk.science, last, PER_DECADE)}


def test_the_trunk_of_a_cooldown_is_one_job_whatever_its_decays() -> None:
    base = request("cooldown", widths=(64,))
    (template,) = base.templates
    shorter = replace(
        template, science=replace(template.science, schedule=replace(template.science.schedule, cooldown_fraction=0.1))
    )
    jobs = plan_sweep(replace(base, templates=(template, shorter))).jobs
    assert [job.science.schedule.kind for job in jobs] == ["constant", "cooldown", "cooldown"]
    assert len({job.run_id for job in jobs}) == 3
    assert len(jobs[0].checkpoints) == 2


def test_one_run_of_train() -> None:
    template = request().templates[0]
    plan = plan_run(template, 64, 1_000_000, 7)
    (cell,), (job,) = plan.cells, plan.jobs
    assert (cell.step, cell.budget_flops, job.target_step) == (977, None, 977)
    assert job.evaluations == evaluation_steps(cell.science, 977, 7)


# --- evaluation steps ---------------------------------------------------------------------------------------------


def warmed(steps: int) -> Science:
    base = tiny()
    return replace(base, schedule=replace(base.schedule, warmup_steps=steps))


@pytest.mark.parametrize("per_decade", [1, 7, 20])
@pytest.mark.parametrize("warmup", [0, 4, 100])
def test_a_longer_run_visits_every_step_of_a_shorter_one(warmup: int, per_decade: int) -> None:
    science = warmed(warmup)
    for last in (50, 333, 1000, 4999):
        short, long = evaluation_steps(science, last, per_decade), evaluation_steps(science, 20_000, per_decade)
        assert set(short[:-1]) == {step for step in long if step < last}
        assert short[-1] == last
        assert list(short) == sorted(set(short))
        assert all(step > warmup for step in short[:-1])


@pytest.mark.parametrize("per_decade", [5, 20])
def test_evaluations_are_so_many_a_decade(per_decade: int) -> None:
    steps = evaluation_steps(warmed(100), 100_000, per_decade)
    for decade in (2, 3, 4):
        assert abs(sum(10**decade < step <= 10 ** (decade + 1) for step in steps) - per_decade) <= 1
    gaps = [math.log10(b / a) for a, b in itertools.pairwise(steps)]
    assert max(gaps) < 1.1 / per_decade


def test_the_first_step_is_no_evaluation() -> None:
    assert evaluation_steps(warmed(0), 4, 20) == (2, 3, 4)
    assert evaluation_steps(warmed(0), 1, 20) == (1,)


def test_a_run_within_its_warmup_is_evaluated_at_its_end() -> None:
    assert evaluation_steps(warmed(100), 80, 20) == (80,)


def test_steps_of_budgets_and_tokens() -> None:
    science = tiny()
    step = step_flops(science)
    assert step == 6 * ledger(science).macs_per_token * 64
    assert [steps_for_flops(lambda _: science, share * step) for share in (0.4, 0.6, 10.4, 10.6)] == [0, 1, 10, 11]
    assert [steps_for_tokens(science, tokens) for tokens in (1, 64, 65, 640)] == [1, 1, 2, 10]


# --- widths that a structure cannot have --------------------------------------------------------------------------


def widths_of(*arguments: str, budget: str = "1e13") -> list[int]:
    plan = plan_sweep(sweep_request(["scale=small", f"budget={budget}", *arguments]))
    return sorted({cell.science.model.d_model for cell in plan.cells})


@pytest.mark.parametrize("budget", ["1e10", "1e13", "1e15"])
def test_widths_that_a_structure_cannot_have_are_passed_over(budget: str) -> None:
    """A Monarch of 16 blocks needs 256 features; fewer blocks take the narrower widths too."""
    widths = widths_of("structure=monarch", "structure.blocks=16", budget=budget)
    assert widths
    assert min(widths) >= 256
    assert min(widths_of("structure=monarch", "structure.blocks=2", budget="1e13")) < 256
    assert min(widths_of("structure=low_rank", "structure.rank=64", budget=budget)) >= 64


@pytest.mark.parametrize(
    "arguments",
    [
        ["structure=low_rank", "structure.rank=d/4"],
        ["structure=btt", "structure.rank=4", "structure.factors=3"],
        ["structure=blast", "structure.blocks=4", "structure.rank=d/4"],
        ["structure=kronecker_sum", "structure.terms=4"],
        ["structure=mpo", "structure.cores=3", "structure.bond=8"],
    ],
)
def test_a_family_is_planned_like_any_structure(arguments: list[str]) -> None:
    plan = plan_sweep(sweep_request(["scale=small", "budget=1e13", *arguments]))
    assert len(plan.cells) >= 3
    for cell in plan.cells:
        assert abs(cell.training_flops - 1e13) <= 0.5 * step_flops(cell.science) * (1 + 1e-12)


UNSERVED = {
    "structure=monarch structure.blocks=16 grid.widths=[64,256]": (
        "structure monarch-b16 cannot serve a layer of 64 x 64",
        "the nearest that works there: structure.blocks=8",
    ),
    "structure=low_rank structure.rank=64 grid.widths=[32]": (
        "rho = 64*0 would have size 64, above the 32 features",
        "structure.rank=32",
    ),
    "structure=block_shuffle structure.blocks=16 grid.widths=[32]": ("takes widths of at least 256", "blocks=5"),
    "structure=kronecker_sum structure.terms=64 grid.widths=[32]": ("kronecker_sum-n64", "structure.terms=11"),
    "structure=monarch structure.blocks=1000": (
        "widths of at least 1000000",
        "or give a larger budget, or wider layers",
    ),
    "structure=low_rank structure.rank=100000": ("low_rank-r100000", "or give a larger budget, or wider layers"),
}


@pytest.mark.parametrize(("line", "named"), UNSERVED.items(), ids=UNSERVED)
def test_a_width_that_cannot_have_the_structure_is_one_line(line: str, named: tuple[str, str]) -> None:
    """Given widths are never changed; and where no width within the budget's reach serves, that is said."""
    with pytest.raises(UserError) as refused:
        widths_of(*line.split(), budget="1e11")
    assert all(words in str(refused.value) for words in named), str(refused.value)
    assert "\n" not in str(refused.value)


def test_one_run_at_a_width_that_cannot_have_the_structure_is_refused() -> None:
    words = ["scale=small", "structure=monarch", "structure.blocks=16", "model.d_model=64", "tokens=1e5"]
    asked = train_request(words)
    with pytest.raises(UserError, match=r"monarch-b16 cannot serve a layer of 64 x 64.*structure\.blocks=8$"):
        ledger(plan_run(asked.template, asked.d_model, asked.tokens, 10).cells[0].science)
