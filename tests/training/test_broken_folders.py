"""Whatever happened to a run folder, the same command ends in the undisturbed result and loses nothing."""

import errno
import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structlin.errors import UserError
from structlin.host.files import write_json
from structlin.runs import attempt as attempts
from structlin.runs import table
from structlin.runs.claim import Claim
from structlin.runs.journal import Journal
from structlin.runs.store import Store
from tests.schemas import stored_by
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
    write_json(old / "config.json", stored_by(3, SCIENCE))
    assert Store(old.parent).folder(SCIENCE).path == old


def test_a_changed_config_is_no_other_runs_and_named(begun, data_root: Path, capsys) -> None:
    """Its numbers are those of the run that the folder is named by: nobody else may find them as his own."""
    config = json.loads((begun.path / "config.json").read_text())
    write_json(begun.path / "config.json", config | {"seed": 1})
    assert Store(begun.path.parent).folder(replace(SCIENCE, seed=1)).path != begun.path
    assert table.load(begun.path.parent).empty
    assert "not of " + begun.run_id in capsys.readouterr().err


# ---- what a disk has changed -----------------------------------------------------------------------------------------


def flip(path: Path, where: float) -> None:
    """Change one bit of the byte at a share of a file's length."""
    content = bytearray(path.read_bytes())
    content[min(len(content) - 1, int(where * len(content)))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("where", [0.0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_bit_flipped_in_a_checkpoint_is_never_trained_on(
    where: float, begun, undisturbed: bytes, data_root: Path, capsys
) -> None:
    flip(begun.checkpoints[20], where)
    assert finish(begun, data_root) == undisturbed
    assert "cannot use step-00000020.pt" in capsys.readouterr().out
    assert begun.attempts()[-1].record().resumed_step == 0


def test_a_checkpoint_of_another_step_than_its_name_is_not_used(begun, undisturbed: bytes, data_root: Path) -> None:
    path = begun.checkpoints[20]
    path.rename(path.with_name("step-00000019.pt"))
    assert finish(begun, data_root) == undisturbed
    assert begun.attempts()[-1].record().resumed_step == 0


def without_checksum(path: Path) -> None:
    """As older versions wrote it."""
    state = torch.load(io.BytesIO(path.read_bytes().partition(b"\n")[2]), weights_only=True)
    torch.save(state, path)


def test_an_older_checkpoint_is_believed_with_a_word_unless_a_bit_has_changed(
    begun, undisturbed: bytes, data_root: Path, capsys
) -> None:
    without_checksum(begun.checkpoints[20])
    assert finish(begun, data_root) == undisturbed
    assert "step-00000020.pt was written without a checksum" in capsys.readouterr().out
    assert begun.attempts()[-1].record().resumed_step == 20


@pytest.mark.parametrize("where", [0.3, 0.5, 0.7])
def test_a_bit_flipped_in_an_older_checkpoint_is_told_by_the_zip_format(
    where: float, begun, undisturbed: bytes, data_root: Path
) -> None:
    without_checksum(begun.checkpoints[20])
    flip(begun.checkpoints[20], where)
    assert finish(begun, data_root) == undisturbed
    assert begun.attempts()[-1].record().resumed_step == 0


def change_a_digit(path: Path, before: str) -> None:
    """Another last digit of the first number behind a word."""
    text = path.read_text()
    end = re.compile(r"[,\n}]").search(text, text.index(before) + len(before)).start()
    path.write_text(f"{text[: end - 1]}{(int(text[end - 1]) + 1) % 10}{text[end:]}")


@pytest.mark.parametrize("what", ['"val_loss": ', '"step": ', '"tokens": '])
def test_a_digit_changed_in_a_journal_is_no_number_of_the_run(what: str, begun, undisturbed: bytes, data_root) -> None:
    (begun.path / "result.json").unlink()
    path = begun.attempts()[-1].journal.path
    lines = path.read_text().splitlines(keepends=True)
    first = next(index for index, line in enumerate(lines) if '"eval"' in line)
    path.write_text(lines[first])
    change_a_digit(path, what)
    path.write_text("".join([*lines[:first], path.read_text(), *lines[first + 1 :]]))
    assert begun.journal.torn_lines() == 1
    assert [row["step"] for row in begun.journal.evaluations()] == [20]
    assert finish(begun, data_root) == undisturbed


@pytest.mark.parametrize("what", ['"val_loss": ', '"training_flops": ', '"tokens": '])
def test_a_digit_changed_in_a_result_is_found_and_named(what: str, begun, data_root: Path, capsys) -> None:
    whole = (begun.path / "result.json").read_bytes()
    change_a_digit(begun.path / "result.json", what)
    assert begun.result() is None
    assert f"passed over: {begun.path / 'result.json'}: has changed" in capsys.readouterr().err
    assert train(SCIENCE, (10, 20), begun.path.parent, data_root)[0] == "done"
    assert (begun.path / "result.json").read_bytes() == whole


def test_a_result_without_a_digest_stays_readable(begun) -> None:
    path = begun.path / "result.json"
    result = json.loads(path.read_text())
    for key in ("digest", "checksum"):
        del result[key]
    path.write_text(json.dumps(result, indent=1))
    assert begun.has_published((10, 20))


def test_a_digest_is_of_the_numbers_alone(begun, tmp_path: Path, data_root: Path) -> None:
    digest = begun.result()["digest"]
    numbers = [[row["step"], row["tokens"], row["val_loss"]] for row in begun.journal.evaluations()]
    assert digest == hashlib.sha256(json.dumps(numbers, separators=(",", ":")).encode()).hexdigest()
    _, other = train(replace(SCIENCE, seed=1), (10, 20), tmp_path / "other", data_root)
    assert other.result()["digest"] != digest


def test_a_reason_that_can_nowhere_be_written_is_told(begun, data_root: Path, monkeypatch) -> None:
    """The store and the log of the worker lie on one full disk."""

    def full(*anything: object, **named: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    told: list[str] = []
    monkeypatch.setattr(attempts, "write_json", full)
    monkeypatch.setattr("builtins.print", full)
    state, _ = train(SCIENCE, (10, 20, 30), begun.path.parent, data_root, tell=told.append)
    assert state == "failed"
    assert told == [f"storage: Disk quota exceeded of {begun.path}; mend it and run the same command again"]
