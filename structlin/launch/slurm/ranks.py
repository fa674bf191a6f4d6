"""How does an element train one run with several ranks? By torchrun on each of its nodes, one run after another.

The warning of SLURM must not reach torchrun itself, which would end its ranks after its own time: it is started with
these signals held back, and the ranks, which lift that, are asked one by one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from structlin.config.launch import SlurmLaunch
from structlin.config.request import Site
from structlin.host.files import write_json
from structlin.launch.reconcile import job_state
from structlin.launch.worker_process import WorkerDied, environment, held_back
from structlin.runs.job import Job
from structlin.runs.store import Store

FIRST_PORT, NUM_PORTS = 15_000, 15_000


def make_torchrun(launch: SlurmLaunch, index: int, site: Site) -> Torchrun:
    """The one torchrun of an element (``index`` is always 0)."""
    return Torchrun(launch, site)


class Torchrun:
    """Trains job after job with ``launch.gpus_per_run`` ranks."""

    def __init__(self, launch: SlurmLaunch, site: Site) -> None:
        self.launch = launch
        self.site = site
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._trained = 0

    def train(self, job: Job, runs: Path, data_root: Path) -> str:
        """Train a job on all ranks; WorkerDied where they end otherwise than by themselves."""
        if self._stopping:
            return "interrupted"
        request = self._write(job, runs, data_root)
        with held_back():
            self._process = subprocess.Popen(
                [*self._command(), "-m", "structlin.training.rank", str(request)],
                env=environment(self.site.placement),
                start_new_session=True,
            )
        code = self._process.wait()
        self._process = None
        request.unlink(missing_ok=True)
        self._trained += 1
        state = job_state(job, Store(runs)).state
        if code != 0 and state not in ("done", "diverged", "failed"):
            raise WorkerDied(f"torchrun ended with exit code {code}")
        return "busy" if state == "running" else state

    def stop(self) -> None:
        """Ask the ranks of this node to save and end."""
        self._stopping = True
        process = self._process
        for rank in [] if process is None else children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGTERM)

    def close(self) -> None:
        """Nothing is left between two jobs."""

    def _write(self, job: Job, runs: Path, data_root: Path) -> Path:
        """The request that all ranks of this node read, in a place of this node's own."""
        name = f"{job.run_id}-{os.uname().nodename}-{os.getpid()}.json"
        path = runs / "logs" / "ranks" / name
        write_json(
            path,
            {
                "job": job.to_mapping(),
                "runs": str(runs),
                "data_root": str(data_root),
                "placement": vars(self.site.placement),
            },
        )
        return path

    def _command(self) -> list[str]:
        launch = self.launch
        ranks = launch.gpus_per_run // launch.nodes
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
        if launch.nodes == 1:
            return [*command, "--standalone"]
        # Runs follow one another on ports of their own, so that no node meets the leftovers of the run before.
        port = FIRST_PORT + (int(os.environ["SLURM_JOB_ID"]) * 16 + self._trained % 16) % NUM_PORTS
        return [
            *command,
            f"--nnodes={launch.nodes}",
            f"--node-rank={os.environ['SLURM_NODEID']}",
            f"--master-addr={os.environ['SLURM_LAUNCH_NODE_IPADDR']}",
            f"--master-port={port}",
        ]


def children(pid: int) -> list[int]:
    """Processes started by a process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[1]) == pid:
                found.append(int(path.parent.name))
    return found
