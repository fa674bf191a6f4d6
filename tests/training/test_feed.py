"""Batches that are read ahead are the batches of their steps, and so are their errors."""

import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from structlin.errors import UserError
from structlin.tasks.language import LanguageTask
from structlin.tasks.protocol import Batch
from structlin.training import loop
from structlin.training.feed import Read, batches, read_ahead
from tests.tiny import tiny, train
from tests.training.test_exactness import assert_same_state, result

CPU = torch.device("cpu")


def batch_of(step: int) -> Batch:
    return torch.full((2,), step), torch.full((2,), -step)


def numbers(read: Read, steps: range) -> list[int]:
    return [int(read(step)[0][0]) for step in steps]


def test_every_step_gets_its_own_batch_and_none_is_read_beyond_the_end() -> None:
    asked: list[tuple[int, str]] = []

    def read(step: int) -> Batch:
        asked.append((step, threading.current_thread().name.partition("_")[0]))
        return batch_of(step)

    with read_ahead(read, 10) as ahead:
        assert numbers(ahead, range(4, 10)) == list(range(4, 10))
    assert [step for step, _ in asked] == list(range(4, 10))
    assert [thread for _, thread in asked] == ["MainThread", *["batches"] * 5]


def test_the_next_batch_is_read_while_a_step_trains() -> None:
    reading, trained = threading.Event(), threading.Event()

    def read(step: int) -> Batch:
        if step == 1:
            reading.set()
            assert trained.wait(10)
        return batch_of(step)

    with read_ahead(read, 2) as ahead:
        ahead(0)
        assert reading.wait(10)  # step 1 is being read, and we are free to train step 0
        trained.set()
        assert numbers(ahead, range(1, 2)) == [1]


def test_on_a_cpu_nothing_is_read_ahead() -> None:
    with batches(batch_of, CPU, 10) as read:
        assert read is batch_of


def test_what_reading_raises_is_raised_at_its_step() -> None:
    def read(step: int) -> Batch:
        if step == 3:
            raise UserError("step 3 lies beyond the data; make more")
        return batch_of(step)

    with read_ahead(read, 5) as ahead:
        assert numbers(ahead, range(3)) == [0, 1, 2]
        time.sleep(0.05)  # the failure has happened by now
        with pytest.raises(UserError, match="step 3 lies beyond the data"):
            ahead(3)


def test_an_interruption_does_not_wait_for_the_reader() -> None:
    held = threading.Event()

    def read(step: int) -> Batch:
        if step == 1:
            held.wait(10)
        return batch_of(step)

    def interrupted() -> None:
        with read_ahead(read, 5) as ahead:
            ahead(0)
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < 5
    held.set()


# ---- a run that reads ahead, as one on a GPU does --------------------------------------------------------------------


@pytest.fixture
def reading_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    def ahead(read: Read, device: torch.device, end: int, readers: int) -> AbstractContextManager[Read]:
        return read_ahead(read, end, readers)

    monkeypatch.setattr(loop, "batches", ahead)


def test_a_run_is_the_same_bit_by_bit_however_it_is_cut(reading_ahead, tmp_path: Path, data_root: Path) -> None:
    science = tiny()
    polls = iter(range(1000))
    state, cut = train(science, (20, 30), tmp_path / "cut", data_root, should_stop=lambda: next(polls) >= 13)
    assert state == "interrupted"
    assert list(cut.checkpoints) == [13]
    train(science, (20, 30), tmp_path / "cut", data_root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "batches", batches)
        _, whole = train(science, (20, 30), tmp_path / "whole", data_root)
    assert result(cut) == result(whole)
    assert_same_state(cut, whole, 30)


def test_a_failing_read_ends_a_run_at_its_step(
    reading_ahead, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LanguageTask.train_batch

    def failing(task: LanguageTask, step: int, *ranks: object) -> Batch:
        if step == 10:
            raise OSError(5, "Input/output error", "train-00000.bin")
        return read(task, step, *ranks)  # type: ignore[arg-type]

    monkeypatch.setattr(LanguageTask, "train_batch", failing)
    state, folder = train(tiny(), (10, 30), tmp_path, data_root)
    assert state == "failed"
    assert folder.status()["reason"] == (
        "storage: Input/output error of train-00000.bin; mend it and run the same command again"
    )
    assert [row["step"] for row in folder.journal.evaluations()] == [10]
    assert [row["step"] for row in folder.journal.rows("train")] == [5, 10]
