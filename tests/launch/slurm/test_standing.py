"""Where a run stands: SLURM's word with the run folder's, and each end under its right name."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from structlin.host.files import write_json
from structlin.host.passed_over import forget_passed_over, summary
from structlin.launch.listed import Listed
from structlin.launch.reconcile import JobState, job_state
from structlin.launch.slurm.causes import cause_of
from structlin.launch.slurm.controller import Controller, ControllerError, End
from structlin.launch.slurm.resources import Resources
from structlin.launch.slurm.standing import GB, NODE_SECONDS, Past, Standing, survey
from structlin.launch.slurm.submissions import Submission, begin, read, submissions, submitted
from structlin.runs.job import Job
from structlin.runs.store import Store
from tests.launch.slurm.orders import job
from tests.tiny import tiny

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
        (End("FAILED", "1:0", GB), "no space left on the device of /store", "", "storage"),
        (End("FAILED", "1:0", GB), "OSError: [Errno 122] Disk quota exceeded: '/store'", "", "storage"),
        (End("FAILED", "1:0", GB), "storage: Stale file handle of /store", "", "storage"),
        (End("FAILED", "1:0", GB), "cannot write to /store/1: Read-only file system; make room", "", "storage"),
        (End("FAILED", "1:0", GB), "OSError: [Errno 5] Input/output error", "", "storage"),
        (End("FAILED", "1:0", GB), "the training process ended with signal 7; its output: /x", "", "storage"),
        # Nothing could be written, so nothing says why but the exit code.
        (End("FAILED", "74:0", GB), "", "", "storage"),
        # SLURM itself could not open the log.
        (End("FAILED", "0:53", 0), "", "", "storage"),
        (
            End("FAILED", "1:0", GB),
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "",
            "node",
        ),
        (End("FAILED", "1:0", GB), "CUDA error: uncorrectable ECC error encountered", "", "node"),
        (End("FAILED", "1:0", GB), "NCCL error in: x.cpp:3, unhandled system error, NCCL version 2.19", "", "node"),
        (End("FAILED", "1:0", GB), "", "prolog: GPU health check failed on n3", "node"),
        (End("FAILED", "69:0", GB), "", "", "node"),
        (End("FAILED", "75:0", GB), "", "", "saved"),
        (End("FAILED", "78:0", GB), "", "", "setup"),
        # More host memory would not help a GPU.
        (End("FAILED", "1:0", GB), "OutOfMemoryError: CUDA out of memory. Tried", "", "gpu memory"),
        (End("FAILED", "1:0", GB), "gpu memory: a step needs 109 of 80 GB: recompute=true", "", "gpu memory"),
        (End("FAILED", "1:0", GB), "", "torch.OutOfMemoryError: CUDA out of memory. Tried to", "gpu memory"),
        (End("FAILED", "1:0", GB), "node: CUDA error: an illegal memory access was encountered", "", "node"),
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


def lines(*words: str, name: str = "demo", token: str = "", submitted: str = "N/A") -> str:
    """What squeue prints of jobs given as id|state|reason."""
    comment = f"structlin:{token}" if token else "(null)"
    found = (word.split("|") for word in words)
    return "".join(f"structlin|{job}|{state}|{submitted}|{comment}|{name}|{why}\n" for job, state, why in found)


def states(runs: Path, *jobs: Job) -> list[JobState]:
    return [job_state(one, Store(runs)) for one in jobs]


def stand(runs: Path, controller: Controller, *jobs: Job) -> list[Standing]:
    return survey(states(runs, *jobs), submissions(runs), controller, must_answer=True).standings


def test_what_waits_or_runs_is_not_open(tmp_path: Path) -> None:
    jobs = [job(seed) for seed in range(4)]
    submit(tmp_path, [[one] for one in jobs[:3]], "7")
    found = stand(tmp_path, answers(lines("7_0|RUNNING|None", "7_[1]|PENDING|Priority"), "7_2|FAILED|1:0|\n"), *jobs)
    assert [one.phase for one in found] == ["running", "waiting", "failed", "missing"]
    assert [one.is_open for one in found] == [False, False, True, True]
    assert found[1].reason == "Priority"
    assert found[2].past[0].cause == "crash"
    assert found[2].log == tmp_path / "sweeps/demo/submissions/0001/log/7_2_0_log.out"


def test_another_sweeps_elements_count_too(tmp_path: Path) -> None:
    shared, own = job(0), job(1)
    submit(tmp_path, [[shared]], "7", "theirs")
    found = stand(tmp_path, answers(lines("7|PENDING|Priority", name="theirs")), shared, own)
    assert [one.is_open for one in found] == [False, True]


def test_a_longer_request_waits_for_the_shorter_one(tmp_path: Path) -> None:
    short, long = job(steps=100), Job(job().science, (50, 100, 200))
    submit(tmp_path, [[short]], "7")
    (found,) = stand(tmp_path, answers(lines("7|RUNNING|None")), long)
    assert found.is_open
    assert found.extends == "7"
    (covered,) = stand(tmp_path, answers(lines("7|RUNNING|None")), short)
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


# ---- whose job is it? ------------------------------------------------------------------------------------------------

NOW = "2026-11-22T12:00:00"
LONG_AGO = "2025-11-22T12:00:00"
TOKEN, OTHER = "0123456789abcdef", "fedcba9876543210"


def at(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def known(runs: Path, jobs: list[Job], job_id: str | None, cluster: str = "", when: float | None = None) -> Submission:
    """A submission with a token; without a job id where sbatch's answer was lost."""
    when = at(NOW) if when is None else when
    packs = [[one] for one in jobs]
    record = begin(runs / "sweeps" / "demo", packs, RESOURCES, "key", "ada", when, token=TOKEN, cluster=cluster)
    if job_id is not None:
        submitted(record, job_id, cluster)
    found = read(record.folder)
    assert found is not None
    return found


STRANGERS = [
    lines("7|RUNNING|None", name="theirs", submitted=NOW),
    lines("7|RUNNING|None", token=OTHER, submitted=NOW),
    lines("7|RUNNING|None", submitted=LONG_AGO),
    lines("7|RUNNING|None", name="theirs", token=OTHER, submitted=LONG_AGO),
]


@pytest.mark.parametrize("queue", STRANGERS)
def test_a_strangers_job_of_our_number_is_not_ours(queue: str, tmp_path: Path) -> None:
    """A rebuilt cluster begins its numbers anew, and others let them wrap."""
    one = job()
    known(tmp_path, [one], "7")
    (found,) = stand(tmp_path, answers(queue), one)
    assert found.is_open
    assert found.live is None


@pytest.mark.parametrize(
    "queue",
    [
        lines("7|RUNNING|None", token=TOKEN, submitted=NOW),
        lines("7|RUNNING|None", token=TOKEN, name="renamed", submitted=LONG_AGO),
        lines("7|RUNNING|None", submitted=NOW),  # a site that keeps no comments
    ],
)
def test_our_own_job_is_known_by_its_token_or_by_name_and_time(queue: str, tmp_path: Path) -> None:
    one = job()
    known(tmp_path, [one], "7")
    (found,) = stand(tmp_path, answers(queue), one)
    assert found.phase == "running"


def test_a_strangers_end_says_nothing_about_our_array(tmp_path: Path) -> None:
    one = job()
    known(tmp_path, [one], "7")
    accounts = f"7|TIMEOUT|0:0||{LONG_AGO}|demo|n1|\n7|FAILED|1:0||{NOW}|theirs|n1|\n"
    (found,) = stand(tmp_path, answers("", accounts), one)
    assert [past.cause for past in found.past] == ["unknown"]


class Clusters:
    """Clusters by name; the first is the login node's own. One that is None does not answer."""

    def __init__(self, **queues: str | None) -> None:
        self.queues = queues
        self.cancelled: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> str:
        own, *words = command[0], *command[1:]
        where = [word.removeprefix("--clusters=") for word in words if word.startswith("--clusters=")]
        cluster = where[0] if where else next(iter(self.queues))
        if command[:3] == ["scontrol", "show", "config"]:
            return f"ClusterName = {cluster}\nMaxArraySize = 11\n"
        queue = self.queues.get(cluster)
        if queue is None:
            raise ControllerError(f"{own}: error: '{cluster}' can't be reached")
        if own == "scancel":
            self.cancelled.append(tuple(command[1:]))
        return queue if own == "squeue" else ""


def test_another_clusters_submission_stays_open_and_is_not_submitted_again(tmp_path: Path) -> None:
    one = job()
    record = known(tmp_path, [one], "7", cluster="a")
    seen = survey(states(tmp_path, one), submissions(tmp_path), Controller(Clusters(b="")), must_answer=True)
    (found,) = seen.standings
    assert not found.is_open
    assert found.is_elsewhere
    assert "cluster a" in found.reason
    assert "left to cluster a" in seen.note
    assert not (record.folder / "ends.json").exists()
    # Back on its own cluster it is as it was.
    own = Controller(Clusters(a=lines("7|RUNNING|None", token=TOKEN)))
    assert stand(tmp_path, own, one)[0].phase == "running"


def test_another_cluster_that_answers_is_asked_by_its_name(tmp_path: Path) -> None:
    one = job()
    known(tmp_path, [one], "7", cluster="a")
    both = Clusters(b=lines("7|RUNNING|None", token=OTHER), a=lines("7|PENDING|Priority", token=TOKEN))
    (found,) = stand(tmp_path, Controller(both), one)
    assert (found.phase, found.reason, found.cluster) == ("waiting", "Priority", "a")


def test_a_lost_answer_is_made_good_by_the_token(tmp_path: Path) -> None:
    jobs = [job(0), job(1)]
    record = known(tmp_path, jobs, None)
    queue = lines("9|RUNNING|None", token=OTHER) + lines("12_[0-1]|PENDING|Priority", token=TOKEN)
    found = stand(tmp_path, answers(queue), *jobs)
    assert [one.name for one in found] == ["12_0", "12_1"]
    assert read(record.folder).job_id == "12"


def test_an_array_that_has_ended_meanwhile_is_found_by_accounting(tmp_path: Path) -> None:
    one = job()
    record = known(tmp_path, [one], None)
    (found,) = stand(tmp_path, answers("", f"12|TIMEOUT|0:0||{NOW}|demo|n1|structlin:{TOKEN}\n"), one)
    assert read(record.folder).job_id == "12"
    assert found.count("time") == 1


def test_an_array_that_was_never_taken_is_submitted_again_after_a_minute(tmp_path: Path) -> None:
    one = job()
    known(tmp_path, [one], None, when=time.time())
    (found,) = stand(tmp_path, answers(""), one)
    assert not found.is_open
    assert "answer was lost" in found.reason
    shutil.rmtree(tmp_path / "sweeps")
    known(tmp_path, [one], None, when=time.time() - 300)
    assert stand(tmp_path, answers(""), one)[0].is_open
    assert stand(tmp_path, answers(""), one)[0].past == ()


def test_a_sick_node_is_remembered_for_a_time_and_not_counted(tmp_path: Path) -> None:
    one = job()
    for number in range(5):
        record = submit(tmp_path, [[one]], str(number + 1))
        reason = f"CUDA error: CUDA-capable device(s) is/are busy or unavailable [node n{number % 2 + 1}]"
        write_json(record.folder / "failures" / "0.json", {one.run_id: reason})
        record.close({0: [End("FAILED", "69:0", 0)]})
    (found,) = stand(tmp_path, answers(""), one)
    assert not found.is_given_up(0)
    assert found.phase == "failed"
    assert found.sick_nodes(time.time()) == ("n1", "n2")
    assert found.sick_nodes(time.time() + 2 * NODE_SECONDS) == ()


@pytest.mark.parametrize(("name", "content"), [("ends.json", "{"), ("ends.json", "[1]"), ("ends.json", '{"0": [{}]}')])
def test_a_broken_file_of_one_submission_is_named_and_the_others_count(
    name: str, content: str, tmp_path: Path, capsys
) -> None:
    forget_passed_over()
    jobs = [job(0), job(1)]
    broken, whole = (submit(tmp_path, [[one]], str(number)) for number, one in enumerate(jobs, 7))
    whole.close({0: [End("TIMEOUT", "0:0", 0)]})
    (broken.folder / name).write_text(content)
    found = stand(tmp_path, answers(lines("7|RUNNING|None")), *jobs)
    assert [one.phase for one in found] == ["running", "failed"]
    assert f"passed over: {broken.folder / name}" in capsys.readouterr().err
    assert summary().startswith("1 file(s)")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    forget_passed_over()
    submit(tmp_path, [[job()]], "7", "theirs")
    closed = str(tmp_path / "sweeps" / "theirs" / "submissions")
    listdir = os.listdir

    def refuse(path: object = ".") -> list[str]:
        if str(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert submissions(tmp_path) == []
    assert f"passed over: {closed}: cannot be listed: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        *((state, "waiting") for state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")),
        *((state, "running") for state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING")),
    ],
)
def test_a_held_element_waits_and_a_suspended_one_runs(state: str, phase: str, tmp_path: Path) -> None:
    submit(tmp_path, [[job(0)]], "7")
    (found,) = stand(tmp_path, answers(lines(f"7|{state}|ReservationDeleted")), job(0))
    assert (found.phase, found.reason) == (phase, "ReservationDeleted" if phase == "waiting" else "")


# ---- arrays of older schemas -----------------------------------------------------------------------------------------

RECORDED = Path(__file__).parent / "recorded"
OF_RECORDED = [
    Job(tiny(structure, seed=seed, numerics=1), (50, 100)) for structure in ("btt", "dense") for seed in (0, 1)
]
"""The runs that each recorded submission was made of: two elements of two."""


@pytest.fixture(params=["schema-2", "schema-3"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store with a submission as the code of an older schema wrote it."""
    shutil.copytree(RECORDED / request.param, tmp_path / "sweeps" / "demo" / "submissions" / "0001")
    return tmp_path


def test_an_array_of_an_older_schema_has_its_runs(recorded: Path) -> None:
    stored = json.loads((recorded / "sweeps/demo/submissions/0001/submission.json").read_text())
    assert not {run for wanted in stored["elements"] for run in wanted} & {one.run_id for one in OF_RECORDED}
    queue = answers(lines("7_0|RUNNING|None", "7_1|PENDING|Priority"))
    for _ in range(2):  # the second look reads what the first has kept
        found = stand(recorded, queue, *OF_RECORDED)
        assert [(one.phase, one.name) for one in found] == [("running", "7_0")] * 2 + [("waiting", "7_1")] * 2
        assert not any(one.is_open for one in found)
        (recorded / "sweeps/demo/submissions/0001/packs.jsonl").unlink(missing_ok=True)


def test_a_longer_request_waits_for_the_array_of_an_older_schema(recorded: Path) -> None:
    longer = [Job(one.science, (50, 100, 200)) for one in OF_RECORDED]
    found = stand(recorded, answers(lines("7_[0-1]|PENDING|Priority")), *longer)
    assert [(one.is_open, one.extends) for one in found] == [(True, "7")] * 4


def test_how_the_array_of_an_older_schema_has_ended_counts(recorded: Path) -> None:
    folder = recorded / "sweeps/demo/submissions/0001"
    old = list(json.loads((folder / "submission.json").read_text())["elements"][0])
    write_json(folder / "failures" / "0.json", {old[1]: "out of time: no checkpoint was reached"})
    accounts = "7_0|FAILED|1:0|\n7_1|OUT_OF_MEMORY|0:125|\n"
    found = stand(recorded, answers("", accounts), *OF_RECORDED)
    assert [one.past[-1].cause for one in found] == ["crash", "time", "memory", "memory"]
    assert all(one.is_open for one in found)


def test_runs_of_an_older_schema_are_known_by_their_older_ids_too(recorded: Path) -> None:
    """A manifest of then names them so."""
    stored = json.loads((recorded / "sweeps/demo/submissions/0001/submission.json").read_text())
    listed = [Listed(run, run, (50, 100), 64, 1.0) for wanted in stored["elements"] for run in wanted]
    found = stand(recorded, answers(lines("7_[0-1]|RUNNING|None")), *listed)
    assert [one.phase for one in found] == ["running"] * 4


def test_packs_of_an_older_schema_that_cannot_be_read_are_named(recorded: Path) -> None:
    (recorded / "sweeps/demo/submissions/0001/packs.jsonl").write_text("[{")
    forget_passed_over()
    stand(recorded, answers(""), *OF_RECORDED)
    assert "packs.jsonl" in summary()


def test_a_submission_of_today_is_read_without_its_packs(tmp_path: Path) -> None:
    record = submit(tmp_path, [[job(0)]], "7")
    (record.folder / "packs.jsonl").unlink()
    (found,) = submissions(tmp_path)
    assert (dict(found.former), sorted(path.name for path in record.folder.glob("ids*"))) == ({}, [])
