"""How does a sweep get onto a cluster? Reconcile, order what is missing, freeze the code, submit arrays, return.

One command at a time submits to a store (a lock), so that two sweeps with common runs submit each of them once. What
SLURM does not take now (limits of a QOS or of the controller) is reported, and submitted by the same command later.
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from structlin.config.identity import run_id
from structlin.config.launch import SlurmLaunch
from structlin.config.request import Site
from structlin.host.locks import exclusive
from structlin.host.storage import why_not_writable
from structlin.launch.reconcile import reconcile
from structlin.launch.slurm.arrays import InDoubt, LimitReached, Refused, parameters, script, submit
from structlin.launch.slurm.controller import Controller, ControllerError
from structlin.launch.slurm.element import Setting
from structlin.launch.slurm.packs import Pack, arrays, packs, shares
from structlin.launch.slurm.resources import Order, run_seconds
from structlin.launch.slurm.snapshot import freeze
from structlin.launch.slurm.speeds import harvest
from structlin.launch.slurm.standing import Standing, survey
from structlin.launch.slurm.submissions import Submission, begin, submissions, submitted
from structlin.planning.bill import trained_steps
from structlin.runs.job import Job
from structlin.runs.speeds import Throughputs
from structlin.runs.store import Store


@dataclass
class Submitted:
    """What a command has brought onto the cluster, and what not."""

    runs: dict[str, str] = field(default_factory=dict)
    """Run id -> array."""
    elements: int = 0
    waiting: list[str] = field(default_factory=list)
    """Runs that SLURM takes later."""
    refused: dict[str, str] = field(default_factory=dict)
    """Run id -> why SLURM never takes it as it is."""
    reason: str = ""
    """Why something waits."""
    room: int = 0
    """Elements that the controller still has room for."""
    canary: str = ""
    """The array that has to end well before the others begin."""


@dataclass(frozen=True)
class Submitter:
    """One command that submits to one store."""

    sweep: str
    site: Site
    """With absolute paths: elements start elsewhere."""
    launch: SlurmLaunch
    controller: Controller

    @cached_property
    def cluster(self) -> str:
        """The cluster that arrays go to, where there is one to name."""
        return self.controller.name

    @property
    def folder(self) -> Path:
        """The sweep's own folder in the store."""
        return self.site.runs / "sweeps" / self.sweep

    def missing(
        self, jobs: Sequence[Job], *, retry_failed: bool, dry: bool = False
    ) -> tuple[list[Standing], list[Standing]]:
        """Where all jobs stand, and which of them are to be submitted; ``dry`` keeps no speeds."""
        states = reconcile(jobs, Store(self.site.runs))
        records = submissions(self.site.runs)
        if not dry:
            harvest(states, records, self.site)
        standings = survey(states, records, self.controller, must_answer=True).standings
        open_ones = [one for one in standings if one.is_open or (retry_failed and one.is_elsewhere)]
        return standings, [one for one in open_ones if retry_failed or not one.is_given_up(self.launch.max_retries)]

    def orders(self, standings: Sequence[Standing], missing: Sequence[Standing]) -> tuple[list[Order], list[Order]]:
        """Orders of what is missing: those that can start, and branches whose trunk is missing too."""
        throughputs = Throughputs(self.site.runs, self.site.machine)
        planned = {one.state.job.run_id for one in standings}
        on_their_way = {one.state.job.run_id: one for one in standings if one.live is not None}
        missing_runs = {one.state.job.run_id for one in missing}
        first: list[Order] = []
        branches: list[Order] = []
        for one in missing:
            job = one.state.job
            trunk = None if job.trunk is None else run_id(job.trunk)
            # An element that trains the run to fewer steps still has it: beside it this order would find it taken.
            after = [one.extends] if one.extends else []
            if trunk in on_their_way and on_their_way[trunk].cluster in ("", self.cluster):
                # 12 of 12_3: whole arrays are waited for.
                after.append(on_their_way[trunk].name.split("_")[0])
            order = Order(
                job=job,
                steps=max(1, trained_steps(job, planned) - one.state.step),
                tokens_per_second=throughputs.find(job.science, self.site.placement),
                more_time=self.launch.grow_on_retry ** one.count("time"),
                more_memory=self.launch.grow_on_retry ** one.count("memory"),
                after=tuple(after),
                exclude=one.sick_nodes(time.time()),
            )
            (branches if trunk in missing_runs else first).append(order)
        return first, branches

    def unwritable(self, jobs: Sequence[Job]) -> tuple[list[Standing], list[Standing], Submitted] | None:
        """Where nothing can be written: how everything stands, what is missing, and that all of it waits; else None.

        What failed for want of space would fail again. Looked at before anything that a command writes for itself.
        """
        if not (reason := why_not_writable(self.site.runs)):
            return None
        standings, missing = self.missing(jobs, retry_failed=False, dry=True)
        waiting = [one.state.job.run_id for one in missing]
        return (
            standings,
            missing,
            Submitted(waiting=waiting, reason=f"nothing can be written to {self.site.runs}: {reason}"),
        )

    def submit(self, first: Sequence[Order], branches: Sequence[Order], *, canary: bool = False) -> Submitted:
        """Submit everything that SLURM takes; a branch waits for its trunk's array.

        ``canary``: the cheapest run goes first, and the rest begins only when it has ended well.
        """
        result = Submitted()
        waiting = [order.job.run_id for order in (*first, *branches)]
        if first or branches:
            snapshot = freeze(self.folder)
            limits = self.controller.limits()
            most, result.room = limits.array_size, self.controller.room(limits)
            if canary and len(waiting) > 1 and first:
                first = self._send_ahead(first, most, snapshot, result)
                if not result.canary:
                    result.waiting += [order.job.run_id for order in (*first, *branches)]
                    return result
            self._submit_all(packs(first, self.launch, self.site.placement), most, snapshot, result)
            following = []
            for order in branches:
                trunk = run_id(order.job.trunk) if order.job.trunk is not None else ""
                if trunk in result.runs:
                    following.append(replace(order, after=(*order.after, result.runs[trunk])))
                else:
                    result.waiting.append(order.job.run_id)
            self._submit_all(packs(following, self.launch, self.site.placement), most, snapshot, result)
        return result

    def _send_ahead(self, first: Sequence[Order], most: int, snapshot: Path, result: Submitted) -> list[Order]:
        """Submit the cheapest order alone; the others."""
        one = min(first, key=lambda order: run_seconds(order, self.launch, self.site.placement))
        self._submit_all(packs([one], self.launch, self.site.placement), most, snapshot, result)
        result.canary = result.runs.get(one.job.run_id, "")
        return [order for order in first if order is not one]

    def scripts(self, first: Sequence[Order], branches: Sequence[Order], most: int) -> Iterator[str]:
        """What sbatch would read, for a dry run; numbers of arrays that do not exist yet are left out."""
        found = list(arrays(packs([*first, *branches], self.launch, self.site.placement), most))
        limits = shares([len(group) for group in found], self.launch.max_running)
        for number, (group, at_once) in enumerate(zip(found, limits, strict=True), 1):
            folder = self.folder / "submissions" / f"{number:04d}"
            yield script(self.launch, self._parameters(group[0], at_once, "SNAPSHOT", ()), folder / "log", len(group))

    def _parameters(
        self,
        pack: Pack,
        at_once: int,
        snapshot: Path | str,
        after: Sequence[str],
        token: str = "",
        canary: str = "",
    ) -> dict[str, object]:
        return parameters(
            self.launch,
            pack.resources,
            self.sweep,
            self.folder / "snapshot" / snapshot,
            at_once,
            [*pack.after, *after],
            token=token,
            after_success=canary,
            exclude=pack.exclude,
        )

    def _submit_all(self, found: Sequence[Pack], most: int, snapshot: Path, result: Submitted) -> None:
        groups = list(arrays(found, most))
        limits = shares([len(group) for group in groups], self.launch.max_running)
        names: list[str] = []
        for group, at_once in zip(groups, limits, strict=True):
            # More arrays than elements may run at once: this one takes the place of an earlier one.
            place = len(names) - self.launch.max_running
            after = [names[place]] if self.launch.max_running and 0 <= place < len(names) else []
            left = group if result.reason else self._submit_group(group, at_once, snapshot, after, names, result)
            result.waiting += [job.run_id for pack in left for job in pack.jobs]

    def _submit_group(
        self,
        group: list[Pack],
        at_once: int,
        snapshot: Path,
        after: Sequence[str],
        names: list[str],
        result: Submitted,
    ) -> list[Pack]:
        """Submit as many of the packs as SLURM takes, in ever smaller arrays where it takes fewer; returns the rest."""
        # The controller refuses an array as a whole, and without saying how much would have fitted.
        size, left = min(len(group), result.room), group
        if size < len(group):
            result.reason = f"the controller has room for {result.room} more jobs"
        while size and left:
            part, rest = left[:size], left[size:]
            try:
                job_id = self._submit_array(part, min(len(part), at_once), snapshot, after, result.canary)
            except InDoubt as error:
                result.reason = str(error)
                return left
            except LimitReached as error:
                result.reason = str(error)
            except Refused as error:
                result.refused.update({job.run_id: str(error) for pack in left for job in pack.jobs})
                return []
            else:
                names.append(job_id)
                result.elements += len(part)
                result.room -= len(part)
                result.runs.update({job.run_id: job_id for pack in part for job in pack.jobs})
                left = rest
            # Where 2k were refused and k taken, fewer than k are left: k / 2 comes next, and few calls fill the limit.
            size = min(size // 2, result.room)
        return left

    def _submit_array(self, part: list[Pack], at_once: int, snapshot: Path, after: Sequence[str], canary: str) -> str:
        token = secrets.token_hex(8)
        record = begin(
            self.folder,
            [pack.jobs for pack in part],
            part[0].resources,
            self.site.machine,
            getpass.getuser(),
            time.time(),
            token=token,
            cluster=self.cluster,
            job_name=str(self.launch.own_options.get("job-name", self.sweep)),
        )
        try:
            shared = replace(self.launch, runs_per_gpu=part[0].resources.runs_per_gpu)
            Setting(self.site, shared, part[0].resources.minutes).write(record.folder)
            values = self._parameters(part[0], at_once, snapshot, after, token, canary)
            job_id, cluster = submit(self.launch, values, record.folder, len(part), self.controller)
        except InDoubt as error:
            return self._adopted(record, error)
        except (Refused, OSError):
            shutil.rmtree(record.folder, ignore_errors=True)
            raise
        # Whatever else ends us here leaves a record that the next command finds its array by.
        try:
            submitted(record, job_id, cluster)
        except OSError:  # a full disk: nobody would know of this array
            self.controller.cancel([job_id])
            raise
        return job_id

    def _adopted(self, record: Submission, error: InDoubt) -> str:
        """The job id of an array whose answer was lost, if SLURM shows it within seconds."""
        for seconds in (0, 2, 5):
            time.sleep(seconds)
            with contextlib.suppress(ControllerError):
                queue = self.controller.live([record.user])
                names = [name for name, one in queue.items() if one.label.token == record.token]
                if names:
                    job_id = names[0].split("_")[0]
                    submitted(record, job_id, self.cluster)
                    return job_id
        raise InDoubt(f"{error}; in a minute the same command finds out whether SLURM took the array")


def submission_lock(runs: Path) -> AbstractContextManager[None]:
    """One submission to a store at a time; others say that they wait, and wait."""
    folder = runs / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)

    def tell(line: str) -> None:
        print(f"another command submits to {runs}; {line}", flush=True)

    return exclusive(folder / "lock", tell)
