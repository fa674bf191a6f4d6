"""Where does every run of a sweep stand on the cluster? The run folder's marker first, then SLURM's word.

Wanted - done - running = submit. A run is done by its journal; it is on its way where a living element has it; what
is neither is judged by how the elements that had it have ended: what ran out of time or memory needs more, a crash
counts, and what the cluster did (preemption, a dead node, a cancellation) does not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from structlin.launch.reconcile import JobState
from structlin.launch.slurm.causes import COUNTED, cause_of
from structlin.launch.slurm.controller import ELSEWHERE, Controller, ControllerError, End, Live
from structlin.launch.slurm.submissions import Submission, submitted

GB = 1024**3
"""A gigabyte of sbatch."""
DOUBT_SECONDS = 60
"""An array that SLURM has not shown so long after its submission was never taken."""
NODE_SECONDS = 24 * 3600
"""A run keeps away from a sick node for so long."""
MOST_NODES = 16
"""And from so many at most: somewhere it has to run."""
_UNFINISHED = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "RESIZING", "REQUEUED")
_ON_NODE = re.compile(r" \[node (\S+)\]$")
"""How an element ends a reason that its node is to blame for."""


@dataclass(frozen=True)
class Past:
    """An element that had a run and has ended without finishing it."""

    cause: str
    """A name of causes.CAUSES."""
    reason: str
    """One line for people."""
    log: Path
    node: str = ""
    """The node that was to blame."""
    when: float = 0.0
    """Seconds since 1970 of its submission, or of the word that it left."""


@dataclass(frozen=True)
class Standing:
    """One run of a sweep."""

    state: JobState[Any]
    live: Live | None = None
    """The element that has it, if one lives."""
    name: str = ""
    """That element's name."""
    cluster: str = ""
    """The cluster that has it, or the shorter request of it; empty where none was recorded."""
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

    def sick_nodes(self, now: float) -> tuple[str, ...]:
        """Nodes that have failed it lately."""
        lately = [past.node for past in reversed(self.past) if past.node and now - past.when < NODE_SECONDS]
        return tuple(sorted(list(dict.fromkeys(lately))[:MOST_NODES]))

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is left to a cluster that does not answer here."""
        return self.live is not None and self.live.state == ELSEWHERE

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
        if self.past and self.past[-1].cause in (*COUNTED, "storage", "node"):
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
    states: Sequence[JobState[Any]], records: Sequence[Submission], controller: Controller, *, must_answer: bool
) -> Survey:
    """Two calls of SLURM for everything; submissions of which nothing lives are closed.

    ControllerError where the controller does not answer and ``must_answer``; else what the store alone knows. Another
    cluster that does not answer leaves its submissions open: whatever they hold is left to them.
    """
    seen = _Seen(may_close=must_answer)
    for cluster, several in _by_cluster([record for record in records if record.ends is None]).items():
        if "," in cluster:
            seen.search(several, controller, cluster)
            continue
        is_own = True
        try:
            # Whether a cluster is ours has to be known: its open submissions would be closed by another one's word.
            is_own = cluster in ("", controller.cluster) or cluster == controller.name
            seen.look(several, controller.on("") if is_own else controller.on(cluster))
        except ControllerError as error:
            if is_own and must_answer:
                raise
            if is_own:
                seen.notes.append(f"SLURM does not answer, the run store alone speaks: {error}")
            else:
                seen.leave(several, cluster)
    for record in records:
        if record.ends is not None:
            seen.ends[record.folder] = record.ends
    if skipped := controller.skipped:
        seen.notes.append(f"{len(skipped)} line(s) of SLURM's answers are none and were skipped, such as: {skipped[0]}")
    current = [seen.adopted.get(record.folder, record) for record in records]
    holders = _holders(states, current)
    return Survey(
        [_standing(state, holders.get(state.job.run_id, ()), seen) for state in states], "; ".join(seen.notes)
    )


def _by_cluster(records: Sequence[Submission]) -> dict[str, list[Submission]]:
    found: dict[str, list[Submission]] = {}
    for record in records:
        found.setdefault(record.cluster, []).append(record)
    return found


class _Seen:
    """What SLURM has said of the submissions of a store."""

    def __init__(self, *, may_close: bool) -> None:
        self.may_close = may_close
        self.live: dict[Path, dict[int, Live]] = {}
        self.ends: dict[Path, Mapping[int, Sequence[End]]] = {}
        self.adopted: dict[Path, Submission] = {}
        self.notes: list[str] = []

    def look(self, records: Sequence[Submission], controller: Controller) -> None:
        """Ask one cluster about its open submissions, and close those without a living element for good."""
        queue = controller.live({record.user for record in records})
        known = [one for record in records if (one := self._found(record, queue, controller)) is not None]
        accounts = controller.ends([record.job_id for record in known if record.job_id])
        for record in known:
            names = {index: record.name_of(index) for index in range(len(record.elements))}
            live = {index: queue[name] for index, name in names.items() if name in queue}
            self.live[record.folder] = {index: one for index, one in live.items() if record.owns(one.label)}
            ends = {
                index: [end for end in accounts.get(name, []) if record.owns(end.label)]
                for index, name in names.items()
                if index not in self.live[record.folder]
            }
            self.ends[record.folder] = ends
            # sacct lags behind the controller by seconds: a record that still says RUNNING is not the last word.
            if len(ends) == len(names) and not any(end and end[-1].state in _UNFINISHED for end in ends.values()):
                record.close(ends)

    def _found(self, record: Submission, queue: Mapping[str, Live], controller: Controller) -> Submission | None:
        """A submission whose array is known: where sbatch's answer was lost, SLURM shows it by its token."""
        if record.job_id is not None:
            return record
        found = self._adopt(record, queue, controller)
        if found is None:
            self._doubt(record)
        return found

    def _adopt(self, record: Submission, queue: Mapping[str, Live], controller: Controller) -> Submission | None:
        """A submission whose answer was lost, with the array that a cluster shows by its token, if it does."""
        names = [name for name, one in queue.items() if one.label.token == record.token]
        if not names:
            accounts = controller.named(record.job_name or record.sweep, record.user, record.submitted - 60)
            names = [name for name, ends in accounts.items() if any(end.label.token == record.token for end in ends)]
        if not names:
            return None
        found = submitted(record, names[0].split("_")[0], controller.cluster)
        self.adopted[record.folder] = found
        self.notes.append(f"array {found.job_id} was submitted by a command that lost sbatch's answer; adopted")
        return found

    def _doubt(self, record: Submission) -> None:
        """Nobody shows the array. Who only looks may have found a command that waits for sbatch: he closes nothing."""
        if self.may_close and time.time() - record.submitted > DOUBT_SECONDS:
            self.ends[record.folder] = {}
            record.close({})
        else:
            doubt = Live(
                "PENDING", "sbatch's answer was lost a moment ago: in a minute SLURM will show whether it took it"
            )
            self.live[record.folder] = dict.fromkeys(range(len(record.elements)), doubt)

    def search(self, records: Sequence[Submission], controller: Controller, clusters: str) -> None:
        """Find the arrays whose answer was lost, each on whichever of several clusters sbatch chose."""
        left, silent = list(records), ""
        for cluster in clusters.split(","):
            one = controller.on(cluster)
            try:
                queue = one.live({record.user for record in left})
                found = [record for record in left if self._adopt(record, queue, one) is not None]
                self.look([self.adopted[record.folder] for record in found], one)
            except ControllerError:
                silent = cluster
                continue
            left = [record for record in left if record not in found]
        if left and silent:
            self.leave(left, silent)
        else:
            for record in left:
                self._doubt(record)

    def leave(self, records: Sequence[Submission], cluster: str) -> None:
        """Leave submissions to a cluster that does not answer here."""
        for record in records:
            left = Live(ELSEWHERE, f"on cluster {cluster}, which does not answer here")
            self.live[record.folder] = dict.fromkeys(range(len(record.elements)), left)
        self.notes.append(f"{len(records)} submission(s) are left to cluster {cluster}, which does not answer here")


def _holders(states: Sequence[JobState[Any]], records: Sequence[Submission]) -> dict[str, list[tuple[Submission, int]]]:
    """The elements that have or had each run, the oldest first."""
    wanted = {state.job.run_id for state in states}
    holders: dict[str, list[tuple[Submission, int]]] = {}
    for record in records:
        for index, runs in enumerate(record.elements):
            for run in runs:
                if run in wanted:
                    holders.setdefault(run, []).append((record, index))
    return holders


def _standing(state: JobState[Any], holders: Sequence[tuple[Submission, int]], seen: _Seen) -> Standing:
    log = holders[-1][0].log_of(holders[-1][1]) if holders else None
    extends = cluster = ""
    for record, index in holders:
        live = seen.live.get(record.folder, {}).get(index)
        if live is not None and not state.is_final:
            covered = record.elements[index][state.job.run_id].issuperset(state.job.evaluations)
            if covered:
                return Standing(state, live, record.name_of(index), record.cluster, record.log_of(index))
            extends, cluster = record.job_id or "", record.cluster
    if state.is_final:
        return Standing(state, log=log)
    # Nothing is known of the end of an element that SLURM could not be asked about.
    past = tuple(
        _past(state, record, index, seen.ends[record.folder].get(index, ()))
        for record, index in holders
        if index not in seen.live.get(record.folder, {}) and seen.ends.get(record.folder)
    )
    return Standing(state, cluster=cluster, log=log, extends=extends, past=past)


def _past(state: JobState[Any], record: Submission, index: int, ends: Sequence[End]) -> Past:
    log = record.log_of(index)
    failure = record.failures(index).get(state.job.run_id, "")
    end = ends[-1] if ends else None
    minutes, gigabytes = record.resources.minutes, record.resources.memory_gb
    cause = cause_of(end, failure, log, gigabytes * GB)
    words = {
        "time": f"out of time ({minutes} minutes)",
        "memory": f"out of memory ({gigabytes} GB)",
        "storage": failure or "nothing could be written (its exit code tells)",
        "gpu memory": failure or "CUDA out of memory: recompute=true, micro_tokens=... or fit=auto",
        "crash": failure or f"the element ended {end.state if end else 'without a word'}",
        "node": failure or "its node failed",
        "saved": "saved before its end, and to be submitted again",
        "setup": "launch.setup failed on the node; its log says how",
        "left": "left to another process",
        "unknown": "ended without a trace",
    }
    blamed = _ON_NODE.search(failure)
    return Past(cause, words.get(cause, cause), log, blamed[1] if blamed else "", record.said_at(index))
