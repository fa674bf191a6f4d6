"""Runs read back from W&B: the real client against a service on this machine, and offline files with a torn tail."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from structlin.errors import UserError
from structlin.laws import run
from structlin.laws.choices import Choices
from structlin.tracker import history as wandb_source
from structlin.tracker import wire as wandb_file
from structlin.tracker.history import as_table, offline, online
from tests.tracker.wandb_stub import ROWS, history, serving


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    with serving() as (address, seen):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_SILENT", "true")
        yield seen


def test_every_row_is_read_not_a_sample(service: list[str], tmp_path: Path) -> None:
    table = as_table(online("e/p", tmp_path))
    assert len(table) == ROWS + 20
    assert table["val_loss"].min() == min(row["val_loss"] for row in history("aaa"))
    assert set(table["run"]) == {"aaa", "bbb"}
    assert (table["config.model.arch"] == "btt").all()
    asked = len(service)
    again = as_table(online("e/p", tmp_path))
    assert again.equals(table)
    # Finished runs come from the cache: only the list of runs is asked for.
    assert len(service) - asked <= 3
    assert not any("History" in operation for operation in service[asked:])


def test_project_needs_an_entity() -> None:
    with pytest.raises(UserError, match="entity/name"):
        online("p", Path("cache"))


def test_no_service_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(wandb_source, "_TIMEOUT_SECONDS", 1)
    with pytest.raises(UserError, match="cannot be read from W&B"):
        online("e/p", tmp_path)


LOG = """
import numpy as np, wandb
for arch, gain in (("dense", 1.0), ("btt", 0.8)):
    for size in (1e6, 4e6, 1.6e7):
        run = wandb.init(project="p", mode="offline", dir=".", config={"model": {"params": size, "arch": arch}})
        for tokens in np.geomspace(1e8, 1e10, 12):
            run.log({"tokens": tokens, "val_loss": 1.8 + gain * 400 / size**0.35 + 2000 / tokens**0.37})
        run.finish()
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wandb")
    # Without the variables by which a child would join this process's W&B service, which has another folder.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    clean |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "HOME": str(folder)}
    subprocess.run([sys.executable, "-c", LOG], cwd=folder, check=True, timeout=300, env=clean)
    return folder / "wandb"


def test_offline_runs_are_read_and_fitted(logged: Path, tmp_path: Path) -> None:
    table = as_table(offline(logged))
    assert len(table) == 6 * 12
    assert set(table["config.model.arch"]) == {"dense", "btt"}
    choices = Choices(
        source="wandb_offline",
        dir=str(logged),
        out=str(tmp_path),
        columns={
            "params": "config.model.params",
            "structure": "config.model.arch",
            "loss": "val_loss",
            "tokens": "tokens",
        },
        bootstrap=50,
        figures=False,
        report=False,
    )
    found = run.run(choices, quiet=True)
    assert found["parametric"]["dense"]["alpha"] == pytest.approx(0.35, rel=1e-3)
    assert found["multipliers"]["btt"]["mean"] > 1.1


def test_a_torn_tail_ends_a_file_quietly(logged: Path, tmp_path: Path) -> None:
    file = sorted(logged.rglob("run-*.wandb"))[0]
    whole = as_table(offline(file.parent))
    data = file.read_bytes()
    (tmp_path / "run-torn.wandb").write_bytes(data[: len(data) * 2 // 3])
    assert wandb_file.is_whole(file)
    assert not wandb_file.is_whole(tmp_path / "run-torn.wandb")
    torn = as_table(offline(tmp_path))
    assert 0 < len(torn) < len(whole)
    shared = ["tokens", "val_loss"]
    assert np.array_equal(torn[shared].to_numpy(), whole[shared].to_numpy()[: len(torn)])


def test_records_span_blocks() -> None:
    body = bytes(range(256)) * 200
    first = wandb_file._BLOCK - wandb_file._HEADER - wandb_file._RECORD_HEADER
    parts = [(2, body[:first]), (4, body[first:])]
    data = b"\0" * 7 + b"".join(b"\0" * 4 + len(p).to_bytes(2, "little") + bytes([kind]) + p for kind, p in parts)
    assert list(wandb_file.records(data)) == [body]


def test_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no offline W&B runs"):
        offline(tmp_path)
