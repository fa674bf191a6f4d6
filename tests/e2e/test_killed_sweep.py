"""kill -9 at three moments: the same command again ends with the results of an undisturbed sweep, bit by bit."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from structlin.runs.store import Store
from tests.shared import made_once
from tests.tiny import ARGUMENTS

ROOT = Path(__file__).parents[2]


def command(runs: Path, data_root: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "sweep.py", *ARGUMENTS),
        *("structure=dense,btt", "budget=2e8", "grid.widths=[8,16]", "launch.workers=2"),
        *(f"runs={runs}", f"data.root={data_root}", "checkpoint_seconds=0.1", *more),
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    def sweep(runs: Path) -> None:
        subprocess.run(command(runs, data_root, "launch.workers=1"), cwd=ROOT, check=True, capture_output=True)

    return made_once(tmp_path_factory, "undisturbed", sweep)


@pytest.fixture
def runs(undisturbed: Path, tmp_path: Path) -> Path:
    """A store without runs that knows the speeds of this machine: no sweep need measure them again."""
    store = tmp_path / "runs"
    store.mkdir()
    shutil.copy(undisturbed / "throughput.json", store)
    return store


def results(runs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in runs.glob("*/result.json")}


def updates(runs: Path) -> int:
    return sum(path.read_text().count('"kind": "train"') for path in runs.glob("*/attempts/*/metrics.jsonl"))


def kill_all(process: subprocess.Popen) -> None:
    """kill -9 the sweep and its workers at one moment."""
    workers = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    for pid in (str(process.pid), *workers):
        os.kill(int(pid), signal.SIGKILL)
    process.wait()


def kill_after(updates_wanted: int, process: subprocess.Popen, runs: Path) -> bool:
    """Kill once the journals hold so many training rows; False where the sweep was faster."""
    while updates(runs) < updates_wanted:
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    kill_all(process)
    return True


def test_a_killed_sweep_ends_in_the_undisturbed_results(undisturbed: Path, runs: Path, data_root: Path) -> None:
    total = updates(undisturbed)
    chance = random.Random(0)
    kills = 0
    for share, workers in ((0.1, 1), (0.4, 2), (0.7, 1)):
        sweep = command(runs, data_root, f"launch.workers={workers}")
        process = subprocess.Popen(sweep, cwd=ROOT, stdout=subprocess.DEVNULL)
        kills += kill_after(int(total * share * chance.uniform(0.9, 1.1)), process, runs)
    assert kills == 3
    assert results(runs) != results(undisturbed)
    subprocess.run(command(runs, data_root, "launch.workers=1"), cwd=ROOT, check=True, capture_output=True)
    assert results(runs) == results(undisturbed)


@pytest.mark.long
def test_a_killed_worker_fails_its_run_and_the_same_command_mends_it(runs: Path, data_root: Path) -> None:
    """The kernel kills one training process, as for want of memory; the others go on."""
    process = subprocess.Popen(command(runs, data_root), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while updates(runs) < 10:
        time.sleep(0.01)
    worker = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(worker[0]), signal.SIGKILL)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert printed.count("ended with signal 9") == 1
    assert "3 runs done, 0 diverged, 1 not finished" in printed
    again = subprocess.run(command(runs, data_root), cwd=ROOT, check=True, capture_output=True, text=True)
    assert "4 runs done" in again.stdout


# (signal, those that its parent left ignored)
ENDS = [
    (signal.SIGINT, ()),
    (signal.SIGINT, (signal.SIGINT,)),  # a background job of a script
    (signal.SIGTERM, (signal.SIGHUP,)),  # under nohup, which a SIGHUP does not end
    (signal.SIGHUP, ()),
]


@pytest.mark.parametrize("ends", [ENDS[2:3], pytest.param(ENDS, marks=pytest.mark.long)], ids=["once", "four times"])
def test_a_signal_leaves_every_run_resumable(
    ends: list[tuple[signal.Signals, tuple[signal.Signals, ...]]], undisturbed: Path, runs: Path, data_root: Path
) -> None:
    """Ended, each time by another signal: a checkpoint of every run, and in the end equal bits."""
    of_two_runs = command(runs, data_root, "structure=btt")
    for number, ignored in ends:
        interrupt(of_two_runs, number, ignored, runs)
        begun = [folder for folder in runs.iterdir() if list(folder.glob("attempts/*/metrics.jsonl"))]
        assert begun
        assert all(list(folder.glob("attempts/*/checkpoints/*.pt")) for folder in begun)
        assert not results(runs).items() & results(undisturbed).items()
    subprocess.run([*of_two_runs, "launch.workers=1"], cwd=ROOT, check=True, capture_output=True)
    assert len(results(runs)) == 2
    assert results(runs).items() <= results(undisturbed).items()


def interrupt(sweep: list[str], number: signal.Signals, ignored: tuple[signal.Signals, ...], runs: Path) -> None:
    """A signal to a sweep that has begun to train, after those that it does not hear."""

    def ignore() -> None:
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN if one in ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        sweep, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=ignore
    )
    wait_for_updates(5, process, runs)
    if signal.SIGHUP in ignored:
        process.send_signal(signal.SIGHUP)
        wait_for_updates(5, process, runs)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "stopping: every run saves a checkpoint; the same command goes on from there" in printed
    assert printed.endswith("interrupted\n" if number == signal.SIGINT else f"ended by {number.name}\n")
    # The command waits for its workers: each has said how its run ended.
    assert not {attempt.status()["state"] for run in Store(runs).folders() for attempt in run.attempts()[-1:]} & {
        "running",
        "failed",
    }


def wait_for_updates(number: int, process: subprocess.Popen, runs: Path) -> None:
    wanted = updates(runs) + number
    while updates(runs) < wanted and process.poll() is None:
        time.sleep(0.01)
