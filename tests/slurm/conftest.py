"""A development cluster for the tests: one for the session, and variants with other limits beside it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DevCluster:
    """A running cluster, used by its own commands as a person at a shell does."""

    state: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a login shell of this cluster, without words of a SLURM job that surrounds the tests."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return {**clean, "SLURM_CONF": str(self.state / "slurm.conf")}

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node; a failed one fails the test with its words, unless check is False."""
        answer = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout
        )
        assert not check or answer.returncode == 0, f"{command}: {answer.stdout}{answer.stderr}"
        return answer

    def dev(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``python -m slurm.dev`` on this cluster."""
        return self.run(sys.executable, "-m", "slurm.dev", *words, f"state={self.state}", check=check)

    # ---------------------------------------------------------------------------------- what happens to clusters

    def power_off(self, node: str, *, told: bool = False) -> None:
        """Cut a node's power; ``told`` marks it DOWN at once, else the controller notices by itself (half a minute)."""
        self.dev("off", node, f"told={str(told).lower()}")

    def power_on(self, node: str) -> None:
        """Switch a node on and wait until it takes jobs."""
        self.dev("on", node)

    def restart_controller(self) -> None:
        """End slurmctld and start it again."""
        self.dev("restart")

    @contextlib.contextmanager
    def fill(self, partition: str = "main", nodes: str = "n[1-4]") -> Iterator[str]:
        """Take every CPU of some nodes with one job, preempting what may be preempted, until the block ends."""
        words = ("--partition", partition, "--nodelist", nodes, "--exclusive", "--mem=0")
        job = self.submit("sleep 600", *words)
        try:
            yield job
        finally:
            self.run("scancel", job)

    # ---------------------------------------------------------------------------------- jobs

    def submit(self, script: str, *words: str, output: Path | str = os.devnull) -> str:
        """Submit a shell script and return the job's id."""
        command = ("sbatch", "--parsable", f"--output={output}", "--open-mode=append", *words, "--wrap", script)
        return self.run(*command).stdout.strip()

    def states(self, job: str) -> list[str]:
        """The states of a job, or of its array elements, that the controller knows; empty once it has forgotten it."""
        answer = self.run("squeue", "--noheader", "--array", "--states=all", "--format=%T", "--job", job, check=False)
        return answer.stdout.split()

    def accounts(self, job: str, fields: str = "State") -> list[str]:
        """What ``sacct -D`` has of a job: one line an attempt, oldest first, fields divided by ``|``."""
        words = ("--duplicates", "--allocations", "--noheader", "--parsable2")
        return self.run("sacct", *words, f"--format={fields}", "--jobs", job).stdout.splitlines()

    def wait_for(self, job: str, *states: str, seconds: float = 60) -> None:
        """Wait until every element of a job is in one of these states."""
        wait_until(lambda: bool(now := self.states(job)) and set(now) <= set(states), f"{job} is {states}", seconds)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Look five times a second; the test fails with ``what`` where it does not come within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@contextlib.contextmanager
def running_cluster(request: pytest.FixtureRequest, *settings: str) -> Iterator[DevCluster]:
    """A cluster for a while. Its state folder, with the logs, stays where a test has failed meanwhile."""
    # Not tmp_path: the paths of unix sockets are short.
    cluster = DevCluster(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    failed_before = request.session.testsfailed
    try:
        cluster.dev("up", *settings)
        yield cluster
    finally:
        failed = request.session.testsfailed > failed_before
        cluster.dev("down", f"keep={str(failed).lower()}")
        if failed:
            warnings.warn(f"a test failed: the cluster's logs are kept in {cluster.state}/log", stacklevel=1)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[DevCluster]:
    """Four nodes of 2 CPUs and 2 fake GPUs with accounting, up for the whole session. Leave it as you found it."""
    with running_cluster(request, "node_timeout=10") as started:
        yield started


@pytest.fixture
def variant(request: pytest.FixtureRequest) -> Iterator[Callable[..., DevCluster]]:
    """``variant("max_array_size=11", "accounting=false")`` starts a cluster of its own, down after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *settings: stack.enter_context(running_cluster(request, *settings))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A run store on a small disk of its own (needs root)."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(folder)], check=True)
    try:
        yield folder / "runs"
    finally:
        # What was killed may still hold a file.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def full(runs: Path) -> Iterator[None]:
    """Fill the disk of a store for a while."""
    filler = runs.parent / "filler"
    # Without a buffer: what it could not write would be tried again, and raised, when the file is closed.
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 16))
    try:
        yield
    finally:
        filler.unlink()
