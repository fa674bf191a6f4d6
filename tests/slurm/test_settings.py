"""Does the development cluster say no in one line, and does it keep what was chosen?"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.dev import settings as module
from slurm.dev.settings import STATE_VARIABLE, Settings, free_block, load, save, state_folder
from structlin.errors import UserError


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_arraysize": "3"}, "did you mean 'max_array_size'"),
        ({"nodes": "0"}, "nodes=0: write a whole number from 1"),
        ({"cpus": "x"}, "cpus=x: write a whole number"),
        ({"accounting": "yes"}, "accounting=yes: write true or false"),
        ({"max_submit": "5", "accounting": "false"}, "accounting=true"),
        ({"port": "65534"}, "ports below 65,536"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Settings.parse(values)


def test_settings_are_kept_in_the_state_folder(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    chosen = Settings.parse({"max_array_size": "11", "accounting": "false", "port": "17000"})
    save(chosen, tmp_path)
    assert load(tmp_path) == chosen
    assert Settings.parse(chosen.words()) == chosen


def test_state_folder_is_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STATE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert state_folder() == Path("/run/user/7/slurm-dev")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert state_folder().parent == Path("/tmp")
    monkeypatch.setenv(STATE_VARIABLE, "/tmp/x")
    assert state_folder() == Path("/tmp/x")
    assert state_folder("/tmp/y") == Path("/tmp/y")
    with pytest.raises(UserError, match="too long for the unix sockets"):
        state_folder("/tmp/" + "x" * 60)
    with pytest.raises(UserError, match="cannot hold this path"):
        state_folder("/tmp/a b")


def test_a_block_of_ports_avoids_those_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_block(4)
    monkeypatch.setattr(module, "FIRST_PORT", first)
    monkeypatch.setattr(module, "LAST_PORT", first + 5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 2))
        taken.listen()
        with pytest.raises(UserError, match="choose one with port="):
            free_block(4)


def test_the_door_answers_in_one_line(tmp_path: Path) -> None:
    for words in (["upp"], ["off"], ["up", "n1"], ["status", f"state={tmp_path}"]):
        answer = subprocess.run([sys.executable, "-m", "slurm.dev", *words], capture_output=True, text=True)
        assert answer.returncode == 2
        assert answer.stderr.startswith("error: ")
        assert answer.stderr.count("\n") == 1


def test_up_and_down_leave_a_folder_of_somebody_else_alone(tmp_path: Path) -> None:
    theirs = Path(f"/tmp/{tmp_path.name[:30]}")
    theirs.mkdir()
    try:
        (theirs / "file").write_text("mine")
        for command in ("up", "down"):
            words = [sys.executable, "-m", "slurm.dev", command, f"state={theirs}"]
            subprocess.run(words, capture_output=True)
            assert [path.name for path in theirs.iterdir()] == ["file"]
    finally:
        (theirs / "file").unlink()
        theirs.rmdir()
