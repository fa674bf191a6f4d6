"""Does the development cluster end its own processes and no others? Shown without SLURM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm.dev.processes import Daemon, Process, cut, environment_of, everything, wait


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A program that ignores the polite signal, with its folders made."""
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    made = Daemon("stubborn", (sys.executable, "-c", script), tmp_path, {"MARK": str(tmp_path)})
    yield made
    made.stop(0)


def test_a_daemon_starts_once_and_is_killed_where_it_does_not_listen(daemon: Daemon) -> None:
    daemon.start()
    first = daemon.process
    assert first is not None
    daemon.start()
    assert daemon.process == first
    assert wait(lambda: daemon.words.read_text() == "up\n", 10)
    daemon.stop(0.2)
    assert daemon.process is None
    assert not first.alive
    assert not daemon.pid_file.exists()


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(daemon: Daemon) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        now = Process.of(stranger.pid)
        assert now is not None
        daemon.pid_file.write_text(f"{now.pid} {now.started - 1}\n")
        assert daemon.process is None
        daemon.stop(0)
        assert stranger.poll() is None
        stranger.kill()


def test_a_zombie_is_no_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert wait(lambda: Process.of(child) is None, 10)
    os.kill(child, 0)  # to a signal it still looks alive
    os.waitpid(child, 0)


def test_cut_kills_a_family_that_multiplies(tmp_path: Path) -> None:
    mark = f"CUT_TEST={tmp_path}"
    # Each shell starts the next and writes when a child of its own dies.
    script = f"while true; do sh -c 'sleep 60; echo >> {tmp_path}/reported' & sleep 0.02; done"

    def family() -> set[Process]:
        return {process for process in everything() if mark in environment_of(process.pid)}

    with subprocess.Popen(["sh", "-c", script], env={**os.environ, "CUT_TEST": str(tmp_path)}) as parent:
        assert wait(lambda: len(family()) > 10, 10)
        cut(family)
        assert family() == set()
        assert parent.wait(10) == -signal.SIGKILL
    time.sleep(0.2)
    assert not (tmp_path / "reported").exists()
