"""A packed store is read as if it were not, has few files, and can be trained further."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench import reconcile as bench
from structlin.errors import UserError
from structlin.host.passed_over import forget_passed_over
from structlin.launch.reconcile import reconcile
from structlin.runs import archive, pack, table
from structlin.runs.job import Job
from structlin.runs.store import Store
from tests.tiny import tiny, train

JOBS = bench.jobs_of(8)
SCIENCE = tiny()


def age(folder: Path) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Six runs that are done, one that was interrupted, and one that is missing."""
    forget_passed_over()
    bench.write_store(tmp_path, JOBS, 6, 1)
    age(tmp_path)
    return tmp_path


def test_everything_reads_alike(runs: Path) -> None:
    before, states = table.load(runs), reconcile(JOBS, Store(runs))
    files = sum(1 for _ in runs.rglob("*"))
    number, fewer = pack.pack_store(runs, 0.5)
    assert number == 6
    assert sum(1 for _ in runs.rglob("*")) == files - fewer
    assert fewer == 6 * 11
    again = reconcile(JOBS, Store(runs))
    assert [(one.state, one.step) for one in again] == [(one.state, one.step) for one in states]
    (runs / "table-cache.parquet").unlink()
    pd.testing.assert_frame_equal(table.load(runs), before)
    pd.testing.assert_frame_equal(table.load(runs), before)
    assert {len(folder.provenance()) for folder in Store(runs).folders()} == {1}


def test_packing_twice_packs_nothing_and_undoing_restores_every_byte(runs: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in runs.rglob("*") if path.is_file() and path.name != "lock")
        return {str(path.relative_to(runs)): path.read_bytes() for path in files}

    before = contents()
    assert pack.pack_store(runs, 0.5)[0] == 6
    assert pack.pack_store(runs, 0.5) == (0, 0)
    assert pack.unpack_store(runs) == 6
    assert contents() == before


def test_what_is_young_or_not_finished_or_held_stays(runs: Path) -> None:
    assert pack.pack_store(runs, 1e5)[0] == 0
    from structlin.host.locks import Lock

    lock = Lock(Store(runs).folder(JOBS[0].science).lock)
    lock.acquire()
    assert pack.pack_store(runs, 0.5)[0] == 5
    lock.release()
    assert (runs / JOBS[6].run_id).is_dir()


def test_a_packed_run_is_trained_further_and_its_trunk_serves_a_branch(tmp_path: Path, data_root: Path) -> None:
    _, whole = train(SCIENCE, (10, 20, 30), tmp_path / "whole", data_root)
    _, folder = train(SCIENCE, (10, 20), tmp_path / "runs", data_root)
    age(folder.path)
    assert pack.pack_store(tmp_path / "runs", 0.5)[0] == 1
    assert not folder.path.exists()
    job = Job(SCIENCE, (10, 20))
    assert reconcile([job], Store(tmp_path / "runs"))[0].state == "done"
    assert train(SCIENCE, (10, 20), tmp_path / "runs", data_root)[0] == "done"
    assert not folder.path.exists()
    assert train(SCIENCE, (10, 20, 30), tmp_path / "runs", data_root)[0] == "done"
    assert (folder.path / "result.json").read_bytes() == (whole.path / "result.json").read_bytes()
    assert folder.attempts()[-1].record().resumed_step == 20
    assert not archive.archive_of(folder.path).exists()


@pytest.mark.parametrize("where", [0.2, 0.6])
def test_a_changed_archive_is_named_and_trained_from_no_more(where: float, runs: Path, capsys) -> None:
    pack.pack_store(runs, 0.5)
    place = archive.archive_of(runs / JOBS[0].run_id)
    content = bytearray(place.read_bytes())
    content[int(where * len(content))] ^= 4
    place.write_bytes(content)
    with pytest.raises(UserError, match=place.name):
        archive.unpack(runs / JOBS[0].run_id)
    assert place.exists()
    assert not (runs / JOBS[0].run_id).exists()


def test_an_archive_that_is_none_is_named_and_the_others_count(runs: Path, capsys) -> None:
    pack.pack_store(runs, 0.5)
    archive.archive_of(runs / JOBS[0].run_id).write_bytes(b"cut short")
    assert table.load(runs)["run_id"].nunique() == 6
    assert JOBS[0].run_id in capsys.readouterr().err
    assert reconcile(JOBS[:1], Store(runs))[0].state != "done"


def test_a_killed_packing_leaves_the_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*anything: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", refuse)
    forget_passed_over()
    assert pack.pack_store(runs, 0.5) == (0, 0)
    assert len(list(runs.glob("*.zip"))) == 0
    assert len(table.load(runs)["run_id"].unique()) == 7


def test_wandbs_files_of_a_packed_run_are_found_by_its_completion(runs: Path) -> None:
    from structlin.host.files import write_json
    from structlin.runs.tracking.sync import mirrored

    target = runs / JOBS[0].run_id / "wandb" / "1" / "target.json"
    write_json(target, {"project": "p", "group": "g"})
    age(runs)
    before = [run.run_id for run in mirrored(runs)[0]]
    assert pack.pack_store(runs, 0.5)[0] == 6
    assert [run.run_id for run in mirrored(runs)[0]] == before
    assert before == [JOBS[0].run_id]
