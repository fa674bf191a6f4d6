"""Which processes are ours, and how do they end?

A process is known by its id and its start time, both kept in its pid file: an id that the kernel has given to somebody
else since then is never ours. /proc/PID/stat is read and not signal 0, because a container's first process may leave
zombies, which look alive to a signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from structlin.errors import UserError


@dataclass(frozen=True)
class Process:
    """A process of this machine."""

    pid: int
    started: int
    """Clock ticks between the machine's start and the process's."""

    @staticmethod
    def of(pid: int) -> Process | None:
        """The process that has this id now; None where there is none or only a zombie."""
        stat = _stat(pid)
        return None if stat is None or stat[0] in "ZX" else Process(pid, int(stat[19]))

    @property
    def alive(self) -> bool:
        """Is this very process, and not a later one of the same id, still running?"""
        return Process.of(self.pid) == self

    @property
    def parent(self) -> int | None:
        """The id of its parent; None once it is gone."""
        stat = _stat(self.pid)
        return None if stat is None else int(stat[1])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third, the state; the second, a name in brackets, may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def everything() -> Iterator[Process]:
    """Every process of this machine."""
    for name in os.listdir("/proc"):
        if name.isdecimal() and (process := Process.of(int(name))) is not None:
            yield process


def environment_of(pid: int) -> set[str]:
    """The NAME=value words that a process was started with; empty where it is gone or another user's."""
    try:
        return set(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return set()


@dataclass(frozen=True)
class Daemon:
    """A program that runs in the foreground in a session of its own, with a pid file and a file for its words."""

    name: str
    command: tuple[str, ...]
    state: Path
    environment: dict[str, str]

    @property
    def pid_file(self) -> Path:
        """Holds "PID STARTED"."""
        return self.state / "run" / f"{self.name}.pid"

    @property
    def words(self) -> Path:
        """What the program writes on stdout and stderr."""
        return self.state / "log" / f"{self.name}.out"

    @property
    def process(self) -> Process | None:
        """The running process; None where it does not run."""
        try:
            pid, started = map(int, self.pid_file.read_text().split())
        except (FileNotFoundError, ValueError):
            return None
        process = Process(pid, started)
        return process if process.alive else None

    def start(self) -> None:
        """Start it unless it runs."""
        if self.process is not None:
            return
        with self.words.open("ab") as words:
            popen = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=words, stderr=words,
                cwd=self.state, start_new_session=True,
            )  # fmt: skip
        process = Process.of(popen.pid)
        if process is None:
            raise UserError(f"{self.name} ended at once; see {self.words}")
        self.pid_file.write_text(f"{process.pid} {process.started}\n")

    def stop(self, patience_seconds: float) -> None:
        """Ask it to end, wait so long, and kill it where it does not."""
        process = self.process
        if process is not None:
            process.signal(signal.SIGTERM)
            if not gone([process], patience_seconds):
                process.signal(signal.SIGKILL)
                gone([process], 10)
        self.pid_file.unlink(missing_ok=True)


def gone(processes: list[Process], seconds: float) -> bool:
    """Wait until all of them have ended; False where one is alive after so many seconds."""
    return wait(lambda: not any(process.alive for process in processes), seconds)


def answers(path: Path) -> bool:
    """Does somebody listen on this unix socket?"""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Look 20 times a second until the condition holds; False where it does not within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def cut(find: Callable[[], set[Process]]) -> None:
    """Kill all that `find` finds as a power cut does: at one moment, so that none reports another's death.

    All are stopped first and looked for again, until a look finds no new one: what is stopped starts no child.
    """
    stopped: set[Process] = set()
    while new := find() - stopped:
        for process in new:
            process.signal(signal.SIGSTOP)
        stopped |= new
    for process in stopped:
        process.signal(signal.SIGKILL)
    if not gone(list(stopped), 10):
        alive = [process.pid for process in stopped if process.alive]
        raise UserError(f"processes {alive} survive SIGKILL (waiting for a disk?): look at /proc/PID/stack")
