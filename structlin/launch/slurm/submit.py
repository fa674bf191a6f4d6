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
from collections.abc import Iterable, Iterator, Sequence
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
    clusters: dict[str, str] = field(default_factory=dict)
    """Run id -> the cluster that has its array, where sbatch chose it."""
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
    canary_cluster: str = ""

    @property
    def arrays(self) -> list[str]:
        """The arrays by their numbers, and their clusters where sbatch chose them."""
        where = {run: f" on {cluster}" if cluster else "" for run, cluster in self.clusters.items()}
        return list(dict.fromkeys(f"{array}{where.get(run, '')}" for run, array in self.runs.items()))


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
        """Orders of what is missing: those that can start, and branches whose trunk (or parent) is missing too."""
        throughputs = Throughputs(self.site.runs, self.site.machine)
        planned = {one.state.job.run_id for one in standings}
        on_their_way = {one.state.job.run_id: one for one in standings if one.live is not None}
        missing_runs = {one.state.job.run_id for one in missing}
        first: list[Order] = []
        branches: list[Order] = []
        for one in missing:
            job = one.state.job
            trunk = None if job.follows is None else run_id(job.follows)
            # An element that trains the run to fewer steps still has it: beside it this order would find it taken.
            after = [(one.extends, one.cluster)] if one.extends else []
            if trunk in on_their_way and self._may_wait_for(on_their_way[trunk].cluster):
                # 12 of 12_3: whole arrays are waited for.
                after.append((on_their_way[trunk].name.split("_")[0], on_their_way[trunk].cluster))
            order = Order(
                job=job,
                steps=max(1, trained_steps(job, planned) - one.state.step),
                tokens_per_second=throughputs.find(job.science, self.site.placement),
                more_time=self.launch.grow_on_retry ** one.count("time"),
                more_memory=self.launch.grow_on_retry ** one.count("memory"),
                after=tuple(array for array, _ in after),
                exclude=one.sick_nodes(time.time()),
                cluster=self._only(cluster for _, cluster in after),
            )
            (branches if trunk in missing_runs else first).append(order)
        return first, branches

    def _may_wait_for(self, cluster: str) -> bool:
        """Whether an array of this command can depend on one of a cluster."""
        return cluster in ("", *self.cluster.split(","))

    def _only(self, clusters: Iterable[str]) -> str:
        """The one of several clusters that arrays to be waited for are on; several of them joined, and then none."""
        return ",".join(sorted({cluster for cluster in clusters if cluster})) if self.controller.is_several else ""

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
        first, branches = self._on_one_cluster(first, result), self._on_one_cluster(branches, result)
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
                trunk = run_id(order.job.follows) if order.job.follows is not None else ""
                if trunk in result.runs:
                    cluster = self._only((order.cluster, result.clusters.get(trunk, "")))
                    following.append(replace(order, after=(*order.after, result.runs[trunk]), cluster=cluster))
                else:
                    result.waiting.append(order.job.run_id)
            following = self._on_one_cluster(following, result)
            self._submit_all(packs(following, self.launch, self.site.placement), most, snapshot, result)
        return result

    def _on_one_cluster(self, orders: Sequence[Order], result: Submitted) -> list[Order]:
        """Those that wait for arrays of one cluster at most; the others wait for the same command later."""
        result.waiting += [order.job.run_id for order in orders if "," in order.cluster]
        return [order for order in orders if "," not in order.cluster]

    def _send_ahead(self, first: Sequence[Order], most: int, snapshot: Path, result: Submitted) -> list[Order]:
        """Submit the cheapest order alone; the others."""
        one = min(first, key=lambda order: run_seconds(order, self.launch, self.site.placement))
        self._submit_all(packs([one], self.launch, self.site.placement), most, snapshot, result)
        result.canary = result.runs.get(one.job.run_id, "")
        result.canary_cluster = result.clusters.get(one.job.run_id, "")
        return [order for order in first if order is not one]

    def scripts(self, first: Sequence[Order], branches: Sequence[Order], most: int) -> Iterator[str]:
        """What sbatch would read, for a dry run; numbers of arrays that do not exist yet are left out."""
        found = list(arrays(packs([*first, *branches], self.launch, self.site.placement), most))
        limits = shares([len(group) for group in found], self.launch.max_running)
        for number, (group, at_once) in enumerate(zip(found, limits, strict=True), 1):
            folder = self.folder / "submissions" / f"{number:04d}"
            values = self._parameters(group[0], at_once, "SNAPSHOT", (), cluster=group[0].cluster)
            yield script(self.launch, values, folder / "log", len(group))

    def _parameters(
        self,
        pack: Pack,
        at_once: int,
        snapshot: Path | str,
        after: Sequence[str],
        token: str = "",
        canary: str = "",
        cluster: str = "",
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
            cluster=cluster,
        )

    def _submit_all(self, found: Sequence[Pack], most: int, snapshot: Path, result: Submitted) -> None:
        groups = list(arrays(found, most))
        limits = shares([len(group) for group in groups], self.launch.max_running)
        names: list[tuple[str, str]] = []
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
        after: Sequence[tuple[str, str]],
        names: list[tuple[str, str]],
        result: Submitted,
    ) -> list[Pack]:
        """Submit as many of the packs as SLURM takes, in ever smaller arrays where it takes fewer; returns the rest.

        ``after`` and ``names``: arrays and their clusters.
        """
        cluster = self._only((group[0].cluster, result.canary_cluster, *(where for _, where in after)))
        if "," in cluster:  # what it has to wait for is on several clusters
            return group
        before = [name for name, _ in after]
        # The controller refuses an array as a whole, and without saying how much would have fitted.
        size, left = min(len(group), result.room), group
        if size < len(group):
            result.reason = f"the controller has room for {result.room} more jobs"
        while size and left:
            part, rest = left[:size], left[size:]
            try:
                known = self._submit_array(part, min(len(part), at_once), snapshot, before, result.canary, cluster)
            except InDoubt as error:
                result.reason = str(error)
                return left
            except LimitReached as error:
                result.reason = str(error)
            except Refused as error:
                result.refused.update({job.run_id: str(error) for pack in left for job in pack.jobs})
                return []
            else:
                job_id = str(known.job_id)
                chosen = known.cluster if self.controller.is_several else ""
                names.append((job_id, chosen))
                result.elements += len(part)
                result.room -= len(part)
                result.runs.update({job.run_id: job_id for pack in part for job in pack.jobs})
                result.clusters.update({job.run_id: chosen for pack in part for job in pack.jobs})
                left = rest
            # Where 2k were refused and k taken, fewer than k are left: k / 2 comes next, and few calls fill the limit.
            size = min(size // 2, result.room)
        return left

    def _submit_array(
        self, part: list[Pack], at_once: int, snapshot: Path, after: Sequence[str], canary: str, cluster: str
    ) -> Submission:
        """Submit an array, to ``cluster`` or to whichever sbatch chooses."""
        controller = self.controller.on(cluster) if cluster else self.controller
        token = secrets.token_hex(8)
        record = begin(
            self.folder,
            [pack.jobs for pack in part],
            part[0].resources,
            self.site.machine,
            getpass.getuser(),
            time.time(),
            token=token,
            cluster=cluster or self.cluster,
            job_name=str(self.launch.own_options.get("job-name", self.sweep)),
        )
        try:
            shared = replace(self.launch, runs_per_gpu=part[0].resources.runs_per_gpu)
            Setting(self.site, shared, part[0].resources.minutes).write(record.folder)
            values = self._parameters(part[0], at_once, snapshot, after, token, canary, cluster)
            job_id, chosen = submit(self.launch, values, record.folder, len(part), controller)
        except InDoubt as error:
            return self._adopted(record, error, controller)
        except (Refused, OSError):
            shutil.rmtree(record.folder, ignore_errors=True)
            raise
        # Whatever else ends us here leaves a record that the next command finds its array by.
        try:
            return submitted(record, job_id, chosen)
        except OSError:  # a full disk: nobody would know of this array
            controller.on(chosen if self.controller.is_several else "").cancel([job_id])
            raise

    def _adopted(self, record: Submission, error: InDoubt, controller: Controller) -> Submission:
        """A submission whose answer was lost, with its array, if SLURM shows it within seconds."""
        for seconds in (0, 2, 5):
            time.sleep(seconds)
            for one in controller.each():
                with contextlib.suppress(ControllerError):
                    queue = one.live([record.user])
                    names = [name for name, job in queue.items() if job.label.token == record.token]
                    if names:
                        return submitted(record, names[0].split("_")[0], one.cluster or self.cluster)
        raise InDoubt(f"{error}; in a minute the same command finds out whether SLURM took the array")


def submission_lock(runs: Path) -> AbstractContextManager[None]:
    """One submission to a store at a time; others say that they wait, and wait."""
    folder = runs / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)

    def tell(line: str) -> None:
        print(f"another command submits to {runs}; {line}", flush=True)

    return exclusive(folder / "lock", tell)
