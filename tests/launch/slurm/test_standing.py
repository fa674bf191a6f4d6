"""Where a run stands: SLURM's word with the run folder's, and each end under its right name."""

from pathlib import Path

import pytest

from structlin.host.files import write_json
from structlin.launch.reconcile import JobState, job_state
from structlin.launch.slurm.controller import Controller, ControllerError, End
from structlin.launch.slurm.resources import Resources
from structlin.launch.slurm.standing import GB, Past, Standing, cause_of, survey
from structlin.launch.slurm.submissions import Submission, begin, read, submissions, submitted
from structlin.runs.job import Job
from structlin.runs.store import Store
from tests.launch.slurm.orders import job

RESOURCES = Resources(nodes=1, gpus=0, cpus=1, memory_gb=2, minutes=30)


@pytest.mark.parametrize(
    ("end", "failure", "log", "cause"),
    [
        (End("TIMEOUT", "0:0", 0), "", "", "time"),
        (End("OUT_OF_MEMORY", "0:125", 0), "", "", "memory"),
        # A cluster that kills over --mem by itself says FAILED 0:9.
        (End("FAILED", "0:9", 2 * GB), "", "", "memory"),
        (End("FAILED", "0:9", GB), "", "slurmstepd: error: Detected 1 oom-kill event(s)", "memory"),
        (End("FAILED", "0:9", GB), "", "", "crash"),
        (End("FAILED", "1:0", GB), "RuntimeError: shapes", "", "crash"),
        # More host memory would not help a GPU.
        (End("FAILED", "1:0", GB), "OutOfMemoryError: CUDA out of memory. Tried", "", "gpu memory"),
        (End("FAILED", "1:0", GB), "gpu memory: a step needs 109 of 80 GB: recompute=true", "", "gpu memory"),
        (End("FAILED", "1:0", GB), "", "torch.OutOfMemoryError: CUDA out of memory. Tried to", "gpu memory"),
        (End("FAILED", "1:0", GB), "node: CUDA error: an illegal memory access was encountered", "", "node"),
        (End("FAILED", "1:0", GB), "no space left on the device of /store", "", "disk"),
        (End("FAILED", "1:0", GB), "out of time: no checkpoint was reached within 5 minutes", "", "time"),
        (End("NODE_FAIL", "0:0", 0), "", "", "node"),
        (End("PREEMPTED", "0:0", 0), "", "", "preempted"),
        (End("CANCELLED", "0:0", 0), "", "", "cancelled"),
        (End("COMPLETED", "0:0", 0), "", "", "left"),
        (None, "", "error: *** JOB 3 ON n1 CANCELLED AT 2026-11-22T02:48:10 DUE TO TIME LIMIT ***", "time"),
        (None, "", "*** JOB 3 ON n1 CANCELLED AT 2026 DUE TO PREEMPTION ***\nTraceback: ValueError", "preempted"),
        (
            None,
            "",
            "*** JOB 3 ON n1 CANCELLED AT 2026 DUE TO PREEMPTION ***\n*** JOB 3 CANCELLED AT 2026 ***",
            "cancelled",
        ),
        (None, "", "Traceback: ValueError", "crash"),
        (None, "", "", "unknown"),
    ],
)
def test_an_end_has_one_name(end: End | None, failure: str, log: str, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "log.out"
    if log:
        path.write_text(log)
    assert cause_of(end, failure, path, 2 * GB) == cause


def submit(runs: Path, packs: list[list[Job]], job_id: str, sweep: str = "demo") -> Submission:
    record = begin(runs / "sweeps" / sweep, packs, RESOURCES, "key", "ada", float(job_id))
    submitted(record, job_id)
    found = read(record.folder)
    assert found is not None
    return found


def answers(queue: str, accounts: str = "") -> Controller:
    return Controller(lambda command: {"squeue": queue, "sacct": accounts}[command[0]])


def states(runs: Path, *jobs: Job) -> list[JobState]:
    return [job_state(one, Store(runs)) for one in jobs]


def stand(runs: Path, controller: Controller, *jobs: Job) -> list[Standing]:
    return survey(states(runs, *jobs), submissions(runs), controller, must_answer=True).standings


def test_what_waits_or_runs_is_not_open(tmp_path: Path) -> None:
    jobs = [job(seed) for seed in range(4)]
    submit(tmp_path, [[one] for one in jobs[:3]], "7")
    found = stand(tmp_path, answers("7_0|RUNNING|None\n7_[1]|PENDING|Priority\n", "7_2|FAILED|1:0|\n"), *jobs)
    assert [one.phase for one in found] == ["running", "waiting", "failed", "missing"]
    assert [one.is_open for one in found] == [False, False, True, True]
    assert found[1].reason == "Priority"
    assert found[2].past[0].cause == "crash"
    assert found[2].log == tmp_path / "sweeps/demo/submissions/0001/log/7_2_0_log.out"


def test_another_sweeps_elements_count_too(tmp_path: Path) -> None:
    shared, own = job(0), job(1)
    submit(tmp_path, [[shared]], "7", "theirs")
    found = stand(tmp_path, answers("7|PENDING|Priority\n"), shared, own)
    assert [one.is_open for one in found] == [False, True]


def test_a_longer_request_waits_for_the_shorter_one(tmp_path: Path) -> None:
    short, long = job(steps=100), Job(job().science, (50, 100, 200))
    submit(tmp_path, [[short]], "7")
    (found,) = stand(tmp_path, answers("7|RUNNING|None\n"), long)
    assert found.is_open
    assert found.extends == "7"
    (covered,) = stand(tmp_path, answers("7|RUNNING|None\n"), short)
    assert not covered.is_open


def test_a_submission_of_which_nothing_lives_is_never_asked_about_again(tmp_path: Path) -> None:
    one = job()
    submit(tmp_path, [[one]], "7")
    assert stand(tmp_path, answers("", "7|TIMEOUT|0:0|\n"), one)[0].count("time") == 1

    def silent(command: object) -> str:
        raise ControllerError(f"{command} was asked")

    assert stand(tmp_path, Controller(silent), one)[0].count("time") == 1


def test_accounting_that_lags_behind_does_not_close_a_submission(tmp_path: Path) -> None:
    one = job()
    submit(tmp_path, [[one]], "7")
    stand(tmp_path, answers("", "7|RUNNING|0:0|\n"), one)
    assert stand(tmp_path, answers("", "7|OUT_OF_MEMORY|0:125|\n"), one)[0].count("memory") == 1


def test_only_counted_causes_give_a_run_up(tmp_path: Path) -> None:
    one = job()
    for number, state in enumerate(["FAILED", "PREEMPTED", "NODE_FAIL", "FAILED", "CANCELLED"]):
        record = submit(tmp_path, [[one]], str(number + 1))
        record.close({0: [End(state, "1:0", 0)]})
    (found,) = stand(tmp_path, answers(""), one)
    assert found.count("crash") == 2
    assert not found.is_given_up(2)
    assert found.is_given_up(1)


def test_the_elements_own_word_names_the_reason(tmp_path: Path) -> None:
    one = job()
    record = submit(tmp_path, [[one]], "7")
    write_json(record.folder / "failures" / "0.json", {one.run_id: "RuntimeError: shapes differ"})
    (found,) = stand(tmp_path, answers("", "7|FAILED|1:0|\n"), one)
    assert found.reason == "RuntimeError: shapes differ"


def test_without_an_answer_the_store_alone_speaks(tmp_path: Path) -> None:
    one = job()
    submit(tmp_path, [[one]], "7")

    def silent(command: object) -> str:
        raise ControllerError("no answer")

    seen = survey(states(tmp_path, one), submissions(tmp_path), Controller(silent), must_answer=False)
    assert "no answer" in seen.note
    assert seen.standings[0].phase == "missing"
    assert not seen.standings[0].past
    with pytest.raises(ControllerError):
        survey(states(tmp_path, one), submissions(tmp_path), Controller(silent), must_answer=True)


def test_a_run_that_was_never_submitted_has_no_past() -> None:
    assert Past("crash", "", Path()) != Past("time", "", Path())
    state = job_state(job(), Store(Path("/nonexistent")))
    assert Standing(state).phase == "missing"
    assert Standing(state).reason == ""
