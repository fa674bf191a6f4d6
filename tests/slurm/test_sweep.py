"""Sweeps on a real cluster: every cell is trained, none twice, and whatever a cluster does only costs time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from structlin.training.worker import STOPPING
from tests.slurm.conftest import DevCluster, full, wait_until
from tests.slurm.sweeps import ROOT, Sweep, attempts, holders, kill_job, local, results, trained_twice, without_wandb

pytestmark = pytest.mark.slurm

Variant = Callable[..., DevCluster]
QUICK = ("grid.widths=[8,16]", "grid.tokens=[3200]", "checkpoint_seconds=60")
LONG = (
    *("structure=dense,btt,low_rank", "grid.widths=[8,16]", "grid.tokens=[128000]"),
    *("data.max_epochs=1000", "evals_per_decade=4", "checkpoint_seconds=1", "model.dtype=float64"),
)
"""Six runs of 2,000 steps, in torch's steps, which take long enough for what happens to them."""


def test_sixty_cells_in_arrays_of_eleven(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    cluster = variant("max_array_size=11")
    wide = ("structure=dense,btt,low_rank,kronecker,g1", "seed=0,1,2,3,4,5", *QUICK, "tracking=wandb")
    sweep = Sweep(cluster, tmp_path / "runs", data_root, wide)
    assert sweep.submitted() == 60
    sizes = [len(path.read_text().splitlines()) for path in sweep.runs.glob("sweeps/*/submissions/*/packs.jsonl")]
    assert sum(sizes) == 60
    assert max(sizes) <= 11
    # What waits is not submitted again.
    assert sweep.submitted() == 0
    sweep.wait(300)
    assert "60 done" in sweep.type("status=true")
    assert sweep.submitted() == 0
    assert len(results(sweep.runs)) == 60
    assert trained_twice(sweep.runs) == []
    assert set(attempts(sweep.runs).values()) == {1}
    assert without_wandb(sweep.runs) == []


def test_overlapping_sweeps_at_the_same_moment(cluster: DevCluster, tmp_path: Path, data_root: Path) -> None:
    one, other = (
        Sweep(cluster, tmp_path / "runs", data_root, (f"structure={names}", "seed=0,1", *QUICK))
        for names in ("dense,btt", "btt,low_rank")
    )
    both = [
        subprocess.Popen(sweep.command(), cwd=ROOT, env=sweep.environment, stdout=subprocess.PIPE, text=True)
        for sweep in (one, other)
    ]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    one.wait()
    assert len(results(one.runs)) == 12
    assert trained_twice(one.runs) == []
    assert set(attempts(one.runs).values()) == {1}
    assert one.submitted() == other.submitted() == 0


def test_whatever_happens_to_a_cluster(cluster: DevCluster, store: Path, tmp_path: Path, data_root: Path) -> None:
    """scancel, kill -9, preemption, time-out, a power cut, a restarted controller and a full disk in one store.

    Each kind of mishap meets runs of its own, submitted for it: a fast machine may have finished all earlier ones.
    """
    waves = {
        "ended": (*LONG, "seed=0"),
        "out of time": (*LONG, "structure=dense", "grid.widths=[8]", "seed=1,2,3", "grid.tokens=[320000]"),
        "preempted": (*LONG, "seed=7"),
        "power cut": (*LONG, "seed=8"),
    }
    sweeps = {name: Sweep(cluster, store, data_root, (*words, "launch.partition=low")) for name, words in waves.items()}
    undisturbed = [local(tmp_path / "local", data_root, *words) for words in waves.values()][-1]

    def begun(name: str) -> dict[str, int]:
        """Submit a wave; who trains its first three runs."""
        others = set(holders(store))
        assert sweeps[name].submitted() >= 3
        wait_until(lambda: len(set(holders(store)) - others) >= 3, f"three runs of '{name}' are trained", 90)
        return {job: pid for job, pid in holders(store).items() if job not in others}

    *cancelled, killed = list(begun("ended").items())[:3]
    kill_job(killed[1])
    cluster.run("scancel", *[job for job, _ in cancelled])
    time_out(cluster, begun("out of time"))
    begun("preempted")
    with cluster.fill(nodes="n2"):
        wait_until(lambda: not running_on(cluster, "n2", "low"), "n2 is preempted", 60)
    begun("power cut")
    cluster.power_off("n3", told=True)
    cluster.restart_controller()
    with full(store):
        time.sleep(4)
    cluster.power_on("n3")

    assert sum(sweep.finish(seconds=300) for sweep in sweeps.values()) > len(waves)
    assert results(store) == results(undisturbed)
    assert "6 done" in sweeps["ended"].type("status=true")


def options(text: str) -> set[str]:
    """The options of a script of sbatch."""
    return {line.strip() for line in text.splitlines() if line.startswith("#SBATCH")}


def time_out(cluster: DevCluster, elements: dict[str, int]) -> None:
    """Lower the time limits of running elements to a minute, and wait until one of them is requeued at its warning.

    SLURM looks at time limits every 30 s, and a fast machine ends any short run in that time: what trains stands still
    until a warning has reached it.
    """
    for pid in elements.values():
        os.kill(pid, signal.SIGSTOP)
    for name in elements:
        cluster.run("scontrol", "update", f"jobid={name}", "timelimit=1")
    wait_until(lambda: any(map(is_warned, elements.values())), "a run is warned", 120)
    for pid in elements.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: any(restarts(cluster, name) for name in elements), "an element is requeued at its warning", 120)


def is_warned(pid: int) -> bool:
    """Whether a signal to end waits for a process that stands still, or has ended one that SLURM woke up."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    found = re.search(r"ShdPnd:\s*(\w+)", status)
    waiting = int(found[1], 16) if found else 0
    return any(waiting >> number - 1 & 1 for number in STOPPING)


def restarts(cluster: DevCluster, name: str) -> int:
    """How often SLURM has requeued an element."""
    shown = cluster.run("scontrol", "show", "job", name).stdout
    return int(shown.partition("Restarts=")[2].split()[0])


def running_on(cluster: DevCluster, node: str, partition: str) -> list[str]:
    """Elements of a partition that run on a node."""
    words = (f"--nodelist={node}", f"--partition={partition}", "--states=RUNNING,COMPLETING", "--format=%i")
    return cluster.run("squeue", "--noheader", *words).stdout.split()


def test_a_cluster_without_accounting(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    """The run folder and the log say what sacct would; cancel and status work from any shell."""
    cluster = variant("accounting=false")
    arguments = (
        "structure=dense",
        "seed=0,1,2,3,4,5",
        "grid.widths=[8]",
        "grid.tokens=[64000]",
        "checkpoint_seconds=1",
    )
    sweep = Sweep(cluster, tmp_path / "runs", data_root, (*arguments, "data.max_epochs=1000", "evals_per_decade=4"))
    assert sweep.submitted() == 6
    wait_until(lambda: len(holders(sweep.runs)) >= 3, "three runs are trained", 90)
    killed, pid = next(iter(holders(sweep.runs).items()))
    kill_job(pid)
    wait_until(lambda: killed not in sweep.names(), f"{killed} is gone")
    shown = sweep.type("status=true", code=1)
    assert "1 failed" in shown
    assert f"{killed}_0_log.out" in shown
    assert "cancelled" in sweep.type("cancel=true")
    sweep.wait()
    assert "running" not in sweep.type("status=true", code=1)
    assert sweep.finish() > 1
    assert set(results(sweep.runs)) == {path.parent.name for path in sweep.runs.glob("*/config.json")}


def test_what_a_limit_refuses_is_submitted_later(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    cluster = variant("max_submit=5")
    sweep = Sweep(
        cluster, tmp_path / "runs", data_root, ("structure=dense,btt", "seed=0,1,2,3,4", *QUICK[1:], "grid.widths=[8]")
    )
    # launch=auto finds the cluster.
    assert "#SBATCH --job-name" in sweep.type("launch=auto", "launch.gpus=0", "dry_run=true")
    printed = sweep.type()
    first = len(sweep.names())
    assert 1 <= first <= 5
    assert f"{10 - first} runs are for the same command later" in printed
    assert sweep.finish() > 1
    assert trained_twice(sweep.runs) == []


def test_a_full_controller_takes_the_rest_later(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    cluster = variant("max_job_count=8")
    names = ("structure=dense,btt", "seed=0,1,2,3,4", *QUICK[1:], "grid.widths=[8]")
    sweep = Sweep(cluster, tmp_path / "runs", data_root, names)
    began = time.monotonic()
    printed = sweep.type("launch.partition=low")
    assert "7 submitted now" in printed
    assert "3 runs are for the same command later: the controller has room for 7 more jobs" in printed
    # sbatch itself would have waited for two minutes.
    assert time.monotonic() - began < 60


def test_out_of_memory_is_named_and_tried_again_with_more(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    cluster = variant("enforce_memory=true")
    # By torch a step of 393,216 tokens takes 1.8 GB (measured), in float64 half as many; the C++ keeps one sequence.
    large = (
        "structure=dense",
        "grid.widths=[16]",
        "model.dtype=float64",
        "optim.batch_tokens=196608",
        "grid.tokens=[393216]",
        "launch.memory_gb=1",
        "launch.grow_on_retry=3",
    )
    sweep = Sweep(cluster, tmp_path / "runs", data_root, (*large, "evaluation.tokens=64", "data.max_epochs=1000"))
    shown = options(sweep.type("dry_run=true"))
    sweep.type()
    (script,) = sweep.runs.glob("sweeps/*/submissions/0001/log/*_submission.sh")
    # The token that an array is known by is drawn when it is submitted.
    assert {option for option in options(script.read_text()) if "--comment=structlin:" not in option} == shown
    assert "#SBATCH --mem=1G" in shown
    sweep.wait()
    assert "out of memory (1 GB)" in sweep.type("status=true", code=1)
    assert sweep.submitted() == 1
    sweep.wait()
    asked = [json.loads(path.read_text()) for path in sweep.runs.glob("sweeps/*/submissions/*/submission.json")]
    assert sorted(one["resources"]["memory_gb"] for one in asked) == [1, 3]
    assert "1 done" in sweep.type("status=true")


@pytest.mark.parametrize(("ranks", "nodes"), [(2, 1), (2, 2)])
def test_one_run_on_several_ranks(ranks: int, nodes: int, cluster: DevCluster, tmp_path: Path, data_root: Path) -> None:
    """torchrun inside the allocation; a preempted run goes on."""
    arguments = (
        "structure=dense",
        "grid.widths=[8]",
        "grid.tokens=[64000]",
        "data.max_epochs=1000",
        "checkpoint_seconds=60",
    )
    launch = (f"launch.gpus_per_run={ranks}", f"launch.nodes={nodes}", "launch.partition=low")
    sweep = Sweep(cluster, tmp_path / "runs", data_root, (*arguments, *launch))
    assert sweep.submitted() == 1
    wait_until(lambda: bool(list(sweep.runs.glob("*/attempts/1/metrics.jsonl"))), "the run is trained", 90)
    with cluster.fill():
        wait_until(lambda: not running_on(cluster, "n1", "low"), "it is preempted", 60)
    sweep.wait()
    assert "1 done" in sweep.type("status=true")
    assert list(attempts(sweep.runs).values()) == [2]
    assert trained_twice(sweep.runs) == []
    recorded = [path.read_text() for path in sweep.runs.glob("*/attempts/*/provenance.json")]
    assert all(f'"world_size": {ranks}' in text for text in recorded)
