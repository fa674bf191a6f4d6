"""Whatever happened to a run folder, the same command ends in the undisturbed result and loses nothing."""

import errno
import json
from pathlib import Path

import pytest
import torch

from structlin.errors import UserError
from structlin.runs import table
from structlin.runs.claim import Claim
from structlin.runs.journal import Journal
from structlin.runs.store import Store
from tests.tiny import tiny, train

SCIENCE = tiny()
OWN_FILES = ["attempts/1/attempt.json", "attempts/1/status.json", "attempts/1/provenance.json"]


@pytest.fixture
def undisturbed(tmp_path: Path, data_root: Path) -> bytes:
    _, folder = train(SCIENCE, (10, 20, 30), tmp_path / "undisturbed", data_root)
    return (folder.path / "result.json").read_bytes()


@pytest.fixture
def begun(tmp_path: Path, data_root: Path):
    """A run trained to step 20 of 30."""
    _, folder = train(SCIENCE, (10, 20), tmp_path / "runs", data_root)
    return folder


def finish(folder, data_root: Path) -> bytes:
    state, folder = train(SCIENCE, (10, 20, 30), folder.path.parent, data_root)
    assert state == "done"
    return (folder.path / "result.json").read_bytes()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", ["config.json", "result.json", *OWN_FILES])
def test_truncated_json(name: str, begun, undisturbed: bytes, data_root: Path) -> None:
    truncate(begun.path / name)
    assert finish(begun, data_root) == undisturbed


@pytest.mark.parametrize("name", OWN_FILES)
def test_truncated_json_of_each_of_two_attempts(name: str, begun, undisturbed: bytes, data_root: Path) -> None:
    train(SCIENCE, (10, 20, 25), begun.path.parent, data_root)
    for attempt in begun.attempts():
        truncate(attempt.path / Path(name).name)
    state, _ = train(SCIENCE, (10, 20, 25, 30), begun.path.parent, data_root)
    _, whole = train(SCIENCE, (10, 20, 25, 30), begun.path.parent / "whole", data_root)
    assert state == "done"
    assert (begun.path / "result.json").read_bytes() == (whole.path / "result.json").read_bytes()


def test_a_broken_config_is_put_aside_not_lost(begun, data_root: Path) -> None:
    truncate(begun.path / "config.json")
    finish(begun, data_root)
    assert list(begun.path.glob("config.json.broken-*"))


def test_torn_journal_line(begun, undisturbed: bytes, data_root: Path) -> None:
    with begun.attempts()[-1].journal.path.open("a") as stream:
        stream.write('{"kind": "eval", "step": 25, "val_l')
    assert finish(begun, data_root) == undisturbed
    assert begun.journal.torn_lines() == 1


@pytest.mark.parametrize("harm", [Path.unlink, truncate, lambda path: path.write_bytes(b"not a checkpoint")])
def test_missing_or_torn_checkpoint(harm, begun, undisturbed: bytes, data_root: Path) -> None:
    for path in begun.checkpoints.values():
        harm(path)
    assert finish(begun, data_root) == undisturbed


def test_a_checkpoint_of_another_model_is_not_used(begun, undisturbed: bytes, data_root: Path, tmp_path: Path) -> None:
    _, other = train(tiny(d_model=32), (20,), tmp_path / "other", data_root)
    begun.checkpoints[20].write_bytes(other.checkpoints[20].read_bytes())
    assert finish(begun, data_root) == undisturbed


def test_full_disk_of_the_journal(begun, undisturbed: bytes, data_root: Path, monkeypatch) -> None:
    """/dev/full answers every write with the real ENOSPC."""

    def full(journal: Journal, row) -> None:
        with open("/dev/full", "wb", buffering=0) as stream:
            stream.write(b"row")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        state, _ = train(SCIENCE, (10, 20, 30), begun.path.parent, data_root)
    assert state == "failed"
    assert "no space left" in begun.status()["reason"]
    assert finish(begun, data_root) == undisturbed


def test_full_disk_of_a_checkpoint(begun, undisturbed: bytes, data_root: Path, monkeypatch) -> None:
    before = {step: path.read_bytes() for step, path in begun.checkpoints.items()}

    def full(state, stream) -> None:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        state, _ = train(SCIENCE, (10, 20, 30), begun.path.parent, data_root)
    assert state == "failed"
    assert "no space left" in begun.status()["reason"]
    assert {step: path.read_bytes() for step, path in begun.checkpoints.items()} == before
    assert not list(begun.path.glob("attempts/*/checkpoints/.*"))
    assert finish(begun, data_root) == undisturbed


def test_foreign_files_are_left_alone(begun, data_root: Path, capsys) -> None:
    runs = begun.path.parent
    (runs / "notes.txt").write_text("mine")
    (runs / "0123456789abcdef").mkdir()
    (runs / "0123456789abcdef" / "something").write_text("not a run")
    (begun.path / "thumbs.db").write_bytes(b"\0")
    finish(begun, data_root)
    assert table.load(runs)["run_id"].unique().tolist() == [begun.run_id]
    assert (runs / "notes.txt").read_text() == "mine"


def test_the_table_names_a_broken_run_and_reads_the_others(begun, data_root: Path, capsys) -> None:
    other = tiny("dense")
    _, whole = train(other, (10,), begun.path.parent, data_root)
    truncate(begun.path / "config.json")
    assert table.load(begun.path.parent)["run_id"].unique().tolist() == [whole.run_id]
    assert str(begun.path / "config.json") in capsys.readouterr().err


def test_other_data_is_refused(begun, data_root: Path) -> None:
    path = begun.path / "attempts" / "1" / "provenance.json"
    record = json.loads(path.read_text())
    record["data_manifest"] = "0" * 64
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="other data"):
        train(SCIENCE, (10, 20, 30), begun.path.parent, data_root)
    assert begun.journal.evaluations()


def test_data_not_prepared_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not prepared .*python -m structlin.data data=sotu"):
        train(SCIENCE, (10,), tmp_path / "runs", tmp_path / "nowhere")


def test_two_processes_never_train_one_run(begun, data_root: Path) -> None:
    with Claim(begun) as claim:
        assert claim.is_free
        assert begun.status()["state"] == "done"
        state, _ = train(SCIENCE, (10, 20, 30), begun.path.parent, data_root)
        assert state == "busy"


def test_a_run_of_an_older_id_is_found_through_its_config(begun) -> None:
    old = begun.path.with_name("f" * 16)
    begun.path.rename(old)
    assert Store(old.parent).folder(SCIENCE).path == old
