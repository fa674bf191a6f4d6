"""Does a living process hold this? Locks for every room: flock where the file system has it, a link elsewhere.

A lock (flock) is freed by the kernel when its process dies. It is trusted as far as it reaches: some file systems
refuse it, and some keep it within one host. Runs then go by a heartbeat (``Attempt.lives``): whoever takes a run from a
process that still holds its lock puts a new file in its place, and the old process is left with the lock of a file that
nobody looks at. What one process does for all (preparing data, submitting to a cluster) takes ``exclusive``, which
falls back to a file that only one can make.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO

from structlin.host.processes import birth, machine

REFUSED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
PATIENCE_SECONDS = 0.25
"""Whoever only looks holds the lock for microseconds; a taker tries again for so long."""
TOUCH_SECONDS = 20.0
"""The holder of a file in place of a lock shows so often that it lives."""
SILENT_SECONDS = 300.0
"""One on another host that has not done so for so long is taken for dead."""


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


# ---- one at a time, also without flock -------------------------------------------------------------------------------


@contextmanager
def exclusive(path: Path, tell: Callable[[str], None], poll: float = 0.5) -> Iterator[None]:
    """Be the only one inside for this path, on all hosts that see it; waits for others, and tells so once.

    Where the file system has no flock, a file beside it (``.held``) that only one process can make stands for it; that
    is said once on stderr. OSError where not even that can be made.
    """
    with path.open("a") as stream:
        hold = _flock(stream, fcntl.LOCK_EX)
        if hold is Hold.HELD:
            tell("waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        if hold is not Hold.UNKNOWN:
            yield
            return
    _say_once(path)
    with _held(path.with_name(f"{path.name}.held"), tell, poll):
        yield


_said: set[Path] = set()


def _say_once(path: Path) -> None:
    folder = path.parent.resolve()
    if folder not in _said:
        _said.add(folder)
        print(f"{folder} has no locks (flock): a file that only one process can make stands for one", file=sys.stderr)


@contextmanager
def _held(path: Path, tell: Callable[[str], None], poll: float) -> Iterator[None]:
    told = False
    while not _make(path):
        _break_stale(path)
        if not told:
            tell("waiting for it")
            told = True
        time.sleep(poll)
    done = threading.Event()
    thread = threading.Thread(target=_touch, args=(path, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.unlink(missing_ok=True)


def _make(path: Path) -> bool:
    """Make the file with our name in it, if nobody has: by a hard link, or by an exclusive creation."""
    holder = {"host": os.uname().nodename, "machine": machine(), "pid": os.getpid(), "birth": birth(os.getpid())}
    content = json.dumps(holder).encode()
    beside = path.with_name(f"{path.name}.{os.urandom(6).hex()}.tmp")
    beside.write_bytes(content)
    try:
        os.link(beside, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # no hard links either
        try:
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(number, "wb") as stream:
            stream.write(content)
        return True
    finally:
        beside.unlink(missing_ok=True)


def _break_stale(path: Path) -> None:
    """Remove the file of a process that is dead: surely so on this machine, by its silence on another."""
    try:
        before = path.stat()
        holder = json.loads(path.read_text() or "{}")
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        holder = {}
    is_near = bool(machine()) and (holder.get("host"), holder.get("machine")) == (os.uname().nodename, machine())
    is_dead = is_near and birth(int(holder["pid"])) != holder["birth"]
    if not is_dead and (is_near or time.time() - before.st_mtime < SILENT_SECONDS):
        return
    # Renamed first: of several that find it dead one gets it, and none takes away a file made meanwhile.
    aside = path.with_name(f"{path.name}.{os.urandom(6).hex()}.stale")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if not os.path.samestat(before, aside.stat()):
            with contextlib.suppress(OSError):
                os.link(aside, path)
        aside.unlink(missing_ok=True)


def _touch(path: Path, done: threading.Event) -> None:
    while not done.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
