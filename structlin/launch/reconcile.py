"""What is still to be trained? Wanted minus done: the run folders of the store are the truth.

The published result is read first: a job whose evaluations all stand in it is done, whatever else its folder holds,
and nothing more of it is read. So a store of thousands of finished runs is reconciled in seconds. One exception: a run
that others are still to start from is done only with the checkpoints that they begin with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from structlin.config.identity import run_id
from structlin.errors import UserError
from structlin.host.code import is_mixed
from structlin.host.passed_over import pass_over
from structlin.runs.finished import Finished
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store


class Wanted(Protocol):
    """A run and the steps at which it is wanted: a Job, or a line of a manifest."""

    @property
    def run_id(self) -> str:
        """Identity of the trajectory."""

    @property
    def title(self) -> str:
        """The run for people."""

    @property
    def evaluations(self) -> tuple[int, ...]:
        """Steps of evaluation, rising."""

    @property
    def target_step(self) -> int:
        """The last of them."""


W = TypeVar("W", bound=Wanted)


@dataclass(frozen=True)
class JobState(Generic[W]):
    """A job and how far the store has it."""

    job: W
    folder: RunFolder
    state: str
    """done, diverged, or what keeps it from that: missing, interrupted, failed, running."""
    step: int
    """Steps that need not be trained again, by the evaluations made."""
    mixed: bool | None = None
    """Whether several versions of the code or of torch have trained it; None where nobody has looked."""

    @property
    def is_final(self) -> bool:
        """Nothing more can or need be done."""
        return self.state in ("done", "diverged")


def reconcile(jobs: Iterable[W], store: Store) -> list[JobState[W]]:
    """The state of every job, by what its files hold: for whoever decides by it what to train.

    A run that was trained before without the checkpoint at which another one of them is to begin is not done.
    """
    states: list[JobState[W]] = []
    needed: dict[str, set[int]] = {}
    # Parents stand before what starts from them: from the end on, what is missing asks for its beginning.
    for job in reversed(list(jobs)):
        if isinstance(job, Job) and (steps := needed.get(job.run_id)):
            job = replace(job, needed=tuple(sorted(steps)))
        state = job_state(job, store)
        if isinstance(job, Job) and (parent := job.science.start.parent) and _is_to_begin(state):
            needed.setdefault(run_id(parent), set()).add(job.science.start.step)
        states.append(state)
    return states[::-1]


def _is_to_begin(state: JobState[Any]) -> bool:
    """Whether a run is wanted that has not even its first weights yet."""
    return not state.is_final and not state.folder.checkpoints


def look_over(jobs: Iterable[W], store: Store) -> list[JobState[W]]:
    """The same for whoever only looks: a run that was found done is not opened while its files are what they were."""
    finished = Finished.of(store.root)
    found = [_remembered(job, store, finished) for job in jobs]
    finished.write()
    return found


def _remembered(job: W, store: Store, finished: Finished) -> JobState[W]:
    path = os.path.join(store.root, job.run_id)
    known = finished.find(job.run_id, path)
    if known is not None and known[0].issuperset(job.evaluations):
        return JobState(job, RunFolder(Path(path)), "done", job.target_step, known[1])
    folder = store.by_id(job.run_id)
    seen = folder.at_once()
    state = _state_of(job, folder, seen)
    if state.state != "done" or known is not None:
        return state
    try:
        result = seen.result()
        mixed = not seen.has_one_attempt and len(seen.attempts()) > 1 and is_mixed(seen.provenance())
    except (UserError, OSError):
        return state
    if result is not None and folder.run_id == job.run_id:
        finished.keep(job.run_id, path, frozenset(row["step"] for row in result["evaluations"]), mixed)
    return replace(state, mixed=mixed)


def job_state(job: W, store: Store) -> JobState[W]:
    """The state of one job; an earlier, shorter request that is done does not make a longer one done.

    A run that may not be read is named, and counts as interrupted.
    """
    folder = store.by_id(job.run_id)
    return _state_of(job, folder, folder.at_once())


def _state_of(job: W, folder: RunFolder, seen: RunFolder) -> JobState[W]:
    try:
        return _state(job, folder, seen)
    except (UserError, OSError) as error:
        pass_over(folder.path, error)
        return JobState(job, folder, "interrupted", 0)


def _state(job: W, folder: RunFolder, seen: RunFolder) -> JobState[W]:
    """``seen`` is the folder as it is at this moment."""
    if not seen.exists():
        return JobState(job, folder, "missing", 0)
    lacking = folder.lacks(job.needed) if isinstance(job, Job) else []
    if seen.has_published(job.evaluations):
        if not lacking:
            return JobState(job, folder, "done", job.target_step)
        return JobState(job, folder, "missing", max((s for s in folder.checkpoints if s < min(lacking)), default=0))
    published = seen.published()
    evaluated = {row["step"] for row in (seen.journal.evaluations() if published is None else published)}
    status = seen.status()
    is_past = evaluated.issuperset(job.evaluations) and not lacking
    if status["state"] == "running" and is_past and _goes_beyond(status, job):
        return JobState(job, folder, "done", job.target_step)
    # "done" was said of fewer evaluations than are wanted now, or its result is not published yet.
    state = "missing" if status["state"] == "done" else status["state"]
    return JobState(job, folder, state, min(max(evaluated, default=0), job.target_step))


def _goes_beyond(status: dict[str, object], job: Wanted) -> bool:
    """Whether a running process is past all that this job asks for, on its way to more."""
    target = status.get("target_step")
    return isinstance(target, int) and target > job.target_step
