"""The bill: every cell priced, shared trunks once, what reads its data too often refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bench.fake.cases import case
from structlin.anatomy.compute import step_flops
from structlin.anatomy.kinds import rounding_of
from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.config.identity import run_id
from structlin.config.placement import Placement
from structlin.config.request import Site
from structlin.errors import UserError
from structlin.planning import bill, guess
from structlin.planning.bill import check_epochs, count, duration, make_bill, show, size, to_json
from structlin.planning.grid import Plan, plan_sweep
from structlin.planning.guess import guessed_seconds
from structlin.runs.speeds import Throughputs
from tests.planning.test_grid import request

BUDGETS = (1e12, 1e13)
TRAIN_TOKENS = 11_618_095
"""Training tokens of the bundled corpus under char96."""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return replace(request().site, runs=tmp_path / "runs", data_root=tmp_path / "data")


def test_the_total_counts_what_cells_share_once(site: Site) -> None:
    plan = plan_sweep(request("frontier", BUDGETS, widths=(64, 96)))
    bill = make_bill(plan, site, 1)
    longest = {cell.science: cell.training_flops for cell in sorted(plan.cells, key=lambda cell: cell.step)}
    assert bill.total_flops == pytest.approx(sum(longest.values()))
    assert bill.total_flops < sum(cell.training_flops for cell in plan.cells)
    assert len(bill.lines) == 4


def test_the_total_of_decayed_runs_is_the_sum(site: Site) -> None:
    plan = plan_sweep(request("isoflop", BUDGETS))
    assert make_bill(plan, site, 1).total_flops == pytest.approx(sum(cell.training_flops for cell in plan.cells))


def test_a_cooldown_pays_its_trunk_once_and_its_decays(site: Site) -> None:
    plan = plan_sweep(request("cooldown", BUDGETS, widths=(64,)))
    small, large = sorted(plan.cells, key=lambda cell: cell.step)
    decay = small.step - small.science.schedule.cooldown_start
    steps = large.step + decay  # the longest trunk and its own decay, and the decay that leaves it earlier
    assert make_bill(plan, site, 1).total_flops == pytest.approx(steps * step_flops(large.science))


def test_times_are_measured_or_said_not_to_be(site: Site) -> None:
    plan = plan_sweep(request(widths=(32, 64)))
    assert make_bill(plan, site, 2).total_seconds is None
    throughputs = Throughputs(site.runs)
    for cell in plan.cells:
        throughputs.keep(cell.science, site.placement, 1000.0)
    bill = make_bill(plan, site, 2)
    tokens = [cell.tokens for cell in plan.cells]
    assert [line.seconds for line in bill.lines] == [pytest.approx(number / 1000) for number in tokens]
    assert bill.total_seconds == pytest.approx(sum(tokens) / 1000 / 2)
    other = replace(site, placement=replace(site.placement, device="cpu", threads=site.placement.threads + 1))
    assert make_bill(plan, other, 2).total_seconds is None


def test_epochs_are_counted_and_too_many_refused(site: Site) -> None:
    plan = plan_sweep(request(widths=(32,), tokens=(4 * TRAIN_TOKENS - 2000,)))
    assert make_bill(plan, site, 1).lines[0].epochs == pytest.approx(4.0, abs=0.01)
    more = plan_sweep(request(widths=(32,), tokens=(5 * TRAIN_TOKENS,)))
    with pytest.raises(UserError, match=r"d_model = 32 would read data=sotu 5.0 times .*raise data.max_epochs = 4"):
        make_bill(more, site, 1)
    with pytest.raises(UserError, match=r"would read data=sotu 5.0 times"):
        check_epochs(more, site)
    check_epochs(plan, site)
    assert make_bill(more, replace(site, max_epochs=6), 1).lines[0].epochs == pytest.approx(5, rel=0.01)


def test_json_is_one_object_with_every_cell(site: Site) -> None:
    plan = plan_sweep(request(budgets=BUDGETS, names=("btt", "dense")))
    values = json.loads(to_json(make_bill(plan, site, 1)))
    assert values["total"]["training_flops"] > 0
    assert len(values["cells"]) == len(plan.cells)
    for cell, shown in zip(plan.cells, values["cells"], strict=True):
        costs = ledger(cell.science)
        assert shown["run_id"] == run_id(cell.science)
        assert (shown["structure"], shown["theta"]) == (cell.science.structure.name, cell.science.structure.theta)
        assert (shown["d_model"], shown["num_layers"]) == (cell.science.model.d_model, 3)
        assert (shown["step"], shown["tokens"], shown["budget_flops"]) == (cell.step, cell.tokens, cell.budget_flops)
        assert shown["params"].pop("total") == sum(shown["params"].values()) == costs.params_total
        assert set(shown["params"]) == {"embedding", "attention", "linear", "norm", "head", "router"}
        assert shown["flops"]["training"] == 6 * shown["flops"]["paper"] == pytest.approx(cell.training_flops)


def test_a_long_warmup_is_flagged(site: Site) -> None:
    plan = plan_sweep(request(widths=(32,), tokens=(1024 * 499, 1024 * 501)))
    assert [line.flags for line in make_bill(plan, site, 1).lines] == [["warm-up 20% of steps"], []]


def test_the_table_shows_every_cell_and_the_total(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_sweep(request(widths=(32, 64)))
    show(make_bill(plan, site, 1), Console(width=160))
    text = capsys.readouterr().out
    assert "2 cells on 2 runs: 2e+12 training FLOPs, ~" in text
    assert "a guess" in text
    assert all(f"{cell.step:,}" in text for cell in plan.cells)


@pytest.mark.parametrize(("most", "rows"), [(1, 1), (2, 2), (3, 2)])
def test_a_table_of_thousands_of_cells_ends_early_and_says_so(
    most: int, rows: int, site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bill, "MOST_CELLS", most)
    plan = plan_sweep(request(widths=(32, 64)))
    show(make_bill(plan, site, 1), Console(width=160))
    printed = capsys.readouterr().out
    assert [f"{cell.step:,}" in printed for cell in plan.cells] == [True, rows == 2]
    assert ("and 1 cell more (all: format=json)" in printed) == (most == 1)
    assert "2 cells on 2 runs" in printed


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_number_of_the_table_is_cut(width: int, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_sweep(request("isoflop", (1e12, 1e13), names=("btt", "low_rank")))
    bill = make_bill(plan, site, 1)
    show(bill, Console(width=width))
    text = capsys.readouterr().out
    assert "…" not in text
    assert "..." not in text
    for line in bill.lines:
        for number in (f"{line.cell.training_flops:.2e}", count(line.costs.params_total), count(line.cell.tokens)):
            assert number in text


def test_one_is_one(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    show(make_bill(plan_sweep(request(widths=(32,))), site, 1), Console(width=160))
    assert "1 cell on 1 run: " in capsys.readouterr().out


MEASURED = json.loads((Path(__file__).parents[2] / "bench/results/gpu-NVIDIA-H200-2026-11-26.json").read_text())
STEPS = {key: row["milliseconds"] / 1e3 for key, row in MEASURED["found"]["steps"].items() if "compile" in key}


@pytest.mark.parametrize("key", STEPS)
def test_a_guess_for_a_gpu_is_within_a_factor_of_three_of_what_was_measured(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guess, "gpu_names", lambda: ["NVIDIA H200"])
    science = case(key.split()[0]).science
    assert 1 <= guessed_seconds(science, 100, Placement()) / (100 * STEPS[key]) <= 3


def test_a_guess_is_marked_and_gone_once_all_is_measured(site: Site) -> None:
    plan = plan_sweep(request(widths=(32, 64)))
    bill = make_bill(plan, site, 2)
    guesses = [line.guess for line in bill.lines]
    assert bill.guessed_seconds == pytest.approx(sum(guesses) / 2)
    assert json.loads(to_json(bill))["total"]["guessed_seconds"] == bill.guessed_seconds
    throughputs = Throughputs(site.runs)
    throughputs.keep(plan.cells[0].science, site.placement, 1000.0)
    half = make_bill(plan, site, 2)
    assert half.lines[0].guess is None
    assert half.guessed_seconds == pytest.approx((half.lines[0].seconds + guesses[1]) / 2)
    throughputs.keep(plan.cells[1].science, site.placement, 1000.0)
    assert make_bill(plan, site, 2).guessed_seconds is None
    # Of a cluster's nodes nothing is known here.
    assert make_bill(plan, replace(site, machine="launch=slurm"), 2).guessed_seconds is None


def test_a_guess_grows_with_work_and_shrinks_with_threads(site: Site) -> None:
    science = plan_sweep(request(widths=(64,))).cells[0].science
    one = guessed_seconds(science, 100, replace(site.placement, device="cpu", threads=1))
    assert guessed_seconds(science, 200, replace(site.placement, device="cpu", threads=1)) == pytest.approx(2 * one)
    assert guessed_seconds(science.at_width(512), 100, replace(site.placement, device="cpu", threads=1)) > 5 * one
    assert guessed_seconds(science.at_width(512), 100, replace(site.placement, device="cpu", threads=4)) < (
        guessed_seconds(science.at_width(512), 100, replace(site.placement, device="cpu", threads=1))
    )


# Tokens a second measured by probes: 3 layers, 64 of context, 1,024 tokens a step, a core of an Intel Xeon (AVX-512).
MEASURED = {
    ("dense", 16): 35_072,
    ("dense", 64): 12_023,
    ("btt", 32): 17_063,
    ("btt", 96): 7_420,
    ("low_rank", 64): 9_897,
}


@pytest.mark.parametrize(("shape", "speed"), MEASURED.items(), ids=str)
def test_a_guess_is_near_what_was_measured(shape: tuple[str, int], speed: float, site: Site) -> None:
    science = plan_sweep(request(widths=(shape[1],), names=(shape[0],), tokens=(1024 * 1000,))).cells[0].science
    guess = guessed_seconds(science, 1000, replace(site.placement, device="cpu", threads=1))
    assert 1 / 2.5 < guess / (1000 * 1024 / speed) < 2.5


def test_the_way_out_of_a_long_warmup_is_no_scale_that_is_set(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    small = sweep_request(["structure=btt", "budget=3e10", "scale=small", "grid.widths=[32]", "tracking=journal"])
    show(make_bill(plan_sweep(small), site, 1), Console(width=160))
    said = capsys.readouterr().out
    assert "A larger budget gives longer runs" in said
    assert "scale=small" not in said


def test_names_that_were_asked_for_are_explained(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["budget=1e12", "scale=small", "grid.points=2", "tracking=journal", "structure=monarch"]
    show(make_bill(plan_sweep(sweep_request(words)), site, 1), Console(width=160))
    assert "monarch is the theta of btt" in capsys.readouterr().out
    show(make_bill(plan_sweep(sweep_request([*words, "moe=btt"])), site, 1), Console(width=160))
    said = capsys.readouterr().out
    assert "moe-btt8 takes the place of every linear that would be monarch" in said
    assert "theta of" not in said


@pytest.mark.parametrize(
    ("number", "text"), [(34.4e9, "34.4 GB"), (1.5e6, "1.5 MB"), (12, "12 bytes"), (2e12, "2 TB"), (3e3, "3 kB")]
)
def test_bytes_have_one_unit(number: float, text: str) -> None:
    assert size(number) == text


def test_recomputation_is_billed_apart(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """A forward pass of the blocks is a third of 6 FLOPs per MAC, but for the head's; speeds without it are others."""
    plan = plan_sweep(request(widths=(64,)))
    Throughputs(site.runs).keep(plan.cells[0].science, site.placement, 1000.0)
    again = replace(site, placement=replace(site.placement, recompute=True))
    plain, bill = make_bill(plan, site, 1), make_bill(plan, again, 1)
    assert (plain.recomputed_flops, bill.total_flops) == (0, plain.total_flops)
    costs = ledger(plan.cells[0].science)
    blocks = 1 - costs.macs["head"] / costs.macs_per_token
    assert bill.recomputed_flops == pytest.approx(bill.total_flops / 3 * blocks)
    assert plain.total_seconds is not None
    assert bill.total_seconds is None
    assert json.loads(to_json(bill))["total"]["recomputed_flops"] == bill.recomputed_flops
    show(plain, Console(width=160))
    assert "recompute" not in capsys.readouterr().out
    show(bill, Console(width=160))
    assert f"recompute=true: {bill.recomputed_flops:.3g} FLOPs more" in capsys.readouterr().out


def test_an_empty_plan_costs_nothing(site: Site) -> None:
    bill = make_bill(Plan((), ()), site, 1)
    assert (bill.total_flops, bill.total_seconds) == (0, 0)


@pytest.mark.parametrize(("epochs", "text"), [(None, "?"), (0, "fresh"), (0.5, "0.50"), (12.345, "12.35")])
def test_passes_over_the_data(epochs: float | None, text: str) -> None:
    assert bill._passes(epochs) == text


def test_what_rounding_changed_most_is_said_above_a_limit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_sweep(request("frontier", BUDGETS, widths=(80,)))
    lines = make_bill(plan, site, 1).lines
    changes = [one for line in lines for shape in rounding_of(line.cell.science).values() for one in shape.values()]
    worst = max(max(asked / size, size / asked) for asked, size in changes)
    assert worst > 1
    for limit, said in ((worst * 0.999, 1), (worst, 0)):
        monkeypatch.setattr(bill, "FAR_ROUNDED", limit)
        assert len(list(bill._most_rounded(lines))) == said


@pytest.mark.parametrize(
    ("number", "text"),
    [(950, "950"), (1000, "1k"), (1234, "1.23k"), (1e6, "1M"), (1234567, "1.23M"), (2e9, "2B"), (3.5e12, "3.5T")],
)
def test_counts(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not measured"), (5, "5 s"), (119, "119 s"), (120, "2 min"), (3725, "62 min"), (7400, "2 h 3 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
