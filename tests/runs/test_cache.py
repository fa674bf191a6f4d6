"""A store is read once: what has not changed since comes from the cache, what has is read again, and both are equal."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench import reconcile as bench
from structlin.host.passed_over import forget_passed_over
from structlin.runs import cache, table
from structlin.runs.store import RunFolder
from tests.tiny import tiny, train

JOBS = bench.jobs_of(12)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Ten runs that are done and two that were interrupted, all of them some time ago."""
    forget_passed_over()
    bench.write_store(tmp_path, JOBS, 10, 2)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    return tmp_path


def opened(runs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, list[str]]:
    """The table, and the runs whose config was read for it."""
    names: list[str] = []
    whole = RunFolder._config

    def config(self: RunFolder):
        names.append(self.run_id)
        return whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_config", config)
        return table.load(runs), names


def test_the_second_reading_opens_no_run_that_is_settled(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, read_first = opened(runs, monkeypatch)
    second, read_second = opened(runs, monkeypatch)
    pd.testing.assert_frame_equal(first, second)
    assert sorted(read_first) == sorted(job.run_id for job in JOBS)
    # The last word of the other two is that they run: whether they do is asked again.
    assert sorted(read_second) == sorted(job.run_id for job in JOBS[10:])


def test_a_run_of_two_kinds_of_models_reads_alike(tmp_path: Path, data_root: Path, monkeypatch) -> None:
    for science in (tiny("dense"), tiny("btt"), tiny("btt", 32)):
        train(science, (2, 4), tmp_path, data_root)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    first, _ = opened(tmp_path, monkeypatch)
    second, read_again = opened(tmp_path, monkeypatch)
    assert read_again == []
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize("name", ["result.json", "attempts/1/provenance.json", "attempts/1/status.json"])
def test_a_file_of_another_time_or_size_is_read_again(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.load(runs)
    path = runs / JOBS[3].run_id / name
    path.write_text(path.read_text() + " ")
    os.utime(path, (1.7e9, 1.7e9))
    assert JOBS[3].run_id in opened(runs, monkeypatch)[1]
    os.utime(path, (1.7e9 + 1, 1.7e9 + 1))
    assert JOBS[3].run_id in opened(runs, monkeypatch)[1]
    assert JOBS[3].run_id not in opened(runs, monkeypatch)[1]


def test_runs_that_are_gone_are_gone(runs: Path) -> None:
    table.load(runs)
    shutil.rmtree(runs / JOBS[0].run_id)
    assert JOBS[0].run_id not in set(table.load(runs)["run_id"])
    assert JOBS[0].run_id not in cache.read(runs)


@pytest.mark.parametrize(
    "harm", [lambda path: path.write_bytes(b"PAR1"), Path.unlink, lambda path: path.write_text("")]
)
def test_a_broken_cache_is_made_anew(harm, runs: Path) -> None:
    first = table.load(runs)
    harm(runs / cache.FILE)
    pd.testing.assert_frame_equal(table.load(runs), first)
    assert len(cache.read(runs)) == 10


def test_other_code_reads_for_itself(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table.load(runs)
    monkeypatch.setattr(cache, "own_hash", lambda: "another")
    assert cache.read(runs) == {}


def test_a_store_that_cannot_be_written_is_read(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(cache, "write_atomically", refuse)
    assert len(table.load(runs)) == 10 * len(bench.EVALUATIONS) + 2 * 20
    assert not (runs / cache.FILE).exists()


def test_what_changes_at_this_moment_is_not_kept(runs: Path) -> None:
    path = runs / JOBS[0].run_id / "result.json"
    path.write_text(path.read_text())
    table.load(runs)
    assert JOBS[0].run_id not in cache.read(runs)
