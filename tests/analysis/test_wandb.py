"""Figures of runs that are at W&B, or in its offline files, are those of the store that they were mirrored from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import make
from analysis.figures import resources
from structlin.runs.tracking import sync
from tests.runs.tracking.test_wandb import WANDB, forget_client, offline, service
from tests.runs.tracking.wandb_server import ENTITY, Service
from tests.tiny import tiny, train

__all__ = ["service"]

ROOT = Path(__file__).parents[2]
STEPS = (6, 8, 11, 16, 22, 32)


def fill(runs: Path, data_root: Path) -> None:
    """Enough for a frontier of two structures."""
    for name in ("dense", "btt"):
        for width in (16, 32):
            train(tiny(name, d_model=width), STEPS, runs, data_root, placement=WANDB)
    forget_client()


def own_figure(out: Path, runs: Path) -> bytes:
    """The numbers of figure 10 of a store."""
    assert make.main(["figure=fig10", "bootstrap=20", f"out={out}", f"runs={runs}"]) == 0
    return (out / "fig10.csv").read_bytes()


def figure(out: Path, *words: str) -> bytes:
    """The same as a process that knows no login draws them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_") and name != "NETRC"}
    # The service's address and a key for it, where one runs; nothing of whoever runs the tests.
    more = {name: os.environ[name] for name in ("WANDB_BASE_URL", "WANDB_API_KEY") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "analysis.make", "figure=fig10", "bootstrap=20", f"out={out}", *words],
        cwd=ROOT, env={**kept, **more, "HOME": str(out.parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return (out / "fig10.csv").read_bytes()


def test_of_the_service(service: Service, tmp_path: Path, data_root: Path) -> None:
    fill(tmp_path / "runs", data_root)
    # What the client has not sent in time, on a busy machine, is completed as users complete it.
    assert sync.sync(tmp_path / "runs") == 0
    own = own_figure(tmp_path / "a", tmp_path / "runs")
    words = ("source=wandb", f"project={ENTITY}/{WANDB.project}", f"cache={tmp_path / 'cache'}")
    found = figure(tmp_path / "b", *words)
    assert found == own
    assert b"btt" in own


def test_of_offline_files(service: Service, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    fill(tmp_path / "runs", data_root)
    for name in ("API_KEY", "BASE_URL"):
        monkeypatch.delenv(f"WANDB_{name}")
    words = ["source=wandb_offline", f"dir={tmp_path / 'runs'}"]
    assert figure(tmp_path / "b", *words) == own_figure(tmp_path / "a", tmp_path / "runs")
    assert service.operations == []
    # What a copy cannot know is said, and the rest is drawn.
    maker = make.maker_of(["bootstrap=20", *words])
    assert maker.own is not None
    drawing = resources.draw(maker.own, maker.laws("own", maker.own))
    assert "by wall-clock: not known for these runs, or too few points" in drawing.missing
    assert "by FLOPs" in set(drawing.numbers()["panel"])
