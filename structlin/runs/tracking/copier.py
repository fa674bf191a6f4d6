"""How does a tracker get a copy of a journal without ever hurting a run? A thread that copies rows, and may fail.

Training only appends to a list. Opening, sending and ending happen in the thread, within time limits; what does not
answer is one line on stderr. The journal stays the truth.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

from structlin.errors import one_line
from structlin.runs.store import RunFolder

Row = dict[str, Any]
Observe = Callable[[Row], None]


class Copier(ABC):
    """A thread that sends the journal's rows somewhere, from the first that is missing there."""

    tracker: str
    """Its name for people."""
    afterwards: str
    """What can be done after a failure."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._rows = folder.journal.written()
        self._known = {(row["kind"], row["step"]) for row in self._rows}
        self._wake, self._closing, self._abandoned = Event(), False, False
        self._thread = Thread(target=self._work, daemon=True, name=f"{self.tracker}-{folder.run_id}")
        self._thread.start()

    @abstractmethod
    def _open(self) -> tuple[Any, int]:
        """Where rows go, and how many are there already."""

    @abstractmethod
    def _put(self, place: Any, number: int, row: Row) -> None:
        """Send a row."""

    @abstractmethod
    def _end(self, place: Any) -> None:
        """All rows are sent."""

    def observe(self, row: Row) -> None:
        """Take a journal row. A step that was trained again has its place already."""
        key = (row["kind"], row["step"])
        if key not in self._known:
            self._known.add(key)
            self._rows.append(row)
            self._wake.set()

    def close(self, seconds: float) -> None:
        """Send the rest and finish, or give up after some seconds."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._abandoned = True
            self._failed("finish", f"no answer within {seconds:.0f} s")

    def _work(self) -> None:
        stage = "init"
        try:
            place, sent = self._open()
            stage = "log"
            for _ in self._turns():
                while sent < len(self._rows) and not self._abandoned:
                    self._put(place, sent, self._rows[sent])
                    sent += 1
            stage = "finish"
            self._end(place)
        except Exception as error:  # whatever a tracker raises, training goes on
            if not self._abandoned:
                self._failed(stage, one_line(error)[:300])

    def _turns(self) -> Iterator[None]:
        """Once whenever there may be rows to send, the last time after the run's end."""
        closing = False
        while not closing and not self._abandoned:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            yield

    def _failed(self, stage: str, reason: str) -> None:
        """The one line of a failure."""
        say(self._folder.run_id, self.tracker, stage, reason, self.afterwards)


def say(name: str, tracker: str, stage: str, reason: str, afterwards: str) -> None:
    """The one line of a failure."""
    print(f"{name}: {tracker} {stage} failed, training does not: {reason} ({afterwards})", file=sys.stderr, flush=True)
