"""The copies at W&B give the table of the store: every column, bit by bit, by the real client and back."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from structlin.config.identity import to_mapping
from structlin.runs import table
from structlin.runs.tracking import logged, sync
from structlin.tracker import history as wandb_source
from structlin.tracker.history import Logged
from tests.runs.tracking.test_wandb import WANDB, forget_client, offline, service, stop_at
from tests.runs.tracking.wandb_server import ENTITY, Service
from tests.tiny import tiny, train

__all__ = ["service"]


def fill(runs: Path, data_root: Path) -> None:
    """Runs of three kinds: one that was requeued, one that diverged, and one with a part of its blocks structured."""
    for count in (4, 99):
        train(tiny("btt"), (5, 10), runs, data_root, placement=WANDB, should_stop=stop_at(count))
    rate = replace(tiny().optim, lr=1e38)
    state, _ = train(tiny("dense", optim=rate), (0, 40), runs, data_root, placement=WANDB)
    assert state == "diverged"
    part = replace(tiny().model, structured=("blocks.*.attention.*", "head"))
    train(tiny("low_rank", model=part, seed=3).scheduled("cosine", 6), (6,), runs, data_root, placement=WANDB)
    forget_client()  # which writes the ends of its files when it likes


def assert_same(copies: list[Logged], runs: Path) -> None:
    """Everything but the speed, whose probes stay in the store."""
    own, found = table.load(runs), logged.table(copies)
    pd.testing.assert_frame_equal(logged.table(copies[::-1]), found)
    assert sorted(own["status"].unique()) == ["diverged", "done"]
    assert list(found) == list(own)
    left = [name for name in own if name != "tokens_per_second"]
    pd.testing.assert_frame_equal(found[left], own[left], check_exact=True, check_dtype=True)


def test_runs_at_the_service(service: Service, tmp_path: Path, data_root: Path) -> None:
    fill(tmp_path / "runs", data_root)
    # What the client has not sent in time, on a busy machine, is completed as users complete it.
    assert sync.sync(tmp_path / "runs") == 0
    copies = wandb_source.online(f"{ENTITY}/{WANDB.project}", tmp_path / "cache")
    assert_same(copies, tmp_path / "runs")
    # From the cache, nothing but the list is asked for.
    asked = len(service.operations)
    assert_same(wandb_source.online(f"{ENTITY}/{WANDB.project}", tmp_path / "cache"), tmp_path / "runs")
    assert "HistoryPage" not in service.operations[asked:]


def test_offline_runs_that_no_service_has_seen(
    service: Service, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    fill(tmp_path / "runs", data_root)
    monkeypatch.delenv("WANDB_API_KEY")
    copies = wandb_source.offline(tmp_path / "runs")
    assert len(copies) == 3, "two attempts of a run are one run"
    assert_same(copies, tmp_path / "runs")
    assert service.operations == []


def test_runs_of_others_are_passed_over(tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = train(tiny(), (5,), tmp_path, data_root)
    config = to_mapping(folder.science())
    own = Logged("a" * 16, "own", "crashed", config, [{"eval/step": 5, "eval/val_loss": 3.0}])
    strange = Logged("b", "strange", "finished", {"lr": 1.0}, [{"loss": 1.0}])
    newer = Logged("c", "newer", "finished", {**config, "schema": 99}, [{"eval/step": 5}])
    found = logged.table([strange, own, newer])
    assert found["run_id"].tolist() == ["a" * 16]
    assert found["status"].tolist() == ["interrupted"]
    # An older copy does not name the machine: the columns are there, and empty.
    assert found["backend"].isna().all()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "passed over: W&B's run b (strange) is none of this project's: its config has no schema" in lines[0]
    assert "c (newer): config has schema 99" in lines[1]
    assert logged.table([strange]).empty
