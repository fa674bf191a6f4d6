"""How are jobs trained on this machine? A pool of warm workers, one per GPU or sharing the CPU's cores.

Longest jobs first; a cooldown's branch waits for its trunk, a run that starts from another one for that. Ctrl-C asks
every worker to save a checkpoint; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

from structlin.anatomy.compute import flops_between
from structlin.config.identity import run_id
from structlin.config.request import Site
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.launch.reconcile import JobState, job_state, reconcile
from structlin.launch.worker_process import Worker, WorkerDied
from structlin.runs import devices
from structlin.runs.job import Job
from structlin.runs.machine import cores, gpu_names
from structlin.runs.speeds import Throughputs, shape_key
from structlin.runs.store import Store

BUSY_RETRY_SECONDS = 0.5


def num_workers(asked: int, site: Site) -> int:
    """Workers side by side: as asked, else one per GPU, else the cores divided by the threads of each."""
    if asked:
        return asked
    gpus = gpu_names() if site.placement.device != "cpu" else []
    if gpus:
        return len(gpus)
    return max(1, cores() // site.placement.threads)


def probe_missing(sciences: Sequence[Science], site: Site, workers: int, tell: Callable[[str], None]) -> int:
    """Measure the speed of every shape that was never measured on this machine, and keep it; how many there were.

    As many at a time as runs will train: each has then the share of the machine that it will have, and a GPU, where a
    shape is compiled first, is not waited for one shape after another.
    """
    throughputs = Throughputs(site.runs)
    shapes = {shape_key(science): science for science in sciences}
    missing = [science for science in shapes.values() if throughputs.find(science, site.placement) is None]
    free: SimpleQueue[Worker] = SimpleQueue()
    crew = [_worker(index, site) for index in range(min(workers, len(missing)))]
    for worker in crew:
        free.put(worker)

    def probe(science: Science) -> float:
        worker = free.get()
        try:
            tell(f"measuring the speed of {science.variant} at d_model = {science.model.d_model}")
            return worker.probe(science)
        finally:
            free.put(worker)

    try:
        with ThreadPoolExecutor(max(1, len(crew))) as pool:
            futures = {pool.submit(probe, science): science for science in missing}
            try:
                for future in as_completed(futures):
                    try:
                        throughputs.keep(futures[future], site.placement, future.result())
                    except WorkerDied as error:
                        # The run itself will say so in its status; until then its time is a guess.
                        tell(f"not measured: {error}")
            except BaseException:
                # Ctrl-C, or what no probe can do: the others are not begun.
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in crew:
                    worker.stop()
                raise
    finally:
        for worker in crew:
            worker.close()
    return len(missing)


@dataclass
class Task:
    """A job on its way through the pool."""

    state: JobState[Job]
    outcome: str = ""
    """Empty until it ends: done, diverged, interrupted, failed; busy where it was left to another process."""
    reason: str = ""
    began: float = 0.0


class Trains(Protocol):
    """What trains one job after another: a process (Worker), or one for every rank."""

    def train(self, job: Job, runs: Path, data_root: Path) -> str:
        """Train a job; returns its end state. UserError and WorkerDied as in Worker."""

    def stop(self) -> None:
        """Ask for a checkpoint and an end."""

    def close(self) -> None:
        """Wait for the end."""


class Pool:
    """Trains jobs on this machine; ``tasks`` is its state for whoever shows progress."""

    def __init__(
        self,
        jobs: Sequence[Job],
        site: Site,
        workers: int,
        make_worker: Callable[[int, Site], Trains] | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """``waits``: for a run that another sweep trains, so that what is missing afterwards is trained here."""
        make_worker = make_worker or _worker
        self.site = site
        self.waits = waits
        self.store = Store(site.runs)
        self.tasks = [Task(state) for state in reconcile(jobs, self.store)]
        for task in self.tasks:
            if task.state.is_final:
                task.outcome = task.state.state
        pending = [task for task in self.tasks if not task.outcome]
        self._queue = sorted(pending, key=_remaining_flops, reverse=True)
        self._changed = threading.Condition()
        self._stopping = False
        self._workers = [make_worker(index, site) for index in range(min(workers, max(1, len(pending))))]
        self._threads = [threading.Thread(target=self._serve, args=(worker,)) for worker in self._workers]

    def start(self) -> None:
        """Begin to train."""
        for thread in self._threads:
            thread.start()

    @property
    def is_running(self) -> bool:
        """Whether any worker is still at work."""
        return any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Let every run save a checkpoint and end; safe to call again."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.stop()

    def _serve(self, worker: Trains) -> None:
        while (task := self._next()) is not None:
            task.began = time.monotonic()
            self._train(worker, task)
            with self._changed:
                self._changed.notify_all()
        worker.close()

    def _train(self, worker: Trains, task: Task) -> None:
        job = task.state.job
        try:
            outcome = worker.train(job, self.site.runs, self.site.data_root)
            while outcome in ("busy", "superseded") and self.waits and not self._stopping:
                time.sleep(BUSY_RETRY_SECONDS)
                outcome = worker.train(job, self.site.runs, self.site.data_root)
            said = getattr(worker, "reason", "") or task.state.folder.status().get("reason", "")
            reason = str(said) if outcome == "failed" else ""
        except UserError as error:
            outcome, reason = "failed", str(error)
        except WorkerDied as error:
            outcome = "interrupted" if self._stopping else "failed"
            reason = str(error)
        except OSError as error:
            outcome, reason = "failed", f"storage: {error.strerror or error}: {error.filename or self.site.runs}"
        with contextlib.suppress(OSError):  # a store that has gone: what was known of the run stands
            task.state = job_state(job, self.store)
        task.outcome, task.reason = outcome, reason

    def _next(self) -> Task | None:
        """The next task whose trunk or parent is not being trained, waiting for one; None when there is none."""
        with self._changed:
            while not self._stopping:
                if not self._queue:
                    return None
                busy = {task.state.job.run_id for task in self.tasks if not task.outcome}
                for task in self._queue:
                    before = task.state.job.follows
                    if before is None or run_id(before) not in busy:
                        self._queue.remove(task)
                        return task
                self._changed.wait()
        return None


def make_worker(index: int, site: Site, log: Path | None) -> Worker:
    """Worker ``index``, on one of the visible GPUs where there are some; its output goes to a file, or to our own."""
    gpus = devices.here() if site.placement.device != "cpu" else []
    gpu = gpus[index % len(gpus)] if gpus else None
    return Worker(site.placement, log, gpu)


def _worker(index: int, site: Site) -> Worker:
    return make_worker(index, site, site.runs / "logs" / f"worker-{os.getpid()}-{index}.log")


def _remaining_flops(task: Task) -> float:
    job = task.state.job
    return flops_between(job.science, task.state.step, job.target_step)
