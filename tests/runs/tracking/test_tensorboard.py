"""tracking=tensorboard: event files that hold the journal's scalars once, whatever interrupts a run."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from structlin.anatomy.ledger import ledger
from structlin.runs.store import RunFolder
from structlin.runs.tracking import events, mirror, tensorboard
from tests.runs.tracking.test_mirror import no_key
from tests.runs.tracking.test_wandb import stop_at
from tests.tiny import PLACEMENT, tiny, train

__all__ = ["no_key"]
BOARD = replace(PLACEMENT, tracking="tensorboard")
# Written by tensorboard 2.21's own writer: tag "eval/val_loss", step 300, value 2.5, wall time 1.0.
KNOWN = bytes.fromhex("09000000000000f03f10ac022a160a140a0d6576616c2f76616c5f6c6f73731500002040")


def scalars(folder: RunFolder) -> list[tuple[str, int, float]]:
    """(tag, step, value) of all events of a run, by the library's own layout of single scalars."""
    found = []
    for path in tensorboard.files_of(folder):
        for event in list(events.events(path))[1:]:
            place = 10
            step, place = varint(event, place)
            assert event[place] == 0x2A
            _, place = varint(event, place + 1)
            while place < len(event):
                _, place = varint(event, place + 1)
                length, start = varint(event, place + 1)
                tag, place = event[start : start + length].decode(), start + length
                assert event[place] == 0x15
                found.append((tag, step, struct.unpack_from("<f", event, place + 1)[0]))
                place += 5
    return found


def varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place


def test_a_scalar_is_written_as_by_the_library() -> None:
    assert events.scalars_event(1.0, 300, {"eval/val_loss": 2.5}) == KNOWN


def test_sums_are_those_of_castagnoli() -> None:
    # RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8a9136aa (least byte first aa36918a).
    crc = 0x8A9136AA
    assert events.masked(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_a_broken_record_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "e"
    good = events.record(events.version_event(0.0))
    path.write_bytes(good + good[: len(good) - 2])
    assert len(list(events.events(path))) == 1
    path.write_bytes(good[:20] + bytes([good[20] ^ 1]) + good[21:])
    with pytest.raises(ValueError, match="broken"):
        list(events.events(path))


@pytest.mark.parametrize("stops", [(99,), (4, 5, 99)])
def test_every_row_stands_there_once(stops: tuple[int, ...], tmp_path: Path, data_root: Path) -> None:
    for count in stops:
        state, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=BOARD, should_stop=stop_at(count))
    assert state == "done"
    assert len(tensorboard.files_of(folder)) == 1
    found = scalars(folder)
    losses = [(step, value) for tag, step, value in found if tag == "eval/val_loss"]
    evaluations = folder.journal.evaluations()
    assert losses == [(row["step"], pytest.approx(row["val_loss"], rel=1e-6)) for row in evaluations]
    macs = ledger(tiny()).macs_per_token
    over = {
        tag: [step for name, step, _ in found if name == tag] for tag in ("over_flops/val_loss", "over_tokens/val_loss")
    }
    assert over["over_tokens/val_loss"] == [row["tokens"] for row in evaluations]
    assert over["over_flops/val_loss"] == [round(6 * macs * row["tokens"] / 1e9) for row in evaluations]


def test_the_result_is_the_same(tmp_path: Path, data_root: Path) -> None:
    _, mirrored = train(tiny(), (5, 10), tmp_path / "mirrored", data_root, placement=BOARD)
    _, alone = train(tiny(), (5, 10), tmp_path / "alone", data_root)
    assert (mirrored.path / "result.json").read_bytes() == (alone.path / "result.json").read_bytes()


def test_a_disk_that_fails_or_hangs_costs_a_line(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard, "scalars_event", full)
    state, _ = train(tiny(), (5, 10), tmp_path / "full", data_root, placement=BOARD)
    assert state == "done"
    assert "TensorBoard log failed, training does not" in capsys.readouterr().err
    monkeypatch.setattr(tensorboard, "scalars_event", lambda *_: __import__("time").sleep(60))
    monkeypatch.setattr(mirror, "CLOSE_SECONDS", 0.5)
    state, _ = train(tiny(), (5, 10), tmp_path / "hangs", data_root, placement=BOARD)
    assert state == "done"
    assert "TensorBoard finish failed" in capsys.readouterr().err


def test_the_librarys_reader_reads_it(tmp_path: Path, data_root: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=BOARD)
    (path,) = tensorboard.files_of(folder)
    found = reader.EventAccumulator(str(path.parent))
    found.Reload()
    assert [one.step for one in found.Scalars("eval/val_loss")] == [5, 10]
    assert "over_flops/val_loss" in found.Tags()["scalars"]
