"""What does one process write of a run? An attempt: a folder of its own that no other process writes to.

attempts/<n>/attempt.json      where it went on from, who it is, and how much of each older attempt's journal counts
             metrics.jsonl     its journal
             provenance.json   versions, machine, data manifest, code state
             status.json       running, interrupted, failed, diverged, superseded or done; where and why
             checkpoints/      step-00001234.pt; older attempts' by hard link

The number is taken by an exclusive mkdir, and the highest number is the run. A process that lives on after its run
was taken by a newer attempt (its node was given up, but not dead) finds that out, and until then harms nobody: readers
read no more of its journal than stood there at the take-over, and it cannot publish.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlin.errors import UserError
from structlin.host.files import Missing, read_json, write_json, write_sealed
from structlin.host.locks import Hold, reaches_other_hosts
from structlin.host.passed_over import pass_over
from structlin.runs import archive, checkpoints
from structlin.runs.holder import Holder
from structlin.runs.journal import Journal, Part

BEAT_SECONDS = 30.0
"""A trainer shows between two steps that it lives, once so much time has passed."""
STALE_SECONDS = 900.0
"""A holder on another host that has written nothing for so long counts as dead where no lock tells. It must exceed the
longest step or evaluation; a run taken too early costs its time, not its numbers: the older process is superseded."""

STATES = ("running", "interrupted", "failed", "diverged", "superseded", "done")


class Superseded(Exception):
    """A newer attempt has taken the run: this process has nothing more to say about it."""


@dataclass(frozen=True)
class Record:
    """attempt.json."""

    resumed_step: int | None
    """The step of the checkpoint it went on from; None until it has one."""
    holder: Holder | None
    fences: Mapping[int, int]
    """Bytes of each older attempt's journal at the take-over, by its number."""


@dataclass(frozen=True)
class Attempt:
    """One attempt's folder. Everybody may read; only its own process calls what writes."""

    path: Path

    @property
    def number(self) -> int:
        """1, 2, ...; the highest is the newest."""
        return int(self.path.name)

    @property
    def run_id(self) -> str:
        """The run it belongs to."""
        return self.path.parent.parent.name

    # ---- reading

    def _read(self, path: Path) -> bytes:
        """A file of this attempt, also of a packed run."""
        return archive.read_bytes(path, self.path.parent.parent)

    @property
    def journal(self) -> Journal:
        """Its own journal."""
        return Journal(self.path / "metrics.jsonl", self._read)

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    def record(self) -> Record:
        """attempt.json; nothing known where it is missing (the process is about to write it, or died) or broken."""
        try:
            stored = read_json(self.path / "attempt.json", self._read)
            fences = {int(number): int(size) for number, size in stored["fences"].items()}
            return Record(stored["resumed_step"], Holder.from_mapping(stored["holder"]), fences)
        except (UserError, KeyError, TypeError, ValueError, AttributeError):
            return Record(None, None, {})

    def status(self) -> dict[str, Any] | None:
        """status.json as written, or None where there is none that can be read."""
        try:
            status = read_json(self.path / "status.json", self._read)
            return status if status["state"] in STATES else None
        except Missing:
            return None
        except UserError as error:
            pass_over(self.path / "status.json", error)
            return None
        except (KeyError, TypeError):
            return None

    def provenance(self) -> dict[str, Any] | None:
        """provenance.json, or None where there is none that can be read."""
        try:
            record = read_json(self.path / "provenance.json", self._read)
        except Missing:
            return None
        except UserError as error:
            pass_over(self.path / "provenance.json", error)
            return None
        return record if isinstance(record, dict) else None

    def silence_seconds(self) -> float:
        """Seconds since its process last wrote anything here, by the clocks of the file system and of this host."""
        names = (".", "attempt.json", "status.json", "metrics.jsonl")
        times = [0.0]
        for name in names:
            with contextlib.suppress(OSError):
                times.append((self.path / name).stat().st_mtime)
        return time.time() - max(times)

    def lives(self, hold: Hold) -> bool:
        """Whether its process is alive, given what the run's lock says.

        A lock that is held means yes, unless its holder is surely gone. One that is free means no, unless the holder
        ran on another host and the lock does not reach there. Where the lock tells nothing, a holder that has said how
        it ended is done, one of this machine lives if its process does, and one elsewhere if it was heard of lately.
        """
        holder = self.record().holder
        if holder is not None and holder.is_gone:
            return False
        near = holder is not None and holder.is_near
        if hold is Hold.HELD:
            return True
        if hold is Hold.MINE and (near or reaches_other_hosts(self.path)):
            return False
        status = self.status()
        if status is not None and status["state"] != "running":
            return False
        return near or self.silence_seconds() < STALE_SECONDS

    def is_newest(self) -> bool:
        """Whether no newer attempt has taken the run."""
        # Listing reopens the folder: network file systems answer that from the server, not from what they remember.
        return self.number == max(numbers(self.path.parent), default=0)

    # ---- writing

    def begin(self, older: Sequence[Attempt]) -> None:
        """Fence the older attempts, which are superseded from now on, and take over their checkpoints."""
        fences = {attempt.number: _size(attempt.journal.path) for attempt in older}
        for attempt in older:
            for number, size in attempt.record().fences.items():
                if number in fences:
                    fences[number] = min(size, fences[number])
            # What an older process has staged for publication must not replace ours.
            _staged(attempt).unlink(missing_ok=True)
        # Before folders of the older ones go: from here on a reader knows how much of each journal counts.
        self._write_record(Record(None, Holder.here(), fences))
        self.set_status("running", step=0)
        inherited = checkpoints.merged(attempt.checkpoints for attempt in older)
        checkpoints.inherit(inherited.values(), self.checkpoints)
        for attempt in older:
            # Journals that count stay for readers; of an attempt that wrote no row nothing is worth keeping.
            shutil.rmtree(attempt.checkpoints if fences[attempt.number] else attempt.path, ignore_errors=True)

    def resume_at(self, step: int) -> None:
        """Write down the step of the checkpoint that training goes on from, before the first row."""
        record = self.record()
        self._write_record(Record(step, Holder.here(), record.fences))

    def set_status(self, state: str, **details: Any) -> None:
        """Write status.json: state, details, process and time."""
        assert state in STATES
        values = {"state": state, **details, "pid": os.getpid(), "host": os.uname().nodename, "updated": time.time()}
        write_json(self.path / "status.json", values)

    def set_provenance(self, record: Mapping[str, Any]) -> None:
        """Write provenance.json."""
        write_json(self.path / "provenance.json", record)

    def beat(self) -> None:
        """Show that the process lives, and find out whether it still has the run. Superseded where it has not."""
        self.check_newest()
        with contextlib.suppress(OSError):
            os.utime(self.path / "status.json")

    def check_newest(self) -> None:
        """Raise Superseded if a newer attempt has taken the run."""
        if not self.is_newest():
            raise Superseded(f"a newer attempt has taken the run from attempt {self.number}")

    def publish(self, result: Any) -> None:
        """Rename a finished result.json into the run's folder. Superseded where a newer attempt has the run.

        It is staged here first. A newer attempt removes what is staged when it begins: so either we see it, or it
        comes after our look and the rename finds nothing, or it comes after the rename and has trained nothing yet.
        """
        staged = _staged(self)
        write_sealed(staged, result)
        try:
            self.check_newest()
            staged.replace(self.path.parent.parent / "result.json")
        except FileNotFoundError:
            raise Superseded(f"a newer attempt has taken the run from attempt {self.number}") from None
        except Superseded:
            staged.unlink(missing_ok=True)
            raise

    def _write_record(self, record: Record) -> None:
        assert record.holder is not None
        fences = {str(number): size for number, size in sorted(record.fences.items())}
        write_json(
            self.path / "attempt.json",
            {"resumed_step": record.resumed_step, "holder": record.holder.to_mapping(), "fences": fences},
        )


def numbers(folder: Path, run: Path | None = None) -> list[int]:
    """Numbers of the attempts in a folder, rising; foreign names are left alone. ``run``: theirs, also a packed one.

    UserError where the folder cannot be listed.
    """
    try:
        names = archive.listed(folder, folder.parent if run is None else run)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}") from None
    return sorted(int(name) for name in names if name.isdecimal())


def parts(attempts: Sequence[Attempt]) -> list[Part]:
    """The journals of a run's attempts, oldest first, each as far as it counts."""
    if len(attempts) == 1:  # nobody to be merged with: not even attempt.json has to be read
        return [Part(attempts[0].journal.path, read=attempts[0]._read)]
    records = [attempt.record() for attempt in attempts]
    return [
        Part(attempt.journal.path, record.resumed_step or 0, _fence(attempt.number, records), attempt._read)
        for attempt, record in zip(attempts, records, strict=True)
    ]


def _fence(number: int, records: Iterable[Record]) -> int | None:
    return min((record.fences[number] for record in records if number in record.fences), default=None)


def _staged(attempt: Attempt) -> Path:
    return attempt.path / "result.json"


def _size(path: Path) -> int:
    try:
        with path.open("rb") as stream:  # opened, so that a network file system asks its server
            return stream.seek(0, os.SEEK_END)
    except FileNotFoundError:
        return 0
