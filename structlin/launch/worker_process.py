"""How does the launcher hold a training process? One warm worker, fed with lines of JSON.

A worker imports torch once and trains run after run. It lives in a process group of its own, so that Ctrl-C reaches
the launcher alone, which then asks its workers to save and end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from structlin.config.identity import to_mapping
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.runs.job import Job

# glibc maps every tensor above 32 MB anew at each step and faults its pages in again. Kept memory makes a large step
# 1.04 to 1.07 times as fast and small ones no slower (measured, docs/lab-book.md).
_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 62)}


class WorkerDied(Exception):
    """The process ended in the middle of a request; says how."""


class Worker:
    """One process of ``python -m structlin.training.worker``, started at the first request."""

    def __init__(self, placement: Placement, log: Path | None, gpu: str | None = None) -> None:
        """``log``: where its output goes; None: to our own."""
        self.placement = placement
        self.log = log
        self.gpu = gpu
        self._process: subprocess.Popen[str] | None = None
        self.reason = ""
        """Why the last job failed, where that could not be written down."""

    def train(self, job: Job, runs: Path, data_root: Path) -> str:
        """Train a job; returns its end state. UserError for what the user can mend, WorkerDied for a crash."""
        reply = self._ask({"job": job.to_mapping(), "runs": str(runs), "data_root": str(data_root)})
        self.reason = str(reply.get("reason", ""))
        return str(reply["state"])

    def probe(self, science: Science) -> float:
        """Training tokens a second of a run, measured by this worker. WorkerDied, with why, where that fails."""
        reply = self._ask({"probe": to_mapping(science)})
        if "tokens_per_second" not in reply:
            raise WorkerDied(str(reply["reason"]))
        return float(reply["tokens_per_second"])

    def stop(self) -> None:
        """Ask the process to save a checkpoint and end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Wait for the process to end."""
        if self._process is not None:
            cast(IO[str], self._process.stdin).close()
            self._process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._started()
        line = json.dumps({**request, "placement": vars(self.placement)}) + "\n"
        try:
            cast(IO[str], process.stdin).write(line)
            cast(IO[str], process.stdin).flush()
            reply = cast(IO[str], process.stdout).readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            code = process.wait()
            self._process = None
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            where = f"; its output: {self.log}" if self.log else ""
            raise WorkerDied(f"the training process ended with {how}{where}")
        answer: dict[str, Any] = json.loads(reply)
        if answer.get("ends"):
            # Its GPU is lost to it; the next request starts another process.
            process.wait()
            self._process = None
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            if self.log is not None:
                self.log.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                log = None if self.log is None else stack.enter_context(self.log.open("a"))
                stack.enter_context(held_back())
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "structlin.training.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment(self.placement, self.gpu),
                    start_new_session=True,
                )
        return self._process


def environment(placement: Placement, gpu: str | None = None) -> dict[str, str]:
    """The environment of a training process: this package first on its path, its threads, its GPU."""
    threads = str(placement.threads)
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    found = {**os.environ, **_ALLOCATOR, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": path}
    # The folder it is started in would come first, and may hold other code than the frozen one.
    found["PYTHONSAFEPATH"] = "1"
    # Micro-batches and routed experts come in ever other sizes: segments that grow leave no holes between them.
    found.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if placement.deterministic:
        # Without a workspace of its own cuBLAS promises no equal bits.
        found.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if gpu is not None:
        found["CUDA_VISIBLE_DEVICES"] = gpu
    return found


@contextmanager
def held_back() -> Iterator[None]:
    """A process started here gets no warning before it listens: it lifts the block itself (training.worker)."""
    warnings = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, warnings)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
