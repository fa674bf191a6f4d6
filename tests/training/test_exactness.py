"""A run is a pure function of its Science and step: however it is cut, evaluated or resumed, its bits are the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from structlin.config.moe import MoeConfig
from structlin.training import checkpoint
from tests.tiny import PLACEMENT, tiny, train


def result(folder) -> bytes:
    return (folder.path / "result.json").read_bytes()


def tensors(folder, step: int) -> dict:
    state = checkpoint.read(folder.checkpoints[step])
    flat = dict(state["model"])
    for index, values in state["optimizer"]["state"].items():
        flat |= {f"{index}.{name}": value for name, value in values.items()}
    return flat


def assert_same_state(one, other, step: int) -> None:
    left, right = tensors(one, step), tensors(other, step)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# From width 64 on the fused kernels serve.
@pytest.mark.parametrize(
    ("structure", "width"),
    [("dense", 16), ("btt", 16), ("low_rank", 16), ("kronecker", 16), ("g2", 16), ("btt", 64), ("g2", 64)],
)
def test_training_2n_steps_is_training_n_and_resuming_n(
    structure: str, width: int, tmp_path: Path, data_root: Path
) -> None:
    science = tiny(structure, width)
    train(science, (20,), tmp_path / "cut", data_root)
    state, cut = train(science, (20, 40), tmp_path / "cut", data_root)
    _, whole = train(science, (20, 40), tmp_path / "whole", data_root)
    assert state == "done"
    assert result(cut) == result(whole)
    assert_same_state(cut, whole, 40)


@pytest.mark.parametrize("name", ["btt", "kernels", "btt-moe", "ffn-moe"])
def test_recomputation_changes_no_bit(name: str, tmp_path: Path, data_root: Path) -> None:
    """Evaluations between the steps, routers' records and checkpoints included; a run may begin without it."""
    science = {
        "btt": tiny(model=replace(tiny().model, num_layers=2)),
        "kernels": tiny("btt", 64),
        "btt-moe": tiny("dense", moe=MoeConfig("btt", num_experts=4)),
        "ffn-moe": tiny("btt", moe=MoeConfig("ffn", num_experts=4, layers="ffn")),
    }[name]
    again = replace(PLACEMENT, recompute=True)
    train(science, (7,), tmp_path / "again", data_root)
    _, recomputed = train(science, (7, 20), tmp_path / "again", data_root, placement=again)
    _, plain = train(science, (7, 20), tmp_path / "plain", data_root)
    assert [record["recompute"] for record in recomputed.provenance()] == [False, True]
    assert result(recomputed) == result(plain)
    assert_same_state(recomputed, plain, 20)
    left, right = (folder.journal.rows("router") for folder in (recomputed, plain))
    assert [row["usage"] for row in left] == [row["usage"] for row in right]


def test_the_second_half_was_not_trained_from_the_beginning(tmp_path: Path, data_root: Path) -> None:
    science = tiny()
    train(science, (20,), tmp_path, data_root)
    _, folder = train(science, (20, 40), tmp_path, data_root)
    lines = [line for attempt in folder.attempts() for line in attempt.journal.path.read_text().splitlines()]
    assert len(folder.attempts()) == 2
    assert sum('"kind": "train"' in line for line in lines) == 40 // PLACEMENT.log_steps


def test_evaluations_checkpoints_and_logging_do_not_change_training(tmp_path: Path, data_root: Path) -> None:
    science = tiny()
    often = replace(PLACEMENT, log_steps=1, checkpoint_seconds=1e-6)
    _, busy = train(science, tuple(range(31)), tmp_path / "busy", data_root, placement=often, checkpoints=(7, 9))
    _, quiet = train(science, (30,), tmp_path / "quiet", data_root)
    assert busy.journal.evaluations()[-1]["val_loss"] == quiet.journal.evaluations()[-1]["val_loss"]
    assert_same_state(busy, quiet, 30)
    assert {7, 9} <= set(busy.checkpoints)


def test_an_evaluation_asked_for_later_is_the_one_that_would_have_been(tmp_path: Path, data_root: Path) -> None:
    science = tiny()
    train(science, (30,), tmp_path / "later", data_root)
    state, later = train(science, (10, 30), tmp_path / "later", data_root)
    _, at_once = train(science, (10, 30), tmp_path / "at-once", data_root)
    assert state == "done"
    assert result(later) == result(at_once)


def test_an_interrupted_run_goes_on_bitwise(tmp_path: Path, data_root: Path) -> None:
    science = tiny()
    polls = iter(range(1000))
    state, folder = train(science, (30,), tmp_path / "a", data_root, should_stop=lambda: next(polls) >= 13)
    assert state == "interrupted"
    assert folder.status()["state"] == "interrupted"
    state, folder = train(science, (30,), tmp_path / "a", data_root)
    _, whole = train(science, (30,), tmp_path / "b", data_root)
    assert state == "done"
    assert result(folder) == result(whole)
    assert_same_state(folder, whole, 30)


def test_a_cooldown_from_its_trunk_is_a_cooldown_from_scratch(tmp_path: Path, data_root: Path) -> None:
    trunk = tiny()
    branch = trunk.scheduled("cooldown", 30)
    start = branch.schedule.cooldown_start
    train(trunk, (start,), tmp_path / "branched", data_root, checkpoints=(start,))
    _, branched = train(branch, (30,), tmp_path / "branched", data_root)
    _, scratch = train(branch, (30,), tmp_path / "scratch", data_root)
    assert result(branched) == result(scratch)
    assert min(row["step"] for row in branched.journal.rows("train")) > start
    assert min(row["step"] for row in scratch.journal.rows("train")) < start


def test_the_decay_reaches_the_optimizer(tmp_path: Path, data_root: Path) -> None:
    """Updates at the rate zero change nothing: past the horizon of a cooldown to 0 the loss stands still."""
    schedule = replace(tiny().schedule, kind="cooldown", horizon_steps=10, final=0.0, cooldown_fraction=0.5)
    _, cooled = train(tiny(schedule=schedule), (10, 11, 12), tmp_path, data_root)
    _, constant = train(tiny(), (10, 11, 12), tmp_path, data_root)
    assert len({row["val_loss"] for row in cooled.journal.evaluations()}) == 1
    assert len({row["val_loss"] for row in constant.journal.evaluations()}) == 3


def test_training_learns(tmp_path: Path, data_root: Path) -> None:
    _, folder = train(tiny(d_model=32), (0, 150), tmp_path, data_root)
    first, last = folder.journal.evaluations()
    assert first["val_loss"] == pytest.approx(torch.log(torch.tensor(96.0)).item(), abs=1e-5)
    assert last["val_loss"] < first["val_loss"] - 1.0


def test_divergence_ends_a_run_with_its_metrics(tmp_path: Path, data_root: Path) -> None:
    science = tiny("dense")
    science = replace(science, optim=replace(science.optim, lr=1e38))
    state, folder = train(science, (2, 40), tmp_path, data_root)
    assert state == "diverged"
    assert folder.status()["state"] == "diverged"
    assert "step" in folder.status()["reason"]
    assert all(row["val_loss"] is not None for row in folder.journal.evaluations())
    assert folder.journal.rows("divergence")


def test_result_holds_no_times(tmp_path: Path, data_root: Path) -> None:
    _, folder = train(tiny(), (5,), tmp_path, data_root)
    text = result(folder).decode()
    assert "time" not in text
    assert "seconds" not in text
    assert "host" not in text
