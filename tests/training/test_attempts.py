"""Whoever else writes on, a run belongs to its newest attempt: older ones cannot touch it, and nothing is lost."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from structlin.host.locks import Hold, Lock
from structlin.launch.reconcile import job_state
from structlin.runs import attempt as attempts
from structlin.runs import checkpoints
from structlin.runs.attempt import STALE_SECONDS, Attempt, Superseded
from structlin.runs.claim import Claim
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store
from tests.tiny import PLACEMENT, tiny, train
from tests.training.contender import Contender

ROOT = Path(__file__).parents[2]
SCIENCE = tiny()
TARGET = 3000
"""Steps of the runs of real processes: long enough to be stopped in the middle."""


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def begun(tmp_path: Path, data_root: Path) -> RunFolder:
    """A run trained to step 20 of 30."""
    return train(SCIENCE, (10, 20), tmp_path / "runs", data_root)[1]


@pytest.fixture
def undisturbed(tmp_path: Path, data_root: Path) -> bytes:
    _, folder = train(SCIENCE, (10, 20, 30), tmp_path / "undisturbed", data_root)
    return (folder.path / "result.json").read_bytes()


def go_on(folder: RunFolder, data_root: Path, evaluations: tuple[int, ...] = (10, 20, 30)) -> str:
    return train(SCIENCE, evaluations, folder.path.parent, data_root)[0]


def begin(folder: RunFolder) -> Attempt:
    """Take a run whose process has ended, as the next process would."""
    with Claim(folder) as claim:
        assert claim.is_free
        attempt = claim.begin(SCIENCE)
    assert attempt is not None
    return attempt


def result(folder: RunFolder) -> bytes:
    return (folder.path / "result.json").read_bytes()


def contents(folder: Path, without: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file of a folder but those of one below it."""
    files = [path for path in folder.rglob("*") if path.is_file() and without not in path.parents]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# ---- what an attempt leaves ------------------------------------------------------------------------------------------


def test_the_files_of_a_run_are_few(begun: RunFolder, data_root: Path) -> None:
    def names() -> set[str]:
        return {str(path.relative_to(begun.path)) for path in begun.path.rglob("*")}

    own = ("", "/attempt.json", "/metrics.jsonl", "/provenance.json", "/status.json")
    common = {"config.json", "result.json", "lock", "attempts"}
    newest = {"/checkpoints", "/checkpoints/step-00000020.pt"}
    assert names() == common | {f"attempts/1{name}" for name in {*own, *newest}}
    go_on(begun, data_root)
    newest = {"/checkpoints", "/checkpoints/step-00000030.pt"}
    assert names() == common | {f"attempts/1{name}" for name in own} | {f"attempts/2{name}" for name in {*own, *newest}}


def test_a_job_that_is_done_creates_and_changes_nothing(begun: RunFolder, data_root: Path) -> None:
    before = contents(begun.path, begun.path / "none")
    assert go_on(begun, data_root, (10,)) == "done"
    assert go_on(begun, data_root, (10, 20)) == "done"
    assert contents(begun.path, begun.path / "none") == before


def test_a_grown_run_is_a_second_attempt_that_resumes_the_first(begun: RunFolder, undisturbed, data_root: Path) -> None:
    assert go_on(begun, data_root) == "done"
    first, second = begun.attempts()
    assert second.record().resumed_step == 20
    assert second.record().fences == {1: first.journal.path.stat().st_size}
    assert {row["step"] for row in second.journal.evaluations()} == {30}
    assert [row["step"] for row in begun.journal.evaluations()] == [10, 20, 30]
    assert result(begun) == undisturbed


def test_evaluations_on_the_way_of_a_newer_attempt_are_made_again(begun: RunFolder, data_root: Path) -> None:
    """Its rows stand for the steps it trained, so an older evaluation among them must be there too."""
    go_on(begun, data_root, (5, 15))
    assert begun.attempts()[-1].record().resumed_step == 0
    assert [row["step"] for row in begun.journal.evaluations()] == [5, 10, 15, 20]
    assert go_on(begun, data_root, (5, 10, 15, 20, 30)) == "done"
    _, at_once = train(SCIENCE, (5, 10, 15, 20, 30), begun.path.parent / "at-once", data_root)
    assert result(begun) == result(at_once)


def test_attempts_that_wrote_no_row_do_not_pile_up(begun: RunFolder, undisturbed: bytes, data_root: Path) -> None:
    for _ in range(4):
        begin(begun)
    assert [attempt.number for attempt in begun.attempts()] == [1, 5]
    assert list(begun.checkpoints) == [20]
    assert go_on(begun, data_root) == "done"
    assert result(begun) == undisturbed


def test_an_unpublished_result_is_published_without_training(begun: RunFolder, data_root: Path) -> None:
    """A process killed between its last evaluation and its publication."""
    published = result(begun)
    (begun.path / "result.json").unlink()
    job = Job(SCIENCE, (10, 20))
    assert not job_state(job, Store(begun.path.parent)).is_final
    assert go_on(begun, data_root, (10, 20)) == "done"
    assert result(begun) == published
    assert begun.attempts()[-1].journal.rows() == []
    assert job_state(job, Store(begun.path.parent)).state == "done"


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoints_are_inherited_by_hard_link(begun: RunFolder) -> None:
    inode = begun.checkpoints[20].stat().st_ino
    attempt = begin(begun)
    assert begun.checkpoints[20].parent == attempt.checkpoints
    assert begun.checkpoints[20].stat().st_ino == inode
    assert not begun.attempts()[0].checkpoints.exists()


def test_checkpoints_are_copied_where_links_are_refused(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    before = begun.checkpoints[20].read_bytes()
    attempt = begin(begun)
    assert begun.checkpoints == {20: checkpoints.path_of(attempt.checkpoints, 20)}
    assert begun.checkpoints[20].read_bytes() == before


def test_a_torn_checkpoint_is_written_anew_when_its_step_comes(begun: RunFolder, data_root: Path) -> None:
    whole = begun.checkpoints[20].stat().st_size
    begun.checkpoints[20].write_bytes(b"torn")
    assert go_on(begun, data_root, (15, 20)) == "done"
    assert begun.checkpoints[20].stat().st_size == whole


@pytest.mark.parametrize("what", ["record", "links"])
def test_a_full_disk_at_the_beginning_loses_nothing(
    what: str, begun: RunFolder, undisturbed: bytes, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = begun.checkpoints[20].read_bytes()

    def full(*anything: object) -> None:
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(b"row")

    with monkeypatch.context() as patch:
        if what == "record":
            patch.setattr(attempts, "write_json", full)
        else:
            patch.setattr(checkpoints, "_link", full)
        assert go_on(begun, data_root) == "failed"
        if what == "links":
            assert "no space left" in begun.status()["reason"]
    assert begun.checkpoints[20].read_bytes() == before
    assert [row["step"] for row in begun.journal.evaluations()] == [10, 20]
    assert go_on(begun, data_root) == "done"
    assert result(begun) == undisturbed


# ---- an older attempt writes on --------------------------------------------------------------------------------------


def test_rows_written_after_the_take_over_are_never_read(begun: RunFolder, undisturbed: bytes, data_root: Path) -> None:
    old = begun.attempts()[0]
    begin(begun)
    old.journal.append({"kind": "eval", "step": 25, "tokens": 1600, "val_loss": -1.0})
    old.journal.append({"kind": "eval", "step": 30, "tokens": 1920, "val_loss": -1.0})
    assert [row["step"] for row in begun.journal.evaluations()] == [10, 20]
    assert go_on(begun, data_root) == "done"
    assert result(begun) == undisturbed


def test_the_first_fence_stands_for_all_later_attempts(begun: RunFolder, data_root: Path) -> None:
    old = begun.attempts()[0]
    second = begin(begun)
    second.resume_at(20)
    second.journal.append({"kind": "train", "step": 21, "loss": 1.0})
    old.journal.append({"kind": "eval", "step": 99, "val_loss": -1.0})
    begin(begun)
    assert [attempt.number for attempt in begun.attempts()] == [1, 2, 3]
    assert [row["step"] for row in begun.journal.evaluations()] == [10, 20]


def test_an_older_attempt_cannot_publish(begun: RunFolder) -> None:
    before = result(begun)
    old = begun.attempts()[0]
    begin(begun)
    with pytest.raises(Superseded):
        old.publish({"evaluations": []})
    assert result(begun) == before
    assert not (old.path / "result.json").exists()


def test_nor_when_it_is_superseded_between_its_look_and_its_rename(
    begun: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = result(begun)
    look = Attempt.check_newest

    def look_then_lose(attempt: Attempt) -> None:
        look(attempt)
        begin(begun)

    monkeypatch.setattr(Attempt, "check_newest", look_then_lose)
    with pytest.raises(Superseded):
        begun.attempts()[0].publish({"evaluations": []})
    assert result(begun) == before


def test_a_superseded_trainer_ends_without_a_trace_outside_its_attempt(tmp_path: Path, data_root: Path) -> None:
    """The run is taken in the middle of its training; asked at every step, as SLURM's warning would."""
    runs = tmp_path / "runs"
    seen = {}
    polls = iter(range(1000))

    def lose_the_run() -> bool:
        if next(polls) == 12:
            folder = Store(runs).folder(SCIENCE)
            requeued(folder, 1)
            seen["before"] = contents(folder.path, folder.path / "attempts" / "1")
        return False

    os.environ["SLURM_JOB_ID"] = "7"
    try:
        often = replace(PLACEMENT, checkpoint_seconds=1e-6)
        state, folder = train(SCIENCE, (10, 30), runs, data_root, placement=often, should_stop=lose_the_run)
    finally:
        del os.environ["SLURM_JOB_ID"]
    assert state == "superseded"
    assert folder.attempts()[0].status()["state"] == "superseded"
    assert contents(folder.path, folder.path / "attempts" / "1") == seen["before"]
    assert [row["step"] for row in folder.journal.evaluations()] == [10]


def requeued(folder: RunFolder, restart: int) -> None:
    """Take a run as the same SLURM job, requeued."""
    os.environ["SLURM_RESTART_COUNT"] = str(restart)
    try:
        assert begin(folder).number == 2
    finally:
        del os.environ["SLURM_RESTART_COUNT"]


# ---- who may take a run ----------------------------------------------------------------------------------------------


@contextmanager
def held(folder: RunFolder) -> Iterator[None]:
    """The run's lock in other hands."""
    lock = Lock(folder.lock)
    assert lock.acquire() is Hold.MINE
    yield
    lock.release()


def changed_holder(folder: RunFolder, **changes: object) -> None:
    """Let the newest attempt say that another process holds it, and that it runs."""
    path = folder.attempts()[-1].path
    record = json.loads((path / "attempt.json").read_text())
    record["holder"] |= changes
    (path / "attempt.json").write_text(json.dumps(record))
    folder.attempts()[-1].set_status("running", step=20, target_step=30)


def is_free(folder: RunFolder) -> bool:
    with Claim(folder) as claim:
        return claim.is_free


def test_a_held_lock_is_busy_and_a_free_one_is_not(begun: RunFolder) -> None:
    changed_holder(begun)
    with held(begun):
        assert not is_free(begun)
        assert begun.status()["state"] == "running"
    assert is_free(begun)
    assert begun.status()["state"] == "interrupted"


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_that_outlives_its_process_is_replaced(begun: RunFolder, undisturbed: bytes, data_root: Path) -> None:
    changed_holder(begun, pid=dead_pid())
    with held(begun):
        assert begun.status()["state"] == "interrupted"
        with Claim(begun) as claim:
            assert claim.begin(SCIENCE) is not None
            assert not is_free(begun), "the new lock is held like the old one"
        assert go_on(begun, data_root) == "done"
    assert result(begun) == undisturbed


def test_a_process_id_given_away_again_is_another_process(begun: RunFolder) -> None:
    changed_holder(begun, pid=os.getppid(), birth=1)
    with held(begun):
        assert is_free(begun)


@pytest.mark.parametrize(
    ("job", "restart", "free"), [("7", "1", True), ("7", "0", False), ("7", None, False), ("8", "1", False)]
)
def test_a_requeued_slurm_job_takes_its_run_from_whoever_holds_it(
    job: str, restart: str | None, free: bool, begun: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_holder(begun, host="elsewhere", slurm_job="7", slurm_restart=0)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    if restart is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restart)
    with held(begun):
        assert is_free(begun) is free


def test_an_array_element_is_its_array_and_task(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job id of an array's element is its own; after a requeue array and task are what it keeps."""
    changed_holder(begun, host="elsewhere", slurm_job="7_3", slurm_restart=1)
    for name, value in {"JOB_ID": "99", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3", "RESTART_COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with held(begun):
        assert is_free(begun)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
        assert not is_free(begun)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_holder_elsewhere_lives_while_it_is_heard_of(
    number: int, begun: RunFolder, undisturbed: bytes, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(stream: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert is_free(begun), "its own status says that it ended"
    changed_holder(begun, host="elsewhere")
    assert begun.status()["state"] == "running"
    assert go_on(begun, data_root) == "busy"
    then = time.time() - STALE_SECONDS - 1
    for path in (begun.attempts()[0].path, *begun.attempts()[0].path.glob("*.json*")):
        os.utime(path, (then, then))
    assert begun.status()["state"] == "interrupted"
    begun.attempts()[0].beat()
    assert go_on(begun, data_root) == "busy"
    os.utime(begun.attempts()[0].path / "status.json", (then, then))
    assert go_on(begun, data_root) == "done"
    assert result(begun) == undisturbed


def test_without_locks_a_process_here_lives_while_it_does(begun: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(stream: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        birth = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
        changed_holder(begun, pid=process.pid, birth=birth)
        assert not is_free(begun)
        process.communicate(b"\n")
    assert is_free(begun)


# ---- real processes --------------------------------------------------------------------------------------------------


def test_of_processes_that_start_at_one_moment_exactly_one_trains(tmp_path: Path, data_root: Path) -> None:
    runs = tmp_path / "runs"
    processes = [Contender(runs, data_root, TARGET, 100.0) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(process.end() for process in processes) == ["busy", "busy", "busy", "done"]
    folder = Store(runs).folder(SCIENCE)
    assert [attempt.number for attempt in folder.attempts()] == [1]
    lines = folder.attempts()[0].journal.path.read_text().splitlines()
    assert sum('"kind": "train"' in line for line in lines) == TARGET // PLACEMENT.log_steps


@pytest.mark.parametrize("checkpoint_seconds", [0.01, 1000.0], ids=["at a checkpoint", "at its end"])
def test_a_process_that_wakes_after_its_run_was_requeued_harms_nothing(
    checkpoint_seconds: float, tmp_path: Path, data_root: Path
) -> None:
    """Its node was given up while it stood still (SIGSTOP); it still holds the lock, and writes on when it wakes."""
    runs = tmp_path / "runs"
    folder = Store(runs).folder(SCIENCE)
    zombie = Contender(runs, data_root, TARGET, checkpoint_seconds, JOB_ID="7")
    requeued_job = Contender(runs, data_root, TARGET, 100.0, JOB_ID="7", RESTART_COUNT="1")
    zombie.start()
    while len(folder.journal.rows("train")) < 10:
        time.sleep(0.005)
    zombie.signal(signal.SIGSTOP)
    requeued_job.start()
    assert requeued_job.end() == "done"
    old, new = folder.attempts()
    before = contents(folder.path, old.path)
    at_take_over = new.record().fences[1]
    zombie.signal(signal.SIGCONT)
    assert zombie.end() == "superseded"
    assert contents(folder.path, old.path) == before
    assert old.status()["state"] == "superseded"
    if checkpoint_seconds == 1000.0:  # it trained on to its end, and nothing of that is read
        assert old.journal.path.stat().st_size > at_take_over
    _, whole = train(SCIENCE, (10, TARGET), tmp_path / "whole", data_root)
    assert result(folder) == result(whole)
