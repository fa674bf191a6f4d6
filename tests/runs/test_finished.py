"""What was found done is not opened again, and never believed once a file of it has changed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import reconcile as bench
from structlin.host.passed_over import forget_passed_over
from structlin.launch.reconcile import look_over, reconcile
from structlin.runs import archive, finished
from structlin.runs.attempt import Attempt
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store

JOBS = bench.jobs_of(8)
DONE, UNFINISHED = 5, 2


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of five done runs, two interrupted and one missing, old enough to be kept, looked over once."""
    forget_passed_over()
    monkeypatch.setattr(finished, "WORTH", 1)
    bench.write_store(tmp_path, JOBS, DONE, UNFINISHED)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1e9, 1e9))
    first = look_over(JOBS, Store(tmp_path))
    assert [one.mixed for one in first] == [False] * DONE + [None] * 3
    return tmp_path


def seen(runs: Path, jobs: list[Job] = JOBS) -> list[tuple[str, int, Path]]:
    return [(one.state, one.step, one.folder.path) for one in look_over(jobs, Store(runs))]


def opened(runs: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs that a look opens."""
    found: list[str] = []
    whole = archive.read_bytes

    def read(path: Path, run: Path) -> bytes:
        found.append(run.name)
        return whole(path, run)

    monkeypatch.setattr(archive, "read_bytes", read)
    look_over(JOBS, Store(runs))
    return sorted(set(found))


def truth(runs: Path, jobs: list[Job] = JOBS) -> list[tuple[str, int, Path]]:
    return [(one.state, one.step, one.folder.path) for one in reconcile(jobs, Store(runs))]


def test_a_second_look_opens_what_is_not_done_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(runs) == truth(runs)
    assert opened(runs, monkeypatch) == sorted(job.run_id for job in JOBS[DONE : DONE + UNFINISHED])


def remove(run: RunFolder) -> None:
    (run.path / "result.json").unlink()


def change_a_digit(run: RunFolder) -> None:
    path = run.path / "result.json"
    path.write_text(path.read_text().replace("3.01", "3.02", 1))


def begin_again(run: RunFolder) -> None:
    attempt = Attempt(run.attempts_path / "2")
    attempt.path.mkdir()
    attempt.begin(run.attempts()[:1])
    attempt.set_provenance({**bench.PROVENANCE, "code_hash": "another"})
    attempt.set_status("interrupted", step=1, target_step=6000)


def pack(run: RunFolder) -> None:
    archive.pack(run.path)


CHANGES = [remove, change_a_digit, begin_again, pack]


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_that_has_changed_is_opened_again(
    change: Callable[[RunFolder], None], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(RunFolder(runs / JOBS[1].run_id))
    assert seen(runs) == truth(runs)
    states = {"remove": "missing", "change_a_digit": "missing"}
    assert seen(runs)[1][0] == states.get(change.__name__, "done")
    assert look_over(JOBS, Store(runs))[1].mixed is (None if change.__name__ in states else change is begin_again)
    if change is pack:
        archive.unpack(runs / JOBS[1].run_id)
        assert seen(runs) == truth(runs)


def test_more_steps_than_were_done_are_not_done(runs: Path) -> None:
    longer = [Job(job.science, (*job.evaluations, 6000)) for job in JOBS]
    assert seen(runs, longer) == truth(runs, longer)
    assert "done" not in {state for state, _, _ in seen(runs, longer)}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"form": 0, "steps": [], "runs": []}', '{"form": 1, "runs": [[1]]}'])
def test_a_file_that_is_broken_or_older_is_as_good_as_none(text: str, runs: Path) -> None:
    (runs / finished.FILE).write_text(text)
    assert seen(runs) == truth(runs)
    assert len(json.loads((runs / finished.FILE).read_text())["runs"]) == DONE


def test_a_store_that_cannot_be_written_is_looked_over_all_the_same(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / finished.FILE).unlink()

    def refuse(*rest: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(finished, "write_atomically", refuse)
    assert seen(runs) == truth(runs)


def test_a_file_that_has_just_changed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "WORTH", 1)
    monkeypatch.setattr(finished, "SETTLING_SECONDS", 1e6)
    bench.write_store(tmp_path, JOBS, DONE, UNFINISHED)
    look_over(JOBS, Store(tmp_path))
    assert not (tmp_path / finished.FILE).exists()


def test_one_attempt_is_told_by_links_where_the_file_system_counts_them(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(runs / JOBS[0].run_id)
    assert run.has_one_attempt == (os.stat(run.attempts_path).st_nlink == 3)
    begin_again(run)
    assert not run.has_one_attempt
    assert not RunFolder(runs / JOBS[-1].run_id).has_one_attempt  # it was never begun
    # Where folders are not counted the attempts are listed, and the answer is the same.
    (runs / finished.FILE).unlink()
    monkeypatch.setattr(RunFolder, "has_one_attempt", False)
    assert [one.mixed for one in look_over(JOBS, Store(runs))][:2] == [True, False]
