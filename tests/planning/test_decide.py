"""What a plan will tell: intervals by the information of its cells, what is missing for a verdict, and its command."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.config.request import SweepRequest
from structlin.launch.carry_out import run_sweep
from structlin.planning import decide, missing
from structlin.planning.decide import Pilot, answers, pilot_of
from structlin.planning.grid import plan_sweep

WORDS = ["structure=dense,btt", "scale=small", "tracking=journal"]
LAW = {"E": 1.5, "A": 400.0, "B": 410.0, "alpha": 0.34, "beta": 0.28, "run_noise": 0.004, "row_noise": 0.002}


def request(*words: str) -> SweepRequest:
    return sweep_request([*WORDS, *words])


def only(*words: str) -> decide.Answer:
    asked = request(*words)
    (answer,) = answers(plan_sweep(asked), asked)
    return answer


def said(*words: str) -> list[str]:
    asked = request(*words)
    return list(missing.lines(plan_sweep(asked), asked))


# --- the law ------------------------------------------------------------------------------------------------------


def test_the_optimum_is_the_lowest_loss_of_its_compute() -> None:
    pilot = Pilot(LAW, "")
    size, tokens = pilot.optimum(1e18)
    assert 6 * size * tokens == pytest.approx(1e18)
    sizes = size * np.geomspace(0.1, 10, 2001)
    losses = [pilot.loss(one, 1e18 / 6 / one) for one in sizes]
    assert sizes[int(np.argmin(losses))] == pytest.approx(size, rel=0.01)
    assert pilot.compute_for(pilot.loss(size, tokens)) == pytest.approx(1e18, rel=1e-6)
    assert math.isinf(pilot.compute_for(1.4))


def test_derivatives_are_those_of_the_law() -> None:
    pilot, centre, step = Pilot(LAW, ""), (math.log(1e6), math.log(1e8)), 1e-6

    def log_loss(e: float, a: float, b: float, alpha: float, beta: float) -> float:
        x, y = math.log(3e6) - centre[0], math.log(5e8) - centre[1]
        return math.log(e + math.exp(a - alpha * x) + math.exp(b - beta * y))

    at = [
        LAW["E"], math.log(LAW["A"]) - LAW["alpha"] * centre[0], math.log(LAW["B"]) - LAW["beta"] * centre[1],
        LAW["alpha"], LAW["beta"],
    ]  # fmt: skip
    found = decide._jacobian(pilot, centre, 3e6, np.array([5e8]))[0]
    for place, value in enumerate(found):
        up, down = ([v + (n == place) * s for n, v in enumerate(at)] for s in (step, -step))
        assert value == pytest.approx((log_loss(*up) - log_loss(*down)) / (2 * step), rel=1e-4)


def test_the_information_of_a_run_is_that_of_its_covariance() -> None:
    asked = request("budget=3e11", "grid.points=1")
    cell = plan_sweep(asked).cells[0]
    size = ledger(cell.science).macs_per_token
    pilot, centre = Pilot(LAW, ""), (math.log(size), math.log(cell.tokens))
    warm = cell.science.schedule.warmup_steps * cell.science.optim.batch_tokens
    tokens = decide._evaluated(warm, cell.tokens)
    jacobian = decide._jacobian(pilot, centre, size, tokens)
    covariance = LAW["row_noise"] ** 2 * np.eye(len(tokens)) + LAW["run_noise"] ** 2
    want = jacobian.T @ np.linalg.inv(covariance) @ jacobian
    np.testing.assert_allclose(decide._of_run(pilot, cell, size, centre), want, rtol=1e-8)


# --- what is expected ---------------------------------------------------------------------------------------------


def test_more_of_anything_tells_more() -> None:
    base = only("budget=1e11,5e11", "grid.points=3")
    for more in (["grid.points=6"], ["seed=0,1,2"]):
        found = only("budget=1e11,5e11", "grid.points=3", *more)
        assert found.factor < base.factor, more
        assert found.exponent_half < base.exponent_half, more
    # A larger budget asks about a larger compute, where curves are flatter: of the exponent it always tells more.
    assert only("budget=1e11,5e11,2e12", "grid.points=3").exponent_half < base.exponent_half


def test_the_expected_interval_is_that_of_repeated_sweeps() -> None:
    """The deviation of log L at the optimum: predicted, against fits to planted noise (the prior made narrow)."""
    asked = request("budget=1e11,5e11,2e12", "grid.points=5")
    runs = decide._by_variant(plan_sweep(asked).cells)["dense"]
    pilot, top, generator = Pilot(LAW, ""), 2e12, np.random.default_rng(0)
    sizes = [float(ledger(cell.science).macs_per_token) for cell in runs]
    centre = (float(np.mean(np.log(sizes))), float(np.mean([math.log(cell.tokens) for cell in runs])))
    information, rows, weights = decide._prior(pilot), [], []
    for cell, size in zip(runs, sizes, strict=True):
        information = information + decide._of_run(pilot, cell, size, centre)
        warm = cell.science.schedule.warmup_steps * cell.science.optim.batch_tokens
        tokens = decide._evaluated(warm, cell.tokens)
        rows.append(decide._jacobian(pilot, centre, size, tokens))
        weights.append(np.linalg.inv(LAW["row_noise"] ** 2 * np.eye(len(tokens)) + LAW["run_noise"] ** 2))
    best, tokens_best = pilot.optimum(top)
    gradient = decide._jacobian(pilot, centre, best, np.array([tokens_best]))[0]
    covariance = np.linalg.inv(information)
    estimates = []
    for _ in range(400):
        score = np.linalg.cholesky(decide._prior(pilot)) @ generator.normal(size=5)
        for jacobian, weight in zip(rows, weights, strict=True):
            noise = generator.normal(0, LAW["row_noise"], len(jacobian)) + generator.normal(0, LAW["run_noise"])
            score = score + jacobian.T @ weight @ noise
        estimates.append(gradient @ covariance @ score)
    assert np.std(estimates) == pytest.approx(math.sqrt(gradient @ covariance @ gradient), rel=0.1)


def test_kept_pilots_are_named_and_of_the_task() -> None:
    small = plan_sweep(request("budget=1e11")).cells[-1].science
    assert pilot_of(small, 1e11, {}).source == "laws of study=fig4, kept with structlin"
    assert "arXiv 2404.10102" in pilot_of(small, 1e18, {}).source
    other = sweep_request(["task=regression", "scale=regression_small", "structure=btt", "budget=1e11"])
    assert "study=regression" in pilot_of(plan_sweep(other).cells[0].science, 1e11, {}).source
    for entry in decide.kept().values():
        assert all(set(law) == set(LAW) for law in entry["laws"].values())


def test_the_users_own_laws_come_first(tmp_path: Path) -> None:
    path = tmp_path / "laws.json"
    names = ("dense", "btt+fixed-norm")
    about = {
        "information": (1e6 * np.eye(5)).tolist(), "centre": [10.0, 13.0], "run_noise": 0.004, "row_noise": 0.002,
        "flops_per_nd": 6.0,
    }  # fmt: skip
    law = {name: LAW[name] for name in ("E", "A", "B", "alpha", "beta")}
    path.write_text(json.dumps({"parametric": dict.fromkeys(names, law), "design": dict.fromkeys(names, about)}))
    words = ["budget=1e11,5e11", "grid.points=3"]
    own = only(*words, f"grid.laws={path}")
    assert own.source == f"your own laws, {path}"
    # What its runs have told already is not lost.
    about["information"] = np.zeros((5, 5)).tolist()
    path.write_text(json.dumps({"parametric": dict.fromkeys(names, law), "design": dict.fromkeys(names, about)}))
    assert only(*words, f"grid.laws={path}").factor > own.factor
    path.write_text("{broken")
    assert only(*words, f"grid.laws={path}").source.startswith("laws of study=fig4")


# --- what it says -------------------------------------------------------------------------------------------------


def test_a_plan_that_can_decide_nothing_says_so_in_one_line() -> None:
    lines = said("budget=1e12", "grid.widths=[16]")
    assert sum("this plan can decide nothing" in line for line in lines) == 1
    assert any("too wide to tell it from 1" in line for line in lines)


def test_without_a_baseline_it_says_what_to_add() -> None:
    asked = sweep_request(["structure=btt,low_rank", "scale=small", "budget=1e11", "tracking=journal"])
    said = "decides nothing against dense, which is not in this sweep"
    assert list(missing.lines(plan_sweep(asked), asked)) == [f"{said}; add it: structure=dense,btt,low_rank"]
    for words, line in (
        (["structure=btt"], [f"{said}; add it: structure=dense,btt"]),
        (["structure=btt", "moe=ffn"], [said]),
        (["structure=dense"], []),
    ):
        alone = sweep_request([*words, "scale=small", "budget=1e11", "tracking=journal"])
        assert list(missing.lines(plan_sweep(alone), alone)) == line


def test_the_command_adds_what_is_missing() -> None:
    words = ["budget=1e17", "scale=paper", "grid.points=4", "dry_run=true", "data.content=0"]
    asked = sweep_request(["structure=dense,btt", "tracking=journal", *words[:-1]])
    lines = list(missing.lines(plan_sweep(asked), asked))
    assert any(line.startswith("missing for a verdict: ") for line in lines)
    command = shlex.split(lines[-1])
    assert command[:2] == ["python", "sweep.py"]
    assert not any(word.startswith("dry_run") for word in command)
    more = sweep_request(command[2:])
    assert all(answer.decides for answer in answers(plan_sweep(more), more))


def test_the_bill_and_its_json_have_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["budget=1e11", "grid.points=2", "dry_run=true", f"runs={tmp_path}"]
    assert run_sweep(request(*words)) == 0
    assert "what this can decide, by laws of study=fig4" in capsys.readouterr().out
    assert run_sweep(request(*words, "format=json")) == 0
    (one,) = json.loads(capsys.readouterr().out)["decides"]
    assert one["variant"] == "btt+fixed-norm"
    assert one["decides"] is False
    assert one["factor"] > 1.25


def test_a_decayed_run_is_one_row() -> None:
    asked = request("budget=1e12", "grid=isoflop", "grid.points=2")
    cell = plan_sweep(asked).cells[0]
    size = ledger(cell.science).macs_per_token
    jacobian = decide._jacobian(Pilot(LAW, ""), (0.0, 0.0), size, np.array([float(cell.tokens)]))
    want = jacobian.T @ jacobian / (LAW["row_noise"] ** 2 + LAW["run_noise"] ** 2)
    np.testing.assert_allclose(decide._of_run(Pilot(LAW, ""), cell, size, (0.0, 0.0)), want, rtol=1e-6)


def test_seeds_of_a_structure_count() -> None:
    asked = request("budget=1e11", "seed=0,1,2")
    for runs in decide._by_variant(plan_sweep(asked).cells).values():
        assert decide._seeds(runs) == 3


@pytest.mark.parametrize(
    ("factor", "expected", "decides"),
    [(1.2, None, True), (1.3, None, False), (1.3, 1.1, False), (1.3, 1.4, True), (1.3, 0.6, True), (2.0, 0.6, False)],
)
def test_a_difference_is_told_where_the_interval_is_narrower(
    factor: float, expected: float | None, decides: bool
) -> None:
    assert replace(only("budget=1e11"), factor=factor, expected=expected).decides is decides
