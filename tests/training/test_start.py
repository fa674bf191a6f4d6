"""A run that starts from another one has its weights, goes on with its data and moments, and owns up to its compute."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from structlin.anatomy.compute import batch_number, flops_between, flops_until, inherited_flops
from structlin.config.doors import sweep_request, train_request
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.config.optim import ScheduleConfig
from structlin.config.science import Science, StartConfig
from structlin.config.structure import StructureConfig
from structlin.errors import UserError
from structlin.launch.reconcile import reconcile
from structlin.planning.bill import make_bill, total_said
from structlin.planning.grid import plan_run, plan_sweep
from structlin.runs.job import Job
from structlin.runs.row_config import config_of
from structlin.runs.store import Store
from structlin.runs.table import load
from structlin.structure import theta_of
from structlin.training.entry import execute
from tests.tiny import ARGUMENTS, PLACEMENT, tiny, train
from tests.training.test_exactness import assert_same_state, result

STEP, LAST = 12, 30
EVEN = ScheduleConfig(warmup_steps=0)


def from_(parent: Science, child: Science, step: int = STEP, **how) -> Science:
    return replace(child, start=StartConfig(parent, step, **how))


def losses(folder) -> dict[int, float]:
    return {row["step"]: row["val_loss"] for row in json.loads(result(folder))["evaluations"]}


@pytest.mark.parametrize("structure", ["dense", "btt", "g2"])
def test_a_run_that_starts_from_its_own_structure_is_that_run_going_on(
    structure: str, tmp_path: Path, data_root: Path
) -> None:
    """To the last bit: weights, moments and batches are where the parent has left them."""
    parent = tiny(structure, schedule=EVEN)
    train(parent, (STEP, LAST), tmp_path, data_root, checkpoints=(STEP,))
    _, whole = train(parent, (STEP, LAST), tmp_path, data_root)
    _, child = train(from_(parent, parent), (0, LAST - STEP), tmp_path, data_root)
    assert losses(child) == {0: losses(whole)[STEP], LAST - STEP: losses(whole)[LAST]}


def test_a_full_rank_holds_all_that_a_dense_layer_knows(tmp_path: Path, data_root: Path) -> None:
    float64 = replace(tiny().model, dtype="float64")
    parent = tiny("dense", model=float64)
    whole = StructureConfig(str(theta_of("low_rank", arguments={"rank": "d"})))
    _, dense = train(parent, (STEP,), tmp_path, data_root)
    child = from_(parent, replace(parent, structure=whole))
    _, structured = train(child, (0, 5), tmp_path, data_root, checkpoints=(5,))
    _, back = train(from_(child, parent, step=5), (0,), tmp_path, data_root)
    assert losses(structured)[0] == pytest.approx(losses(dense)[STEP], rel=1e-10)
    assert losses(back)[0] == pytest.approx(losses(structured)[5], rel=1e-10)


@pytest.mark.parametrize("conversion", ["nearest", "aware"])
def test_it_resumes_bit_by_bit_and_knows_its_compute(conversion: str, tmp_path: Path, data_root: Path) -> None:
    parent = tiny("dense")
    tokens = 128 if conversion == "aware" else 0
    child = from_(parent, tiny(), conversion=conversion, calibration_tokens=tokens)
    for place in ("cut", "whole"):
        train(parent, (STEP,), tmp_path / place, data_root)
    train(child, (7,), tmp_path / "cut", data_root)
    _, resumed = train(child, (7, LAST), tmp_path / "cut", data_root)
    _, whole = train(child, (7, LAST), tmp_path / "whole", data_root)
    assert result(resumed) == result(whole)
    assert_same_state(resumed, whole, LAST)
    table = load(tmp_path / "whole").set_index("run_id").loc[run_id(child)]
    assert (table["inherited_flops"] == flops_until(parent, STEP)).all()
    assert table["training_flops"].tolist() == [flops_until(child, step) for step in (7, LAST)]
    assert science_from(config_of(table.reset_index().iloc[0].to_dict())) == science_from(to_mapping(child))


def test_an_aware_conversion_loses_less_on_what_it_meets(tmp_path: Path, data_root: Path) -> None:
    parent = tiny("dense", 32, schedule=EVEN)
    train(parent, (200,), tmp_path, data_root)
    quarter = StructureConfig(str(theta_of("low_rank", arguments={"rank": "d/4"})))
    found = []
    for conversion, tokens in (("nearest", 0), ("aware", 4096)):
        child = from_(parent, replace(parent, structure=quarter), 200, conversion=conversion, calibration_tokens=tokens)
        found.append(losses(train(child, (0,), tmp_path, data_root)[1])[0])
    assert found[1] < found[0]


def test_batches_go_on_where_the_parent_has_stopped() -> None:
    parent, other = tiny("dense"), tiny("dense", seed=1)
    assert [batch_number(from_(parent, tiny()), step) for step in (0, 3)] == [STEP, STEP + 3]
    assert [batch_number(from_(other, tiny()), step) for step in (0, 3)] == [0, 3]
    third = from_(from_(parent, tiny()), parent, step=5)
    assert batch_number(third, 2) == STEP + 5 + 2
    assert inherited_flops(third) == flops_until(parent, STEP) + flops_between(tiny(), 0, 5)


def test_a_missing_checkpoint_is_one_line(tmp_path: Path, data_root: Path) -> None:
    parent = tiny("dense")
    train(parent, (STEP,), tmp_path, data_root)
    with pytest.raises(UserError, match=r"has no checkpoint of step 5 \(it keeps: 12\)"):
        train(from_(parent, tiny(), step=5), (7,), tmp_path, data_root)


SWEEP = [*(word for word in ARGUMENTS if word != "scale=small"), "scale=small", "model.weight_norm=none"]


def test_parents_are_planned_once_and_billed_once(tmp_path: Path) -> None:
    words = ["structure=btt,low_rank", "start.structure=dense", "start.share=.5", "schedule=cosine", "grid=isoflop"]
    words += ["grid.widths=[16]", "budget=1e9", f"runs={tmp_path}"]
    request = sweep_request([*SWEEP, *words])
    plan = plan_sweep(request)
    dense = [job for job in plan.jobs if job.science.structure.name == "dense"]
    assert len(dense) == 1
    assert len(plan.jobs) == 3
    assert plan.jobs[0] == dense[0]
    assert [0 in job.evaluations for job in plan.jobs] == [False, True, True]  # what is worth what before healing
    for cell in plan.cells:
        start = cell.science.start
        assert start.step in dense[0].checkpoints
        assert inherited_flops(cell.science) == pytest.approx(0.5e9, rel=0.02)
        assert cell.training_flops == pytest.approx(1e9, rel=0.02)
    total = sum(flops_between(job.science, 0, job.target_step) for job in plan.jobs)
    bill = make_bill(plan, request.site, 1)
    assert bill.total_flops == total
    assert total_said(bill).startswith("2 cells on 3 runs, 1 of them for others to start from: ")


@pytest.mark.parametrize(("kept", "again_from"), [((), 0), ((5,), 5)])
def test_a_parent_that_was_trained_before_is_trained_to_the_step_again(
    kept: tuple[int, ...], again_from: int, tmp_path: Path, data_root: Path
) -> None:
    """From the nearest checkpoint before it; what the parent was and said further on stays."""
    parent, child = tiny("dense"), from_(tiny("dense"), tiny())
    _, folder = train(parent, (STEP, LAST), tmp_path, data_root, checkpoints=kept)
    before, store = result(folder), Store(tmp_path)
    jobs = [Job(parent, (STEP,), checkpoints=(STEP,)), Job(child, (0, 3))]
    states = reconcile(jobs, store)
    assert [(one.state, one.step) for one in states] == [("missing", again_from), ("missing", 0)]
    for one in states:
        assert execute(Job.from_mapping(one.job.to_mapping()), store, data_root, PLACEMENT) == "done"
    assert result(folder) == before
    assert {STEP, LAST} <= set(folder.checkpoints)
    # What has begun needs its beginning no more.
    folder.checkpoints[STEP].unlink()
    assert [one.state for one in reconcile(jobs, store)] == ["done", "done"]


def test_a_run_of_the_store_is_started_from_by_its_name(tmp_path: Path, data_root: Path) -> None:
    parent = tiny("dense")
    _, folder = train(parent, (STEP,), tmp_path, data_root)
    words = [word for word in SWEEP if "base_width" not in word] + [f"runs={tmp_path}", "structure=btt"]
    for text in (f"{tmp_path}/{folder.run_id}@{STEP}", f"{tmp_path}/{folder.run_id}", folder.run_id):
        asked = train_request([*words, "model.dtype=float32", f"start={text}", "tokens=0"])
        assert asked.d_model == parent.model.d_model
        plan = plan_run(asked.template, asked.d_model, asked.tokens, 20)
        assert [job.run_id for job in plan.jobs] == [folder.run_id, run_id(plan.cells[0].science)]
        assert plan.jobs[1].evaluations == (0,)


REFUSED = {
    "start=nowhere@3 tokens=0": "start=nowhere@3: no run can be read in",
    "start=elsewhere/abc tokens=0": "lies in another store than runs=",
    "start.structure=dense tokens=640": "say which",
    "start.structure=dense start.share=.5 start.steps=4 tokens=640": "give one",
    "start.share=.5 tokens=640": "of what",
    "start.structure=dense start.share=1 tokens=640": "must lie between 0 and 1",
    "start.structure=dense start.share=.5 model.weight_norm=fixed tokens=640": "weight_norm=fixed",
    "start.structure=dense start.steps=4 start.conversion=best tokens=640": "start.conversion",
    "start.structure=nonsense start.steps=4 tokens=640": "unknown structure 'nonsense'",
    "tokens=0": "at least 1",
}


@pytest.mark.parametrize(("line", "said"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_started_is_refused_in_one_line(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said) as refused:
        train_request([*SWEEP, "structure=btt", "model.d_model=16", f"runs={tmp_path}", *line.split()])
    assert "\n" not in str(refused.value)


def test_a_start_of_another_width_or_context_is_refused(tmp_path: Path, data_root: Path) -> None:
    _, folder = train(tiny("dense"), (STEP,), tmp_path, data_root)
    words = [*SWEEP, "model.dtype=float32", "structure=btt", f"start={folder.run_id}", f"runs={tmp_path}", "tokens=640"]
    with pytest.raises(UserError, match=r"model\.d_model = 32, but the run that it starts from has 16"):
        train_request([*words, "model.d_model=32"])
    with pytest.raises(UserError, match=r"model\.context is 16 of the parent and 32"):
        train_request([*words, "model.context=32"])


def test_what_goes_on_as_it_was_is_no_other_run(tmp_path: Path) -> None:
    line = [*SWEEP, "structure=dense", "model.d_model=16", "tokens=640", f"runs={tmp_path}"]
    plain, same = (train_request([*line, *more]).template for more in ([], ["start.structure=dense", "start.share=.5"]))
    assert run_id(plain.science) == run_id(same.science)
