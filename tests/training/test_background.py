"""Checkpoints that are written beside the steps are those of their step, and their failures are not lost."""

import threading
from pathlib import Path

import pytest
import torch

from structlin.training import loop
from structlin.training.background import Background, may_run_beside, on_host
from tests.tiny import tiny, train
from tests.training.test_exactness import assert_same_state, result


def test_work_runs_beside_and_one_after_another() -> None:
    background, gate, order = Background(), threading.Event(), []

    def first() -> None:
        assert gate.wait(10)
        order.append(1)

    background.begin(first)
    order.append(0)
    gate.set()
    background.begin(lambda: order.append(2))
    background.wait()
    assert order == [0, 1, 2]


def test_what_work_raises_is_raised_once_when_it_is_waited_for() -> None:
    background = Background()

    def full() -> None:
        raise OSError(28, "No space left on device")

    background.begin(full)
    with pytest.raises(OSError, match="No space left"):
        background.wait()
    background.wait()


def test_a_state_on_the_host_is_not_changed_by_later_steps() -> None:
    weight = torch.ones(3)
    state = on_host({"model": {"w": weight}, "groups": [{"lr": 0.1, "params": [0]}], "step": 7})
    weight.zero_()
    assert state == {"model": {"w": state["model"]["w"]}, "groups": [{"lr": 0.1, "params": [0]}], "step": 7}
    assert state["model"]["w"].tolist() == [1, 1, 1]


def test_only_one_process_on_a_gpu_writes_beside_its_steps() -> None:
    assert may_run_beside(torch.device("cuda"), "none")
    assert not may_run_beside(torch.device("cpu"), "none")
    assert not may_run_beside(torch.device("cuda"), "ddp")


def test_a_run_that_saves_beside_its_steps_goes_on_exactly(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one on a GPU does: with a checkpoint after every step, cut and gone on with."""
    monkeypatch.setattr(loop, "may_run_beside", lambda *_: True)
    from dataclasses import replace

    from tests.tiny import PLACEMENT

    often = replace(PLACEMENT, checkpoint_seconds=1e-9)
    polls = iter(range(1000))
    state, cut = train(
        tiny(), (20,), tmp_path / "cut", data_root, placement=often, should_stop=lambda: next(polls) >= 13
    )
    assert state == "interrupted"
    assert list(cut.checkpoints) == [13]
    train(tiny(), (20,), tmp_path / "cut", data_root, placement=often)
    monkeypatch.undo()
    _, whole = train(tiny(), (20,), tmp_path / "whole", data_root)
    assert result(cut) == result(whole)
    assert_same_state(cut, whole, 20)
