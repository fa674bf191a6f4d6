"""What is still to be trained? Wanted minus done: the run folders of the store are the truth.

The published result is read first: a job whose evaluations all stand in it is done, whatever else its folder holds,
and nothing more of it is read. So a store of thousands of finished runs is reconciled in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from structlin.errors import UserError
from structlin.host.passed_over import pass_over
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

    @property
    def is_final(self) -> bool:
        """Nothing more can or need be done."""
        return self.state in ("done", "diverged")


def reconcile(jobs: Iterable[W], store: Store) -> list[JobState[W]]:
    """The state of every job."""
    return [job_state(job, store) for job in jobs]


def job_state(job: W, store: Store) -> JobState[W]:
    """The state of one job; an earlier, shorter request that is done does not make a longer one done.

    A run that may not be read is named, and counts as interrupted.
    """
    folder = store.by_id(job.run_id)
    try:
        return _state(job, folder)
    except (UserError, OSError) as error:
        pass_over(folder.path, error)
        return JobState(job, folder, "interrupted", 0)


def _state(job: W, folder: RunFolder) -> JobState[W]:
    seen = folder.at_once()
    if not seen.exists():
        return JobState(job, folder, "missing", 0)
    if seen.has_published(job.evaluations):
        return JobState(job, folder, "done", job.target_step)
    published = seen.published()
    evaluated = {row["step"] for row in (seen.journal.evaluations() if published is None else published)}
    status = seen.status()
    if status["state"] == "running" and evaluated.issuperset(job.evaluations) and _goes_beyond(status, job):
        return JobState(job, folder, "done", job.target_step)
    # "done" was said of fewer evaluations than are wanted now, or its result is not published yet.
    state = "missing" if status["state"] == "done" else status["state"]
    return JobState(job, folder, state, min(max(evaluated, default=0), job.target_step))


def _goes_beyond(status: dict[str, object], job: Wanted) -> bool:
    """Whether a running process is past all that this job asks for, on its way to more."""
    target = status.get("target_step")
    return isinstance(target, int) and target > job.target_step
