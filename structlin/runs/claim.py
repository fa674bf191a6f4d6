"""May this process train a run? Only if no living process does, and only if it is the one that takes the number.

A run is free when nobody holds its lock (``Attempt.lives`` says when that is not enough to know). It is taken from a
process that still holds it when that process is surely dead (same machine, no such process: a child inherited the
lock, or a file server kept it), or when SLURM has requeued the very job. Whoever may take the run, the exclusive mkdir
of the next number decides between them.
"""

from __future__ import annotations

from typing import Self

from structlin.config.science import Science
from structlin.errors import UserError
from structlin.host.locks import Hold, Lock
from structlin.runs import archive
from structlin.runs.attempt import Attempt
from structlin.runs.holder import Holder
from structlin.runs.store import RunFolder


class Claim:
    """A context in which a run may be taken; it holds the run's lock, where locks can be held."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.attempt: Attempt | None = None
        """The attempt that this process has begun; set before anything is written in it."""

    def __enter__(self) -> Self:
        self._lock = Lock(self.folder.lock)
        try:
            archive.unpack(self.folder.path)
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self._hold = self._lock.acquire()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder.path}: {error.strerror}; make room or rights there and run the same "
                "command again, or use another store: runs=..."
            ) from None
        # Decided once, on what is seen now: if a newer attempt comes meanwhile, it has the number we shall ask for.
        self._older = self.folder.attempts()
        self.is_free = self._may_take()
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def begin(self, science: Science) -> Attempt | None:
        """The next attempt, inheriting what the older ones left; None where another process was faster."""
        assert self.is_free
        number = self._older[-1].number + 1 if self._older else 1
        attempt = Attempt(self.folder.attempts_path / str(number))
        attempt.path.parent.mkdir(exist_ok=True)
        try:
            attempt.path.mkdir()
        except FileExistsError:
            return None
        self.attempt = attempt
        if self._hold is Hold.HELD:
            self._lock.replace()
        self.folder.write_config(science)
        attempt.begin(self._older)
        return attempt

    def _may_take(self) -> bool:
        if not self._older:
            return self._hold is not Hold.HELD
        newest = self._older[-1]
        holder = newest.record().holder
        if holder is not None:
            if holder.is_requeued_as(Holder.here()):
                return True
            if holder.is_this_process and self._hold is not Hold.HELD:
                return True  # we trained it before, and are no longer at it
        return not newest.lives(self._hold)
