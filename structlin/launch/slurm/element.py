"""What happens inside an allocation? One array element trains its jobs in the pool, saves when warned, and requeues.

SLURM warns by SIGUSR2 before the time limit and (where the site lets it, else by SIGTERM) at a preemption. The warning
reaches the workers, which save within a step; then the element puts itself back into the queue and, once it runs
again, goes on exactly. Where the site lets nothing be requeued it ends with an exit code that says so.

    python -m structlin.launch.slurm.element runs/sweeps/<sweep>/submissions/<n>
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from structlin.config.identity import build
from structlin.config.launch import SlurmLaunch
from structlin.config.request import Site
from structlin.errors import UserError, one_line
from structlin.host.files import read_json, write_json
from structlin.host.speech import say
from structlin.host.storage import is_storage, why_not_writable
from structlin.host.umask import apply_umask
from structlin.launch.local import Pool, Task, make_worker
from structlin.launch.slurm.causes import NODE_EXIT, SAVED_EXIT, STORAGE_EXIT, by_reason
from structlin.launch.slurm.controller import Controller, ControllerError, own_name
from structlin.launch.slurm.ranks import make_torchrun
from structlin.launch.slurm.submissions import jobs_of

POLL_SECONDS = 0.2
SPACE_POLL_SECONDS = 30.0
SPACE_SECONDS = 600.0
"""An element waits so long for a store that can be written, before it gives its place to others."""
LATE_SECONDS = 90
"""SLURM looks at time limits every half minute, and may warn a minute early."""


@dataclass(frozen=True)
class Setting:
    """What all elements of an array share; written beside their packs."""

    site: Site
    launch: SlurmLaunch
    minutes: int
    """The time limit."""

    def write(self, folder: Path) -> None:
        """setting.json of a submission."""
        site = {**asdict(self.site), "runs": str(self.site.runs), "data_root": str(self.site.data_root)}
        write_json(folder / "setting.json", {"site": site, "launch": asdict(self.launch), "minutes": self.minutes})

    @classmethod
    def read(cls, folder: Path) -> Setting:
        """UserError where it is missing or broken."""
        values: dict[str, Any] = read_json(folder / "setting.json")
        return cls(
            build(Site, values["site"], "site"),
            build(SlurmLaunch, values["launch"], "launch"),
            int(values["minutes"]),
        )


def train_element(folder: str, index: int) -> int:
    """Train element ``index`` of the submission in ``folder``; the exit code, which sacct keeps.

    0; 1 where a run failed, and a code of its own (causes.py) for storage that cannot be written, for a sick node, and
    for what was saved and could not be requeued.
    """
    try:
        return _Element(Path(folder), index).run()
    except (OSError, UserError) as error:
        say(f"{'storage: ' if is_storage(error) else ''}{one_line(error)}")
        return STORAGE_EXIT if is_storage(error) or by_reason(one_line(error)) == "storage" else 1


def main(arguments: Sequence[str]) -> None:
    """``python -m structlin.launch.slurm.element FOLDER``, in an allocation."""
    code = train_element(arguments[0], int(os.environ.get("SLURM_ARRAY_TASK_ID") or 0))
    try:
        sys.stdout.flush()
    except OSError:
        # The log's disk is full: Python would fail to flush once more at its end, and end with a code of its own.
        os._exit(code)
    sys.exit(code)


class _Warning:
    """Whether this allocation is about to end."""

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._note)
        # A preempted job is first woken up.
        signal.signal(signal.SIGCONT, signal.SIG_IGN)

    def _note(self, number: int, frame: object) -> None:
        self.came = True


class _Element:
    def __init__(self, folder: Path, index: int) -> None:
        self.began = time.monotonic()
        self.warning = _Warning()
        self.folder, self.index = folder, index
        self.setting = Setting.read(folder)
        self.jobs = jobs_of(folder / "packs.jsonl", index)
        self.failures = folder / "failures" / f"{index}.json"
        self.is_first_node = os.environ.get("SLURM_NODEID", "0") == "0"

    def run(self) -> int:
        """Train, and say how it ended: 0, or 1 where a run failed. Does not return where it is requeued."""
        apply_umask(self.setting.site.umask, self.setting.site.runs)
        if reason := self._waits_for_space():
            say(f"storage: {reason}: {self.setting.site.runs}")
            return STORAGE_EXIT
        if self.is_first_node:
            self.failures.unlink(missing_ok=True)
        pool = self._pool()
        steps_before = _steps(pool.tasks)
        pool.start()
        while pool.is_running:
            time.sleep(POLL_SECONDS)
            if self.warning.came:
                pool.stop()
        for task in pool.tasks:
            say(f"{task.outcome or 'waiting'} {task.state.job.run_id} {task.reason}")
        if not self.is_first_node:
            return 0
        failed = {task.state.job.run_id: _blamed(task.reason) for task in pool.tasks if task.outcome == "failed"}
        open_runs = [task.state.job.run_id for task in pool.tasks if task.outcome in ("", "interrupted")]
        saved = False
        if self.warning.came and open_runs:
            if self._is_out_of_time() and _steps(pool.tasks) <= steps_before:
                reason = f"out of time: no checkpoint was reached within {self.setting.minutes} minutes"
                failed.update(dict.fromkeys(open_runs, reason))
            else:
                self._requeue()
                saved = True
        if failed:
            with contextlib.suppress(OSError):
                write_json(self.failures, failed)
        return _exit_code(failed, open_runs, saved)

    def _waits_for_space(self) -> str:
        """Why the store cannot be written, still after a while; empty where it can."""
        until = time.monotonic() + SPACE_SECONDS
        while (reason := why_not_writable(self.setting.site.runs)) and not self.warning.came:
            if time.monotonic() > until:
                break
            say(f"waiting for space: {reason}: {self.setting.site.runs}")
            time.sleep(SPACE_POLL_SECONDS)
        return reason

    def _pool(self) -> Pool:
        launch, site = self.setting.launch, self.setting.site
        if launch.is_parallel:
            # All nodes take the same jobs in the same order, and meet at each.
            return Pool(self.jobs, site, 1, functools.partial(make_torchrun, launch), waits=False)
        return Pool(self.jobs, site, launch.lanes, functools.partial(make_worker, log=None), waits=False)

    def _is_out_of_time(self) -> bool:
        limit = 60 * self.setting.minutes - self.setting.launch.signal_seconds - LATE_SECONDS
        return time.monotonic() - self.began >= limit

    def _requeue(self) -> None:
        """Go back into the queue and wait for the end that SLURM then makes; return where it may not or cannot."""
        if not self.setting.launch.requeue:
            say("saved, and to be submitted again: the site requeues nothing")
            return
        name = own_name()
        try:
            Controller().requeue(name)
        except ControllerError as error:
            say(f"saved, and to be submitted again; not requeued: {error}")
            return
        say(f"saved, and back in the queue as job {name}")
        # Whoever ended by himself now would be taken for failed by some versions of SLURM.
        while True:
            time.sleep(60)


def _blamed(reason: str) -> str:
    """A reason, with the node where it is to blame."""
    node = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
    return f"{reason} [node {node}]" if by_reason(reason) == "node" else reason


def _exit_code(failed: dict[str, str], open_runs: Sequence[str], saved: bool) -> int:
    kinds = {by_reason(reason) for reason in failed.values()}
    if "storage" in kinds:
        return STORAGE_EXIT
    if kinds == {"node"}:
        return NODE_EXIT
    if not failed and open_runs and saved:
        return SAVED_EXIT
    return 1 if failed or open_runs else 0


def _steps(tasks: Sequence[Task]) -> int:
    """Steps that need not be trained again, of all jobs, by their checkpoints."""
    return sum(int(task.state.folder.status().get("step", 0)) for task in tasks)


if __name__ == "__main__":
    main(sys.argv[1:])
