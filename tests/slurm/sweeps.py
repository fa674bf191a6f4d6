"""Sweeps on the development cluster: tiny runs of seconds, submitted as a person at a shell does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from structlin.runs.store import Store
from structlin.runs.tracking.mirror import files_of
from structlin.tracker.wire import history
from tests.slurm.conftest import DevCluster, wait_until
from tests.tiny import ARGUMENTS

ROOT = Path(__file__).parents[2]
LAUNCH = ("launch=slurm_cpu", "launch.runs_per_gpu=1", "launch.min_minutes=0", "launch.time_minutes=30")
"""An element for each run."""


@dataclass(frozen=True)
class Sweep:
    """One command line on one cluster, typed as often as needed."""

    cluster: DevCluster
    runs: Path
    data_root: Path
    arguments: tuple[str, ...]
    folder: Path = ROOT
    """Where the command is typed."""

    def command(self, *wishes: str) -> list[str]:
        """The words of the command."""
        places = (f"runs={self.runs}", f"data.root={self.data_root}")
        return [sys.executable, str(ROOT / "sweep.py"), *ARGUMENTS, *LAUNCH, *self.arguments, *places, *wishes]

    @property
    def environment(self) -> dict[str, str]:
        """That of a shell on the login node."""
        return {**self.cluster.environment, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "WANDB_MODE": "offline"}

    def type(self, *wishes: str, code: int | None = 0) -> str:
        """Run the command; what it printed."""
        done = subprocess.run(
            self.command(*wishes), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submitted(self, *wishes: str) -> int:
        """Run the command; how many runs it has submitted."""
        printed = self.type(*wishes)
        found = re.search(r"(\d+) submitted now", printed)
        assert found, printed
        return int(found[1])

    def names(self) -> list[str]:
        """Elements that wait or run, as SLURM names them."""
        return self.cluster.run("squeue", "--noheader", "--array", "--format=%i").stdout.split()

    def running(self) -> list[str]:
        """Elements that run."""
        return self.cluster.run("squeue", "--noheader", "--states=RUNNING", "--format=%i").stdout.split()

    def wait(self, seconds: float = 120) -> None:
        """Wait until nothing waits or runs."""
        wait_until(lambda: not self.names(), "the queue is empty", seconds)

    def finish(self, commands: int = 6, seconds: float = 150) -> int:
        """Type the same command until every run is done; how often it took."""
        for number in range(1, commands + 1):
            printed = self.type()
            done, of = map(int, re.search(r"(\d+) of (\d+) runs are done", printed).groups())
            if done == of:
                return number
            self.wait(seconds)
        raise AssertionError(f"not done after {commands} commands:\n{self.type('status=true', code=None)}")


def without_wandb(runs: Path) -> list[str]:
    """Ids of the runs whose offline W&B files do not hold every row of the journal once."""
    lacking = []
    for folder in Store(runs).folders():
        rows = [row["_step"] for path in files_of(folder) for row in history(path)]
        if rows != list(range(len(folder.journal.written()))):
            lacking.append(folder.run_id)
    return lacking


def local(runs: Path, data_root: Path, *arguments: str) -> Path:
    """The same sweep on this machine, undisturbed."""
    words = [*ARGUMENTS, *arguments, f"runs={runs}", f"data.root={data_root}", "launch.workers=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "sweep.py", *words], cwd=ROOT, env=environment, check=True, capture_output=True)
    return runs


def results(runs: Path) -> dict[str, bytes]:
    """result.json of every run."""
    return {path.parent.name: path.read_bytes() for path in runs.glob("*/result.json")}


def attempts(runs: Path) -> dict[str, int]:
    """Attempts of every run."""
    return dict(Counter(path.parents[2].name for path in runs.glob("*/attempts/*/metrics.jsonl")))


def trained_twice(runs: Path) -> list[tuple[str, str, int]]:
    """(run, kind, step) that stand in the journals more than once: work that was done again."""
    rows: Counter[tuple[str, str, int]] = Counter()
    for path in runs.glob("*/attempts/*/metrics.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            rows[path.parents[2].name, row["kind"], row["step"]] += 1
    return [key for key, number in rows.items() if number > 1]


def holders(runs: Path) -> dict[str, int]:
    """Process ids that train now, by element."""
    found = {}
    for path in runs.glob("*/attempts/*/attempt.json"):
        holder = json.loads(path.read_text())["holder"]
        if holder["slurm_job"] and Path(f"/proc/{holder['pid']}").exists():
            found[holder["slurm_job"]] = holder["pid"]
    return found


def kill_job(pid: int) -> None:
    """kill -9 of a training process and of the element that holds it."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    for process in (parent, pid):
        os.kill(process, signal.SIGKILL)
