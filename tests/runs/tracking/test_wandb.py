"""The real W&B client against a service on loopback: after anything that clusters do, W&B holds the journal, once."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from structlin.anatomy.ledger import ledger
from structlin.errors import UserError
from structlin.host.files import write_json
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store
from structlin.runs.tracking import evaluations, mirror, sync
from structlin.runs.tracking.mirror import files_of, open_mirror
from structlin.runs.tracking.payload import ABOUT, payload
from structlin.tracker.wire import history
from tests.runs.tracking.wandb_server import RemoteRun, Service, serving
from tests.tiny import PLACEMENT, tiny, train

KEY = "0123456789abcdef0123456789abcdef01234567"
WANDB = replace(PLACEMENT, tracking="wandb", project="laws", group="first sweep", log_steps=1)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    """A service, a key for it and nobody's own settings."""
    # First: its address in the environment would be put back after the test, when nothing answers there any more.
    forget_client()
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    with serving() as service:
        values = {"API_KEY": KEY, "BASE_URL": service.address, "INIT_TIMEOUT": "30", "FINISH_TIMEOUT": "30"}
        for name, value in values.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        for name in [*mirror.LIMITS, *mirror.QUIET]:
            # Whatever the mirror sets is taken back after the test.
            monkeypatch.setenv(name, os.environ.get(name, "true" if name.endswith(("RAISES", "SILENT")) else "false"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setattr(mirror, "_silent_until", [-1e9])
        # A busy machine may be slow.
        monkeypatch.setattr(mirror, "CLOSE_SECONDS", 60.0)
        monkeypatch.setattr(mirror, "WRITE_SECONDS", 60.0)
        yield service
        service.release()
        forget_client()


def forget_client() -> None:
    """End the client's helper process, which remembers the address it was started with."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
    os.environ.pop("WANDB_SERVICE", None)


def stop_at(count: int, action: Callable[[], None] = lambda: None) -> Callable[[], bool]:
    """A signal that comes when it is asked for the count-th time (once a step)."""
    asked = [0]

    def should_stop() -> bool:
        asked[0] += 1
        if asked[0] == count:
            action()
        return asked[0] >= count

    return should_stop


def offline(monkeypatch: pytest.MonkeyPatch, on: bool = True) -> None:
    """A compute node without a network, or one with."""
    if on:
        monkeypatch.setenv("WANDB_MODE", "offline")
    else:
        monkeypatch.delenv("WANDB_MODE", raising=False)


def assert_complete(run: RemoteRun, folder: RunFolder) -> None:
    """W&B holds every journal row exactly once, with its values (of speed, those of the first time)."""
    science = folder.science()
    written = [payload(row, science) for row in folder.journal.written()]
    assert [set(row) - {"_step", "_runtime"} for row in run.history] == [set(row) for row in written]
    assert [_lasting(row) for row in run.history] == [_lasting(row) for row in written]
    assert [row["_step"] for row in run.history] == list(range(len(written)))


def _lasting(row: dict[str, float]) -> dict[str, float]:
    """What is the same whenever a step is trained."""
    passing = ("per_second", "/seconds", "_timestamp", "_step", "_runtime")
    return {key: value for key, value in row.items() if not key.endswith(passing)}


def test_an_online_run(service: Service, tmp_path: Path, data_root: Path) -> None:
    state, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB)
    assert state == "done"
    run = service.runs[folder.run_id]
    assert_complete(run, folder)
    assert (run.project, run.group, run.exit_code) == ("laws", "first sweep", 0)
    assert run.config["optim"]["value"]["lr"] == 1e-2
    assert run.summary["eval/val_loss"] == folder.journal.evaluations()[-1]["val_loss"]
    # Curves are drawn over the training step of their kind.
    assert {"train/*", "eval/*"} <= {metric.get("2") for metric in run.config["_wandb"]["value"]["m"]}


def test_a_requeued_run_goes_on_under_its_own_id(service: Service, tmp_path: Path, data_root: Path) -> None:
    for count, end in ((4, "interrupted"), (5, "interrupted"), (99, "done")):
        state, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB, should_stop=stop_at(count))
        assert state == end
    assert list(service.runs) == [folder.run_id]
    assert_complete(service.runs[folder.run_id], folder)
    # An evaluation that is asked for later lies before W&B's last step, and still arrives.
    train(tiny(), (2, 5, 10), tmp_path, data_root, placement=WANDB)
    assert_complete(service.runs[folder.run_id], folder)
    assert 2 in [row.get("eval/step") for row in service.runs[folder.run_id].history]


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_killed_process_loses_no_row(mode: str, service: Service, tmp_path: Path, data_root: Path) -> None:
    runs = tmp_path / "runs"
    script = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
from tests.runs.tracking.test_wandb import WANDB, stop_at, tiny, train
runs = Path({str(runs)!r})
def die():
    until = time.monotonic() + 30
    while not list(runs.rglob("run-*.wandb")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(os.getpid(), 9)
train(tiny(), (5, 40), runs, Path({str(data_root)!r}), placement=WANDB, should_stop=stop_at(30, die))
"""
    environment = {**os.environ, "WANDB_MODE": mode, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert killed.returncode == -9
    folder = Store(runs).folder(tiny())
    rows = len(folder.journal.written())
    assert rows >= 30
    (path,) = files_of(folder)
    # Its node lost power: what the client had written last never reached the disk.
    os.truncate(path, path.stat().st_size * 2 // 3)
    assert len(history(path)) < rows
    if mode == "online":
        state, folder = train(tiny(), (5, 40), runs, data_root, placement=WANDB)
        assert state == "done"
    else:
        assert sync.main([f"runs={runs}"]) == 0
    assert_complete(service.runs[folder.run_id], folder)


def test_offline_attempts_are_synced_to_one_run(
    service: Service, tmp_path: Path, data_root: Path, monkeypatch, capsys
) -> None:
    offline(monkeypatch)
    for count in (4, 5, 99):
        _, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB, should_stop=stop_at(count))
    train(tiny(seed=1), (5,), tmp_path, data_root, placement=WANDB)
    # Together, the files of the three attempts hold each row once.
    steps = [row["_step"] for path in files_of(folder) for row in history(path)]
    assert len(files_of(folder)) == 3
    assert steps == list(range(len(folder.journal.written())))
    assert service.operations == []

    offline(monkeypatch, False)
    assert sync.main([f"runs={tmp_path}"]) == 0
    assert "2 mirrored runs: 0 held in full before, 2 uploaded from offline files" in capsys.readouterr().out
    assert len(service.runs) == 2
    for folder in Store(tmp_path).folders():
        assert_complete(service.runs[folder.run_id], folder)
    assert service.runs[folder.run_id].group == "first sweep"

    # Again: nothing is sent.
    posts = [run.posts for run in service.runs.values()]
    assert sync.main([f"runs={tmp_path}"]) == 0
    assert "2 held in full before, 0 uploaded" in capsys.readouterr().out
    assert [run.posts for run in service.runs.values()] == posts


def test_files_that_overlap_are_not_uploaded(
    service: Service, tmp_path: Path, data_root: Path, monkeypatch, capsys
) -> None:
    offline(monkeypatch)
    _, folder = train(tiny(), (5,), tmp_path, data_root, placement=WANDB)
    # As after a process that lived on while its run was trained elsewhere.
    shutil.copytree(folder.path / "wandb/1", folder.path / "wandb/2", symlinks=True)
    offline(monkeypatch, False)
    assert sync.main([f"runs={tmp_path}"]) == 0
    assert "0 uploaded from offline files, 1 completed from the journal" in capsys.readouterr().out
    assert_complete(service.runs[folder.run_id], folder)


def test_an_offline_attempt_then_an_online_one(service: Service, tmp_path: Path, data_root: Path, monkeypatch) -> None:
    offline(monkeypatch)
    train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB, should_stop=stop_at(4))
    offline(monkeypatch, False)
    _, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB)
    assert_complete(service.runs[folder.run_id], folder)
    assert sync.main([f"runs={tmp_path}"]) == 0
    # W&B's own command, by hand, finds nothing left to send.
    posts = service.runs[folder.run_id].posts
    by_hand = [sys.executable, "-m", "wandb", "sync", "--include-online", str(folder.path / "wandb/1/wandb")]
    subprocess.run(by_hand, check=True, capture_output=True)
    assert service.runs[folder.run_id].posts == posts


def test_an_online_attempt_then_an_offline_one(service: Service, tmp_path: Path, data_root: Path, monkeypatch) -> None:
    train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB, should_stop=stop_at(4))
    offline(monkeypatch)
    _, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB)
    offline(monkeypatch, False)
    assert len(service.runs[folder.run_id].history) == 3
    assert sync.main([f"runs={tmp_path}"]) == 0
    assert_complete(service.runs[folder.run_id], folder)


@pytest.mark.parametrize("end", ["comes back", "stays dead", "refuses"])
def test_the_network_dies_in_the_middle(
    end: str, service: Service, tmp_path: Path, data_root: Path, capsys, monkeypatch
) -> None:
    if end == "stays dead":
        monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "2")
    seen = []

    def die() -> None:
        until = time.monotonic() + 20
        while not service.runs and time.monotonic() < until:
            time.sleep(0.02)
        seen.append(len(service.runs))
        if end == "refuses":
            service.failure = 403
        else:
            service.kill()

    def come_back() -> bool:
        if end == "comes back":
            service.start()
        return False

    asked = [0]

    def at_steps() -> bool:
        asked[0] += 1
        if asked[0] == 4:
            die()
        return come_back() if asked[0] == 8 else False

    began = time.monotonic()
    state, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB, should_stop=at_steps)
    assert seen == [1], "the client never reached the service"
    assert state == "done"
    assert time.monotonic() - began < 40
    run = service.runs[folder.run_id]
    if end == "comes back":
        assert_complete(run, folder)
        return
    assert len(run.history) < len(folder.journal.written())
    if end == "stays dead":
        assert capsys.readouterr().err.count("W&B finish failed") == 1
        service.start()
    service.failure = 0
    assert sync.main([f"runs={tmp_path}"]) == 0
    assert_complete(run, folder)
    assert "1 completed from the journal" in capsys.readouterr().out


def test_a_service_that_never_answers_costs_a_bounded_time(
    service: Service, tmp_path: Path, data_root: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(mirror, "CLOSE_SECONDS", 3.0)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    service.hanging = True
    began = time.monotonic()
    with open_mirror(tiny(), RunFolder(tmp_path / "0123456789abcdef"), WANDB) as observe:
        for step in range(1000):
            observe({"kind": "train", "step": step, "loss": 1.0})
        trained = time.monotonic() - began
    assert trained < 1, "training waits for W&B"
    assert time.monotonic() - began < 10
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "W&B finish failed, training does not: no answer within 3 s" in error
    # The next run of this process does not even ask.
    monkeypatch.setattr(mirror, "CLOSE_SECONDS", 30.0)
    state, folder = train(tiny(), (5,), tmp_path, data_root, placement=WANDB)
    assert state == "done"
    (path,) = files_of(folder)
    assert path.parent.name.startswith("offline-run")
    assert len(history(path)) == len(folder.journal.written())


def test_a_service_that_fails_at_the_start(service: Service, tmp_path: Path, data_root: Path, capsys) -> None:
    service.refusing = True
    state, folder = train(tiny(), (5,), tmp_path, data_root, placement=WANDB)
    assert state == "done"
    assert "W&B init failed" in capsys.readouterr().err
    service.refusing = False
    command = [sys.executable, "-m", "structlin.runs.tracking.sync", f"runs={tmp_path}"]
    # From another shell, which does not share this process's client.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 completed from the journal" in done.stdout
    assert_complete(service.runs[folder.run_id], folder)


def test_what_sync_leaves_alone(service: Service, tmp_path: Path, data_root: Path, monkeypatch, capsys) -> None:
    offline(monkeypatch)
    _, folder = train(tiny(), (5,), tmp_path, data_root, placement=WANDB)
    train(tiny(seed=1), (5,), tmp_path, data_root)  # never had W&B
    status = next(folder.path.glob("attempts/*/status.json"))
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "running"}))
    with folder.lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert sync.main([f"runs={tmp_path}"]) == 0
    assert "0 mirrored runs" in (out := capsys.readouterr().out)
    assert "1 in training are left for later" in out
    assert service.runs == {}


def test_sync_says_what_is_wrong(service: Service, tmp_path: Path, data_root: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match="no run store"):
        sync.main([f"runs={tmp_path / 'none'}"])
    with pytest.raises(UserError, match="rnus"):
        sync.main(["rnus=x"])
    offline(monkeypatch)
    train(tiny(), (5,), tmp_path, data_root, placement=WANDB)
    service.kill()
    with pytest.raises(UserError, match="cannot be reached"):
        sync.main([f"runs={tmp_path}"])
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="wandb login"):
        sync.main([f"runs={tmp_path}"])


def test_what_people_sort_and_chart_by(service: Service, tmp_path: Path, data_root: Path) -> None:
    """Columns of the config, tags, a job type, and the loss over FLOPs and over tokens without a click."""
    job = Job(tiny(), (5, 10))
    cells = [{"run_id": job.run_id, "step": step, "budget_flops": 1e6 * step} for step in (5, 10)]
    write_json(tmp_path / "sweeps" / "first sweep.json", {"name": "x", "design": "frontier", "cells": cells})
    _, folder = train(tiny(), (5, 10), tmp_path, data_root, placement=WANDB)
    run, costs = service.runs[folder.run_id], ledger(tiny())
    config = {key: value["value"] for key, value in run.config.items() if key != "_wandb"}
    assert {key: config[key] for key in ABOUT if key != "commit"} == {
        "variant": tiny().variant, "parameters": costs.params_total, "macs_per_token": costs.macs_per_token,
        "budget_flops": 1e7, "budgets": [5e6, 1e7], "design": "frontier", "sweep": "first sweep",
    }  # fmt: skip
    assert config["commit"] == folder.provenance()[-1]["code"]
    assert set(run.tags) == {"language", "sotu", "btt", "constant", "structure"}
    assert run.job_type == "constant"
    metrics = run.config["_wandb"]["value"]["m"]
    names = [metric.get("1") or metric.get("2") for metric in metrics]
    steps = {name: names[metric["5"] - 1] for name, metric in zip(names, metrics, strict=True) if "5" in metric}
    assert steps["over_flops/*"] == "flops"
    assert steps["over_tokens/*"] == "tokens"
    last = folder.journal.evaluations()[-1]
    assert run.summary["over_flops/eval_loss"] == run.summary["eval/val_loss"] == last["val_loss"]
    assert run.summary["flops"] == 6 * costs.macs_per_token * last["tokens"]


def test_the_table_of_a_sweep_is_an_artifact(tmp_path: Path, data_root: Path, service: Service, monkeypatch) -> None:
    offline(monkeypatch)
    folders = [train(tiny(seed=seed), (5, 10), tmp_path, data_root)[1] for seed in (0, 1)]
    cells = [{"run_id": folder.run_id, "step": 10, "budget_flops": None} for folder in folders]
    write_json(tmp_path / "sweeps" / "two seeds.json", {"name": "two seeds", "design": "frontier", "cells": cells})
    assert evaluations.is_ended(tmp_path, "two seeds")
    assert evaluations.publish(tmp_path, "two seeds", "laws", "offline", 60.0)
    assert json.loads((tmp_path / "sweeps" / "two seeds.wandb.json").read_text()) == {
        "mode": "offline",
        "evaluations": 4,
    }
    forget_client()
    (file,) = (tmp_path / "sweeps").rglob("run-*.wandb")
    content = file.read_bytes()
    assert b"evaluations.parquet" in content
    assert b"evaluations.table.json" in content
    # Nothing is sent twice, and the manifest of the note is no sweep.
    before = len(list((tmp_path / "sweeps").rglob("run-*.wandb")))
    assert evaluations.publish(tmp_path, "two seeds", "laws", "offline", 60.0)
    assert len(list((tmp_path / "sweeps").rglob("run-*.wandb"))) == before
    assert evaluations.sweeps(tmp_path) == ["two seeds"]


def test_a_table_that_cannot_be_sent_is_one_line(tmp_path: Path, service: Service, monkeypatch, capsys) -> None:
    write_json(tmp_path / "sweeps" / "s.json", {"name": "s", "design": "frontier", "cells": []})
    monkeypatch.setattr(evaluations, "_send", lambda *_: time.sleep(30))
    began = time.monotonic()
    assert not evaluations.publish(tmp_path, "s", "laws", "online", 0.5)
    assert time.monotonic() - began < 5
    monkeypatch.setattr(evaluations, "_send", lambda *_: 1 / 0)
    assert not evaluations.publish(tmp_path, "s", "laws", "online", 5.0)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == ["sweep s", "sweep s"]
