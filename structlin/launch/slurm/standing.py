"""Where does every run of a sweep stand on the cluster? The run folder's marker first, then SLURM's word.

Wanted - done - running = submit. A run is done by its journal; it is on its way where a living element has it; what
is neither is judged by how the elements that had it have ended: what ran out of time or memory needs more, a crash
counts, and what the cluster did (preemption, a dead node, a cancellation) does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from structlin.launch.reconcile import JobState
from structlin.launch.slurm.controller import Controller, ControllerError, End, Live
from structlin.launch.slurm.submissions import Submission

COUNTED = ("time", "memory", "gpu memory", "crash")
"""Causes that may be the run's own fault; each is tried again at most ``launch.max_retries`` times."""
TAIL_BYTES = 8192
NEAR_ASKED = 0.95
"""A dead job whose memory had come so near to what it asked for died of it."""
GB = 1024**3
"""A gigabyte of sbatch."""
_UNFINISHED = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "REQUEUED")
_BY_STATE = {
    "TIMEOUT": "time",
    "DEADLINE": "time",
    "OUT_OF_MEMORY": "memory",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "preempted",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "COMPLETED": "left",
}
_MEMORY_WORDS = re.compile(
    r"oom.kill|(?<!CUDA )out of memory|(?<!torch\.)(?<!torch\.cuda\.)OutOfMemory|OOM Killed|MemoryError|bad_alloc|"
    r"cannot allocate memory|"
    r"exceeded (?:job |step )?memory limit",
    re.IGNORECASE,
)
_GPU_MEMORY_WORDS = re.compile(r"^gpu memory: |CUDA out of memory", re.MULTILINE)
"""More host memory would not help: the reason names what would."""
_BY_LOG = (
    ("time", re.compile(r"DUE TO TIME LIMIT|^out of time", re.MULTILINE)),
    ("preempted", re.compile(r"DUE TO PREEMPTION")),
    ("node", re.compile(r"DUE TO NODE FAILURE|NODE_FAIL")),
    ("gpu memory", _GPU_MEMORY_WORDS),
    ("memory", _MEMORY_WORDS),
    ("cancelled", re.compile(r"CANCELLED AT")),
)


@dataclass(frozen=True)
class Past:
    """An element that had a run and has ended without finishing it."""

    cause: str
    """time, memory, gpu memory, crash, or what does not count: disk, node, preempted, cancelled, left, unknown."""
    reason: str
    """One line for people."""
    log: Path


@dataclass(frozen=True)
class Standing:
    """One run of a sweep."""

    state: JobState
    live: Live | None = None
    """The element that has it, if one lives."""
    name: str = ""
    """That element's name."""
    log: Path | None = None
    """Where its newest element writes."""
    extends: str = ""
    """The array of a living element that trains it to fewer steps."""
    past: tuple[Past, ...] = field(default=(), repr=False)

    def count(self, cause: str) -> int:
        """How often it has ended by a cause."""
        return sum(past.cause == cause for past in self.past)

    def is_given_up(self, max_retries: int) -> bool:
        """Whether it has failed by one cause too often."""
        return self.is_open and any(self.count(cause) > max_retries for cause in COUNTED)

    @property
    def is_open(self) -> bool:
        """Nobody has it, and it is not done."""
        held = self.state.state == "running" and not self.extends
        return not self.state.is_final and self.live is None and not held

    @property
    def phase(self) -> str:
        """done, diverged, running, waiting, failed, interrupted or missing."""
        if self.state.is_final:
            return self.state.state
        if self.live is not None:
            return "waiting" if self.live.is_waiting else "running"
        if self.state.state == "running":
            return "running"
        if self.past and self.past[-1].cause in (*COUNTED, "disk"):
            return "failed"
        return self.state.state

    @property
    def reason(self) -> str:
        """Why it waits or has failed."""
        if self.live is not None:
            return self.live.reason if self.live.is_waiting and self.live.reason != "None" else ""
        return self.past[-1].reason if self.past and not self.state.is_final else ""


@dataclass(frozen=True)
class Survey:
    """All runs of a sweep, and what was seen of SLURM on the way."""

    standings: list[Standing]
    note: str = ""
    """What could not be asked."""


def survey(
    states: Sequence[JobState], records: Sequence[Submission], controller: Controller, *, must_answer: bool
) -> Survey:
    """Two calls of SLURM for everything; submissions of which nothing lives are closed.

    ControllerError where the controller does not answer and ``must_answer``; else what the store alone knows.
    """
    open_records = [record for record in records if record.ends is None]
    note = ""
    live: Mapping[str, Live] = {}
    ends = {record.folder: record.ends for record in records if record.ends is not None}
    if open_records:
        try:
            live = controller.live(_users(open_records))
            ends |= _look_back(open_records, live, controller)
        except ControllerError as error:
            if must_answer:
                raise
            note = f"SLURM does not answer, the run store alone speaks: {error}"
    holders = _holders(states, records)
    return Survey([_standing(state, holders.get(state.job.run_id, ()), live, ends) for state in states], note)


def _users(records: Iterable[Submission]) -> set[str]:
    return {record.user for record in records}


def _look_back(
    records: Sequence[Submission], live: Mapping[str, Live], controller: Controller
) -> dict[Path, Mapping[int, Sequence[End]]]:
    """How dead elements of open submissions have ended; those without a living element are closed for good."""
    by_name = controller.ends([record.job_id for record in records if record.job_id])
    found: dict[Path, Mapping[int, Sequence[End]]] = {}
    for record in records:
        names = {index: record.name_of(index) for index in range(len(record.elements))}
        ends = {index: by_name.get(name, []) for index, name in names.items() if name not in live}
        found[record.folder] = ends
        # sacct lags behind the controller by seconds: a record that still says RUNNING is not the last word.
        if len(ends) == len(names) and not any(end and end[-1].state in _UNFINISHED for end in ends.values()):
            record.close(ends)
    return found


def _holders(states: Sequence[JobState], records: Sequence[Submission]) -> dict[str, list[tuple[Submission, int]]]:
    """The elements that have or had each run, the oldest first."""
    wanted = {state.job.run_id for state in states}
    holders: dict[str, list[tuple[Submission, int]]] = {}
    for record in records:
        for index, runs in enumerate(record.elements):
            for run in runs:
                if run in wanted:
                    holders.setdefault(run, []).append((record, index))
    return holders


def _standing(
    state: JobState,
    holders: Sequence[tuple[Submission, int]],
    live: Mapping[str, Live],
    ends: Mapping[Path, Mapping[int, Sequence[End]]],
) -> Standing:
    log = holders[-1][0].log_of(holders[-1][1]) if holders else None
    extends = ""
    for record, index in holders:
        name = record.name_of(index)
        if name in live and not state.is_final:
            covered = record.elements[index][state.job.run_id].issuperset(state.job.evaluations)
            if covered:
                return Standing(state, live[name], name, record.log_of(index))
            extends = record.job_id or ""
    if state.is_final:
        return Standing(state, log=log)
    # Nothing is known of the end of an element that SLURM could not be asked about.
    past = tuple(
        _past(state, record, index, ends[record.folder].get(index, ()))
        for record, index in holders
        if record.name_of(index) not in live and record.folder in ends
    )
    return Standing(state, log=log, extends=extends, past=past)


def _past(state: JobState, record: Submission, index: int, ends: Sequence[End]) -> Past:
    log = record.log_of(index)
    failure = record.failures(index).get(state.job.run_id, "")
    end = ends[-1] if ends else None
    minutes, gigabytes = record.resources.minutes, record.resources.memory_gb
    cause = cause_of(end, failure, log, gigabytes * GB)
    words = {
        "time": f"out of time ({minutes} minutes)",
        "memory": f"out of memory ({gigabytes} GB)",
        "gpu memory": failure or "CUDA out of memory: recompute=true, micro_tokens=... or fit=auto",
        "disk": failure,
        "crash": failure or f"the element ended {end.state if end else 'without a word'}",
        "node": "its node failed",
        "left": "left to another process",
        "unknown": "ended without a trace",
    }
    return Past(cause, words.get(cause, cause), log)


def cause_of(end: End | None, failure: str, log: Path, asked_bytes: int) -> str:
    """Why an element did not finish a run, by what the element wrote, by sacct and by its log, in this order."""
    if failure:
        if "no space left" in failure.lower():
            return "disk"
        if failure.startswith("out of time"):
            return "time"
        if failure.startswith("node: "):
            return "node"
        if _GPU_MEMORY_WORDS.search(failure):
            return "gpu memory"
        if _MEMORY_WORDS.search(failure):
            return "memory"
    if end is not None and end.state in _BY_STATE and not (end.state == "COMPLETED" and failure):
        return _BY_STATE[end.state]
    if end is not None and end.max_rss_bytes >= NEAR_ASKED * asked_bytes:
        return "memory"
    tail = _tail(log)
    # A requeued element appends to its log: the last word counts.
    said = {found.start(): cause for cause, words in _BY_LOG for found in words.finditer(tail)}
    if said:
        return said[max(said)]
    # Without accounting and without output nothing says that it ever began.
    return "crash" if failure or end is not None or tail else "unknown"


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
