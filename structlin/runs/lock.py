"""Does a living process hold a run? A lock (flock) that the kernel frees when its process dies.

It is trusted as far as it reaches. Some file systems refuse it, and some keep it within one host; there a heartbeat
says whether a holder on another host lives (``claim.is_alive``). Whoever takes a run from a process that still holds
the lock puts a new file in its place: the old process is left with the lock of a file that nobody looks at.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from enum import Enum
from pathlib import Path
from typing import IO

REFUSED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
PATIENCE_SECONDS = 0.25
"""Whoever only looks holds the lock for microseconds; a taker tries again for so long."""


class Hold(Enum):
    """What an attempt to take a lock has shown."""

    MINE = "mine"
    HELD = "held by another process"
    UNKNOWN = "the file system has no locks"


class Lock:
    """The lock file of a run; it need not exist yet, its folder must."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: IO[str] | None = None

    def acquire(self, patience: float = PATIENCE_SECONDS) -> Hold:
        """Take the lock without waiting longer than ``patience`` seconds."""
        until = time.monotonic() + patience
        while True:
            hold = self._try()
            if hold is not Hold.HELD or time.monotonic() >= until:
                return hold
            time.sleep(0.01)

    def replace(self) -> None:
        """Hold a new file in the place of one that another process will not let go."""
        # Not written but held: it must be locked before it has its name, and stay open afterwards.
        beside = self.path.with_name(f".{self.path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
        stream = beside.open("w")
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        beside.replace(self.path)
        self.release()
        self._stream = stream

    def release(self) -> None:
        """Let go, if we hold it."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _try(self) -> Hold:
        while True:
            stream = self.path.open("a")
            hold = _flock(stream, fcntl.LOCK_EX)
            if hold is Hold.MINE and _is_at(stream, self.path):
                self._stream = stream
                return hold
            stream.close()
            if hold is not Hold.MINE:
                return hold
            # The file was replaced between open and flock: once more, with the new one.


def look(path: Path) -> Hold:
    """What ``acquire`` would give now; MINE means that nobody holds it. Creates nothing."""
    try:
        with path.open("r") as stream:
            return _flock(stream, fcntl.LOCK_SH)
    except FileNotFoundError:
        return Hold.MINE


def _flock(stream: IO[str], operation: int) -> Hold:
    try:
        fcntl.flock(stream, operation | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in REFUSED:
            return Hold.UNKNOWN
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return Hold.HELD
        raise
    return Hold.MINE


def reaches_other_hosts(path: Path) -> bool:
    """Whether a lock below this path is seen from other hosts, as far as the mount tells.

    Lustre needs the option flock, NFS may be mounted with local locks, BeeGFS keeps them local unless told otherwise;
    every other file system is either shared with its locks or not shared at all.
    """
    kind, options = _mount(path.resolve())
    if kind == "lustre":
        return "flock" in options
    if kind.startswith("nfs"):
        return not {"local_lock=all", "local_lock=flock", "nolock"} & options
    return kind != "beegfs"


def _mount(path: Path) -> tuple[str, set[str]]:
    """File system and options of the mount that holds a path."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return "", set()
    found, longest = ("", set[str]()), -1
    for line in lines:
        _, point, kind, options = line.split()[:4]
        folder = Path(point.replace("\\040", " "))
        if len(folder.parts) >= longest and (folder == path or folder in path.parents):
            found, longest = (kind, set(options.split(","))), len(folder.parts)
    return found


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
