"""Where do runs live? A folder of run folders, each named by the run's identity.

runs/<id>/config.json      the Science, fully resolved
          attempts/<n>/    what each process that trained it wrote (attempt.py)
          result.json      what came out, without times: equal bytes for equal runs
          lock             held (flock) by the process of the newest attempt

Here is the reading of it: one run's attempts as one. Who may write is decided in claim.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from structlin.config.identity import ID_LENGTH, id_of_stored, run_id, science_from, to_mapping
from structlin.config.science import SCHEMA, Science
from structlin.errors import UserError
from structlin.host.files import Missing, read_json, read_sealed, write_json
from structlin.host.locks import look
from structlin.host.passed_over import pass_over
from structlin.runs import archive, checkpoints, measures
from structlin.runs.attempt import Attempt, numbers, parts
from structlin.runs.journal import MergedJournal, Row
from structlin.runs.old_ids import old_ids

SETTLED = ("done", "diverged", "interrupted")
"""States that a process writes after it has published everything it knows."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder; it may not exist yet."""

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    def read(self, path: Path) -> bytes:
        """A file of the run, also of a packed one."""
        return archive.read_bytes(path, self.path)

    def exists(self) -> bool:
        """Whether anything was ever trained of it."""
        return self.path.exists() or archive.archive_of(self.path).exists()

    @property
    def is_settled(self) -> bool:
        """Whether the newest attempt has said how it ended, so that nothing changes unless a file does."""
        attempts = self.attempts()
        status = attempts[-1].status() if attempts else None
        return status is not None and status["state"] in (*SETTLED, "failed")

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.path / "lock"

    @property
    def attempts_path(self) -> Path:
        """The folder of attempts."""
        return self.path / "attempts"

    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first; the last one has the run."""
        return [Attempt(self.attempts_path / str(number)) for number in numbers(self.attempts_path, self.path)]

    @property
    def has_one_attempt(self) -> bool:
        """Whether it surely has one attempt alone, by the links of their folder: a listing would read the disk again.

        False where there are others, or the file system does not count folders so.
        """
        try:
            return os.stat(self.attempts_path).st_nlink == 3  # its name, its own dot, and the attempt's two dots
        except OSError:
            return False

    @property
    def journal(self) -> MergedJournal:
        """The journals of all attempts, merged."""
        return MergedJournal(parts(self.attempts()))

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The checkpoint file of each step that has one, by rising step. A packed run is unpacked for them."""
        archive.unpack(self.path)
        return checkpoints.merged(attempt.checkpoints for attempt in self.attempts())

    def provenance(self) -> list[dict[str, Any]]:
        """Where the numbers come from: a record for each attempt that could write one, oldest first."""
        return [record for attempt in self.attempts() if (record := attempt.provenance()) is not None]

    def science(self) -> Science:
        """The stored Science, upgraded. UserError for a broken config.json."""
        return self.science_and_config()[0]

    def science_and_config(self) -> tuple[Science, dict[str, Any]]:
        """The stored Science, upgraded, and its plain values. UserError for a config.json that is not the run's."""
        stored = self._config()
        try:
            science = science_from(stored)
        except UserError as error:
            raise UserError(f"{self.path / 'config.json'}: {error}") from None
        if stored.get("schema") != SCHEMA:
            return science, to_mapping(science)
        if not _names(stored, self.run_id):
            raise UserError(
                f"{self.path / 'config.json'} is of the run {run_id(science)}, not of {self.run_id}: was it changed?"
            )
        return science, stored

    def at_once(self) -> RunFolder:
        """The same run as it is at this moment: what was looked at once is not looked at again."""
        return _Glance(self.path)

    def write_config(self, science: Science) -> None:
        """Make config.json; a broken one is put aside and written anew."""
        config = self.path / "config.json"
        try:
            stored = read_json(config)
            if stored.get("schema") == SCHEMA and not _names(stored, self.run_id):
                raise UserError(f"{config} is of another run")
        except (UserError, AttributeError):
            if config.exists():
                config.replace(config.with_name(f"config.json.broken-{int(time.time())}"))
            write_json(config, to_mapping(science))

    def result(self) -> dict[str, Any] | None:
        """result.json, or None where nothing is published that can be read and is what was written."""
        path = self.path / "result.json"
        try:
            result: dict[str, Any] = read_sealed(path, sealed_by="digest", read=self.read)
            check_result(result)
        except Missing:
            return None
        except UserError as error:
            pass_over(path, error)
            return None
        except (KeyError, TypeError, ValueError, AttributeError):
            pass_over(path, "it holds no result")
            return None
        return result

    def has_published(self, evaluations: Iterable[int]) -> bool:
        """Whether result.json holds an evaluation at each of the steps."""
        result = self.result()
        return result is not None and {row["step"] for row in result["evaluations"]}.issuperset(evaluations)

    def lacks(self, needed: Iterable[int]) -> list[int]:
        """Those of some steps that have no checkpoint; nothing is looked at for none."""
        wanted = list(needed)
        return [step for step in wanted if step not in self.checkpoints] if wanted else []

    def published(self) -> list[Row] | None:
        """Step, tokens and loss of every evaluation where all are published, so that no journal need be read.

        None while an attempt runs or where one failed: its journal may say more.
        """
        found = self.published_of_ranks()
        return None if found is None else [row for row in found if row.get("rank_share", 1) == 1]

    def published_of_ranks(self) -> list[Row] | None:
        """The same, with rows of shares of the ranks where a run nests them."""
        attempts = self.attempts()
        status = attempts[-1].status() if attempts else None
        result = self.result() if status is not None and status["state"] in SETTLED else None
        return None if result is None else list(result["evaluations"])

    def status(self) -> dict[str, Any]:
        """status.json of the newest attempt; ``interrupted`` where it says running and no process lives, or is broken.

        A folder that does not exist is ``missing``.
        """
        attempts = self.attempts()
        status = attempts[-1].status() if attempts else None
        if status is None or status["state"] == "superseded":
            return {"state": "interrupted" if self.exists() else "missing", "step": 0}
        if status["state"] == "running" and not attempts[-1].lives(look(self.lock)):
            status["state"] = "interrupted"
        return status

    def stored_id(self) -> str:
        """The run's identity by its config. UserError for a broken config.json."""
        stored = self._config()
        if stored.get("schema") == SCHEMA and _names(stored, self.run_id):
            return self.run_id  # ten times as fast as building what is stored
        return run_id(self.science())  # which refuses a config of this schema that is another run's

    def _config(self) -> dict[str, Any]:
        stored = read_json(self.path / "config.json", self.read)
        if not isinstance(stored, dict):
            raise UserError(f"{self.path / 'config.json'} holds no config")
        return stored


class _Glance(RunFolder):
    """A run whose attempts, their last words and whose result are read at most once."""

    @cached_property
    def _attempts(self) -> list[Attempt]:
        try:
            return [_Glimpse(attempt.path) for attempt in super().attempts()]
        except UserError as error:
            pass_over(self.attempts_path, error)
            return []

    def attempts(self) -> list[Attempt]:
        return self._attempts

    @cached_property
    def _result(self) -> dict[str, Any] | None:
        return super().result()

    def result(self) -> dict[str, Any] | None:
        return self._result


class _Glimpse(Attempt):
    """An attempt whose status.json is read at most once."""

    @cached_property
    def _status(self) -> dict[str, Any] | None:
        return super().status()

    def status(self) -> dict[str, Any] | None:
        return None if self._status is None else dict(self._status)


def _names(stored: Mapping[str, Any], folder: str) -> bool:
    """Whether a config of this schema is that of the run which a folder is named by."""
    return id_of_stored(stored) == folder


class Store:
    """All runs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._old_ids: dict[str, Path] | None = None

    def folder(self, science: Science) -> RunFolder:
        """The folder of a run, also one stored under the id of an older schema."""
        return self.by_id(run_id(science))

    def by_id(self, identity: str) -> RunFolder:
        """The same by the id that the run has today."""
        path = self.root / identity
        if not path.exists() and not archive.archive_of(path).exists():
            path = self._old_paths().get(identity, path)
        return RunFolder(path)

    def folders(self) -> list[RunFolder]:
        """Every folder or archive that looks like a run; foreign files are left alone.

        A run that may not be read is named and passed over. UserError where the store itself cannot be listed.
        """
        try:
            names = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"{self.root} cannot be listed: {error.strerror}") from None
        runs = {name.removesuffix(archive.ENDING) for name in names}
        return [RunFolder(self.root / name) for name in sorted(runs) if _is_run(str(self.root), name)]

    def _old_paths(self) -> dict[str, Path]:
        """Runs whose folder name is not the id of their upgraded config."""
        if self._old_ids is None:
            folders = {folder.run_id: folder for folder in self.folders()}
            found = old_ids(self.root, folders, lambda name: folders[name].stored_id())
            self._old_ids = {identity: self.root / name for identity, name in found.items()}
        return self._old_ids


def check_result(result: Any) -> None:
    """Raise unless a result's evaluations are rows with numbers."""
    for row in result["evaluations"]:
        if type(row["step"]) is not int or not isinstance(row["val_loss"], int | float):
            raise ValueError(f"no evaluation: {row}")


def digest_of(evaluations: Iterable[Row]) -> str:
    """SHA-256 of the numbers alone of evaluations: steps, tokens, losses, errors, shares; equal for equal runs."""
    numbers = [
        [row["step"], row["tokens"], row["val_loss"], *measures.of_row(row).values(), *measures.share_of_row(row)]
        for row in evaluations
    ]
    return hashlib.sha256(json.dumps(numbers, separators=(",", ":")).encode()).hexdigest()


def _is_run(root: str, name: str) -> bool:
    if len(name) != ID_LENGTH or any(character not in "0123456789abcdef" for character in name):
        return False
    path = f"{root}/{name}"
    try:
        os.stat(f"{path}/config.json")
        return True
    except (FileNotFoundError, NotADirectoryError):
        return not os.path.exists(path) and os.path.exists(path + archive.ENDING)
    except OSError as error:
        pass_over(path, f"cannot be read: {error.strerror}")
        return False
