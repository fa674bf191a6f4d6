"""W&B is a mirror: it changes nothing, hangs nothing, kills nothing, and is not imported unless asked for.

What it holds after requeues, dead networks and `make sync` is in test_wandb.py.
"""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from structlin.runs.tracking import mirror
from structlin.runs.tracking.mirror import wandb_mode
from tests.tiny import PLACEMENT, tiny, train

KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB = replace(PLACEMENT, tracking="wandb")
AUTO = replace(PLACEMENT, tracking="auto")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(mirror, "_silent_until", [-1e9])


@pytest.mark.parametrize(
    ("tracking", "key", "reachable", "mode"),
    [
        ("journal", True, True, ""),
        ("auto", False, True, ""),
        ("auto", True, True, "online"),
        ("auto", True, False, "offline"),
        ("wandb", False, True, "offline"),
        ("wandb", True, True, "online"),
        ("wandb", True, False, "offline"),
    ],
)
def test_which_mode_is_used(tracking: str, key: bool, reachable: bool, mode: str, monkeypatch, tmp_path) -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1] if reachable else 1
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        if key:
            monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert wandb_mode(replace(PLACEMENT, tracking=tracking)) == mode


def test_offline_without_a_key_and_the_results_are_the_same(tmp_path: Path, data_root: Path) -> None:
    state, mirrored = train(tiny(), (5, 10), tmp_path / "mirrored", data_root, placement=WANDB)
    _, alone = train(tiny(), (5, 10), tmp_path / "alone", data_root)
    assert state == "done"
    assert list(mirrored.path.glob("wandb/1/wandb/offline-run-*/*.wandb"))
    assert (mirrored.path / "result.json").read_bytes() == (alone.path / "result.json").read_bytes()


def test_a_key_and_a_dead_network_do_not_hang(tmp_path: Path, data_root: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    began = time.monotonic()
    state, folder = train(tiny(), (5,), tmp_path, data_root, placement=AUTO)
    assert state == "done"
    assert time.monotonic() - began < 30
    # No key of the environment enters a record, nor W&B's own files in the run folder.
    assert not [path for path in folder.path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_a_failing_client_never_fails_a_run(broken: str, tmp_path: Path, data_root: Path, monkeypatch, capsys) -> None:
    import wandb

    class Run:
        summary: ClassVar[dict] = {}

        def define_metric(self, name, step_metric=None, hidden=False) -> None:
            pass

        def log(self, row, step) -> None:
            fail("log")

        def finish(self) -> None:
            fail("finish")

    def fail(what: str) -> None:
        if what == broken:
            raise RuntimeError(f"{what} is broken")

    monkeypatch.setattr(wandb, "init", lambda **options: fail("init") or Run())
    state, _ = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB)
    assert state == "done"
    assert f"W&B {broken} failed" in capsys.readouterr().err


def test_a_training_process_imports_torch_numpy_and_the_package_alone(tmp_path: Path, data_root: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tests.tiny import tiny, train
import structlin.training.worker
assert train(tiny(), (5,), Path({str(tmp_path)!r}), Path({str(data_root)!r}))[0] == "done"
heavy = {{"hydra", "omegaconf", "pandas", "wandb", "rich", "scipy", "datasets", "tiktoken", "submitit", "matplotlib"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
