"""How do journal rows reach Weights & Biases, each once? By their numbers (copier.py: how a run is never hurt).

The journal is the truth; W&B holds a copy for looking at, under the run's own id. Row number n of the journal
(``Journal.written``) is W&B's row ``_step`` n, so one number says what W&B holds. After a requeue the mirror asks for
it (or, offline, reads the files of earlier attempts), sends what is missing and goes on: nothing is lost or doubled.

What does not answer is one line on stderr, and ``make sync`` (structlin.runs.tracking.sync) completes W&B's copy later.

runs/<id>/wandb/<n>/target.json      where the rows went; n = 1, 2, ... is taken by one process alone
                    wandb/...        the client's own files
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from structlin.config.identity import to_mapping
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import one_line
from structlin.host.files import write_json
from structlin.host.network import reachable
from structlin.runs.machine import BACKEND
from structlin.runs.store import RunFolder
from structlin.runs.tracking.copier import Copier, Observe, Row, say
from structlin.runs.tracking.payload import about, payload, tags
from structlin.runs.tracking.tensorboard import Events

Mode = Literal["online", "offline", ""]

PROBE_SECONDS = 3.0
CLOSE_SECONDS = 15.0
"""The longest that a run waits for W&B at its end."""
WRITE_SECONDS = 10.0
"""The longest that the client's process may take to write its file after the end."""
LIMITS = {"WANDB_INIT_TIMEOUT": "10", "WANDB_FINISH_TIMEOUT": "10", "WANDB_FINISH_TIMEOUT_RAISES": "true"}
QUIET = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
SILENCE_SECONDS = 300.0
"""Seconds for which this process stays offline after a service that answered too late or not at all."""
_silent_until = [-math.inf]


@dataclass(frozen=True)
class Target:
    """Where the rows of a run go."""

    project: str
    group: str
    """The sweep's name."""


@contextmanager
def open_mirror(science: Science, folder: RunFolder, placement: Placement) -> Iterator[Observe]:
    """A function that mirrors journal rows while a run trains; it does nothing where tracking is off."""
    make = _copier(science, folder, placement)
    if make is None:
        yield lambda row: None
        return
    try:
        copier = make()
    except OSError as error:
        say(folder.run_id, "tracking", "init", one_line(error), "the journal has everything")
        yield lambda row: None
        return
    try:
        yield copier.observe
    finally:
        copier.close(CLOSE_SECONDS)


def _copier(science: Science, folder: RunFolder, placement: Placement) -> Callable[[], Copier] | None:
    """What makes the copier that was asked for; None where there is to be none."""
    if placement.tracking == "tensorboard":
        return lambda: Events(science, folder)
    if not _asked(placement):
        return None
    return lambda: Mirror(science, folder, Target(placement.project, placement.group), lambda: wandb_mode(placement))


class Mirror(Copier):
    """A thread that sends the journal's rows to W&B, from the first that W&B lacks."""

    tracker = "W&B"
    afterwards = "`make sync` completes W&B"

    def __init__(self, science: Science, folder: RunFolder, target: Target, mode: Callable[[], Mode]) -> None:
        self._science, self._target, self._mode = science, target, mode
        self._is_online = False
        self._defined: set[str] = set()
        # Written first: `make sync` knows by it that the run is to be at W&B, however early the process dies.
        self._place = _own_folder(folder, target)
        super().__init__(folder)

    def _put(self, place: Any, number: int, row: Row) -> None:
        if row["kind"] not in self._defined:
            self._defined.add(row["kind"])
            _define(place, row["kind"])
        place.log(payload(row, self._science), step=number)

    def _end(self, place: Any) -> None:
        place.finish()
        self._await_file()

    def _open(self) -> tuple[Any, int]:
        """A run of W&B's client, and how many rows W&B (or, offline, the files of earlier attempts) holds."""
        mode = self._mode()
        if mode != "online":
            run = self._init("offline")
            held = rows_in_files(self._folder)
            _summarise(run, [payload(row, self._science) for row in self._rows[:held]])
            return run, held
        self._is_online = True
        run = self._init("online")
        return run, run.starting_step

    def _init(self, mode: Literal["online", "offline"]) -> Any:
        for name, value in {**LIMITS, **QUIET}.items():
            os.environ.setdefault(name, value)
        import wandb

        science, origin = self._science, (self._folder.provenance() or [{}])[-1]
        return wandb.init(
            project=self._target.project,
            group=self._target.group or None,
            job_type=science.schedule.kind,
            tags=tags(science),
            id=self._folder.run_id,
            name=f"{science.variant}-d{science.model.d_model}-s{science.seed}",
            # The machine too, without its name: memory is accounted by the backend that trained.
            config={
                **to_mapping(science),
                **about(science, self._folder, self._target.group),
                "provenance": {name: origin.get(name) for name in (*BACKEND, "corpus")},
            },
            dir=str(self._place),
            mode=mode,
            # Offline, not: syncing a file that resumes numbers its rows anew where W&B holds some already.
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )

    def _await_file(self) -> None:
        """The client's finish() returns before its own process has written the end of the file.

        The next attempt, in this process perhaps, reads from it what it need not send.
        """
        from structlin.tracker.wire import is_whole

        files = [path for path in files_of(self._folder) if path.is_relative_to(self._place)]
        until = time.monotonic() + WRITE_SECONDS
        while not all(map(is_whole, files)):
            if time.monotonic() > until:
                raise TimeoutError(f"the client's file is not whole after {WRITE_SECONDS:.0f} s")
            time.sleep(0.02)

    def _failed(self, stage: str, reason: str) -> None:
        if self._is_online:
            _silent_until[0] = time.monotonic() + SILENCE_SECONDS
        super()._failed(stage, reason)


def wandb_mode(placement: Placement) -> Mode:
    """online, offline or '' (no W&B): auto uses it where a key is configured, wandb falls back to offline."""
    mode = _asked(placement)
    if mode == "online" and (time.monotonic() < _silent_until[0] or not reachable(base_url(), seconds=PROBE_SECONDS)):
        return "offline"
    return mode


def _asked(placement: Placement) -> Mode:
    """The mode before the network is asked."""
    if placement.tracking in ("journal", "tensorboard") or os.environ.get("WANDB_MODE") == "disabled":
        return ""
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun") or not has_key():
        return "offline" if placement.tracking == "wandb" else ""
    return "online"


def has_key() -> bool:
    """A key in the environment, or in the netrc file that ``wandb login`` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(base_url()).hostname or ""
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if name and host in Path(name).expanduser().read_text():
                return True
        except OSError:
            continue
    return False


def base_url() -> str:
    """The address of the W&B service."""
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def files_of(folder: RunFolder) -> list[Path]:
    """The client's files of a run, those of its first process first."""
    found = folder.path.glob("wandb/[0-9]*/wandb/*run-*/run-*.wandb")
    return sorted(found, key=lambda path: (int(path.parents[2].name), path))


def rows_in_files(folder: RunFolder) -> int:
    """How many journal rows the files of earlier attempts hold; a killed client leaves fewer than it was given."""
    from structlin.tracker.wire import history

    return 1 + max((row["_step"] for path in files_of(folder) for row in history(path)), default=-1)


def _define(run: Any, kind: str) -> None:
    """Curves of a kind of row are drawn over its training steps, and its loss over FLOPs and over tokens too."""
    run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
    for axis in ("flops", "tokens"):
        run.define_metric(axis, hidden=True)
        run.define_metric(f"over_{axis}/*", step_metric=axis)


def _summarise(run: Any, rows: list[dict[str, float]]) -> None:
    """The newest values of rows that other files hold: the summary of the last file is the one that stays."""
    newest: dict[str, float] = {}
    for row in rows:
        newest.update(row)
    run.summary.update({key: value for key, value in newest.items() if key != "_timestamp"})


def _own_folder(folder: RunFolder, target: Target) -> Path:
    """A folder for this client's files, taken by no other process."""
    number = 1
    while True:
        path = folder.path / "wandb" / str(number)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            continue
        write_json(path / "target.json", asdict(target))
        return path
