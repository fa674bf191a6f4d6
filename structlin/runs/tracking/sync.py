"""How does W&B get what compute nodes without a network have trained? `make sync`, from a machine that has one.

    python -m structlin.runs.tracking.sync runs=runs

Of every run that was mirrored, W&B is asked how many rows it holds. A run that it holds in full is left alone, so the
command can be repeated at any time. Where the client's offline files hold just the rows that are missing, the client
uploads them (`wandb sync`, with system metrics and true times); all else is sent from the journal: rows that a killed
process or a lost connection swallowed, in online and offline attempts alike. Runs in training are left for later.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from structlin.errors import UserError, asks_help, door, key_values, one_line
from structlin.host.files import read_json
from structlin.host.network import reachable
from structlin.runs import archive
from structlin.runs.store import RunFolder, Store
from structlin.runs.tracking import evaluations
from structlin.runs.tracking.mirror import QUIET, Mirror, Target, base_url, files_of, has_key
from structlin.tracker.wire import history

TIMEOUT_SECONDS = 30
SETTLE_SECONDS = 5.0
"""How long after an upload W&B may need until it counts the new rows."""
SEND_SECONDS = 600.0
"""The longest that one run is sent from its journal, or that one call of the client uploads files."""
AT_ONCE = 200
"""Runs that are asked for, or uploaded, by one call of the client."""


@dataclass(frozen=True)
class Mirrored:
    """A run that has W&B files, and where its rows went last."""

    folder: RunFolder
    target: Target

    @property
    def run_id(self) -> str:
        """The run's id, here and at W&B."""
        return self.folder.run_id

    def rows(self) -> int:
        """How many rows W&B should hold."""
        return len(self.folder.journal.written())

    def files_from(self, held: int) -> list[Path]:
        """Offline files that hold the rows from number ``held`` to the last, each once; [] where they do not."""
        files, steps = [], []
        for path in files_of(self.folder):
            found = [row["_step"] for row in history(path)] if path.parent.name.startswith("offline") else []
            if found and found[0] >= held:
                files.append(path)
                steps += found
        return files if steps == list(range(held, self.rows())) else []


def mirrored(runs: Path) -> tuple[list[Mirrored], int]:
    """The mirrored runs of a store, and how many more are in training. UserError where there is no store."""
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; name it: runs=...")
    found, busy = [], 0
    for folder in Store(runs).folders():
        target = _target(folder)
        if target is not None and folder.status()["state"] == "running":
            busy += 1
        elif target is not None:
            found.append(Mirrored(folder, target))
    return found, busy


def _target(folder: RunFolder) -> Target | None:
    """Where the newest of a run's mirrors sent its rows. A packed run is unpacked: W&B's client reads its files."""
    if archive.holds(folder.path, "wandb"):
        archive.unpack(folder.path)
    for path in sorted(folder.path.glob("wandb/[0-9]*/target.json"), key=lambda path: -int(path.parent.name)):
        try:
            return Target(**read_json(path))
        except (UserError, TypeError):
            continue
    return None


def sync(runs: Path) -> int:
    """Complete W&B's copies and say what was done; returns how many runs W&B still does not hold in full."""
    everything, busy = mirrored(runs)
    lacking = _lacking(everything)
    complete = len(everything) - len(lacking)
    uploads = {run.run_id: files for run, held in lacking if (files := run.files_from(held))}
    _upload([path for files in uploads.values() for path in files])
    left = _settled([run for run, _ in lacking if run.run_id in uploads])
    others = [run for run, _ in lacking if run.run_id not in uploads]
    for run in [*left, *others]:
        _send(run)
    missing = _settled([*left, *others])
    for run in everything:
        if run not in missing:
            _mark(run)
    print(
        f"W&B ({base_url()}): {len(everything)} mirrored runs: {complete} held in full before, "
        f"{len(uploads) - len(left)} uploaded from offline files, "
        f"{len(left) + len(others) - len(missing)} completed from the journal"
        + (f", {busy} in training are left for later" if busy else "")
    )
    _sync_tables(runs, {run.run_id for run in everything} - {run.run_id for run in missing})
    for run in missing:
        print(f"  {run.run_id}: W&B holds {dict(_held([run])).get(run.run_id, 0)} of {run.rows()} rows; run it again")
    return len(missing)


def _sync_tables(runs: Path, complete: set[str]) -> None:
    """Send the tables of sweeps whose runs have all ended and stand at W&B in full."""
    for name in evaluations.sweeps(runs):
        if not evaluations.is_ended(runs, name) or not complete.issuperset(evaluations.members(runs, name)):
            continue
        target = _target(RunFolder(runs / evaluations.members(runs, name)[0]))
        if target is not None and evaluations.publish(runs, name, target.project, "online", SEND_SECONDS):
            print(f"  sweep {name}: its evaluations are a table at W&B")


def _lacking(runs: Sequence[Mirrored]) -> list[tuple[Mirrored, int]]:
    """The runs of which W&B lacks rows, each with the number that it holds."""
    held = _held(runs)
    return [(run, held.get(run.run_id, 0)) for run in runs if held.get(run.run_id, 0) < run.rows()]


def _settled(runs: Sequence[Mirrored]) -> list[Mirrored]:
    """Which of the runs W&B still lacks rows of, once it had time to count them."""
    until = time.monotonic() + SETTLE_SECONDS
    left = [run for run, _ in _lacking(runs)]
    while left and time.monotonic() < until:
        time.sleep(1.0)
        left = [run for run, _ in _lacking(left)]
    return left


def _held(runs: Iterable[Mirrored]) -> dict[str, int]:
    """Rows that W&B holds, by run; runs that it does not know are not named. UserError where it does not answer."""
    projects: dict[str, list[str]] = {}
    for run in runs:
        projects.setdefault(run.target.project, []).append(run.run_id)
    return {name: rows for project, names in projects.items() for name, rows in _counts(project, names).items()}


def _counts(project: str, names: list[str]) -> dict[str, int]:
    import wandb

    counts: dict[str, int] = {}
    try:
        api = wandb.Api(timeout=TIMEOUT_SECONDS)
        path = f"{os.environ.get('WANDB_ENTITY') or api.default_entity}/{project}"
        for first in range(0, len(names), AT_ONCE):
            some = names[first : first + AT_ONCE]
            for run in api.runs(path, filters={"name": {"$in": some}}, per_page=AT_ONCE):
                counts[run.id] = int(run.historyLineCount or 0)
    except (wandb.errors.Error, ValueError, OSError) as error:
        if "could not find project" in str(error).lower():
            return {}
        raise UserError(f"W&B at {base_url()} cannot be asked about project={project}: {one_line(error)}") from None
    return counts


def _upload(files: list[Path]) -> None:
    """Let the client upload its offline files; what it could not is found by asking W&B."""
    for first in range(0, len(files), AT_ONCE):
        some = [str(path) for path in files[first : first + AT_ONCE]]
        command = [sys.executable, "-m", "wandb", "sync", "--include-synced", "-n", "4", *some]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, timeout=SEND_SECONDS, check=False)


def _send(run: Mirrored) -> None:
    """Send from the journal what W&B lacks; a failure is one line."""
    try:
        mirror = Mirror(run.folder.science(), run.folder, run.target, lambda: "online")
    except UserError as error:
        print(f"passed over: {error}", file=sys.stderr)
    else:
        mirror.close(SEND_SECONDS)


def _mark(run: Mirrored) -> None:
    """Mark the files of a run that W&B holds in full, so that `wandb sync` by hand would not send rows twice."""
    for path in files_of(run.folder):
        path.with_name(f"{path.name}.synced").touch()


def main(arguments: list[str]) -> int:
    """Sync a store; 1 where W&B still lacks rows. UserError for a wrong argument, no key or no answer."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, {"runs": "runs"})
    if not has_key():
        raise UserError(f"no W&B key for {base_url()}; run `wandb login`, or set WANDB_API_KEY")
    if not reachable(base_url()):  # the client would try again for half a minute
        raise UserError(f"W&B at {base_url()} cannot be reached; run this where it can (WANDB_BASE_URL)")
    os.environ.update({**QUIET, "WANDB_FINISH_TIMEOUT": str(int(SEND_SECONDS))})
    os.environ.pop("WANDB_MODE", None)
    return min(1, sync(Path(values["runs"])))


if __name__ == "__main__":
    door(main)
