"""Progress without a terminal: a line a minute of what is done, what runs, and when all will have ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from structlin.anatomy.compute import step_flops
from structlin.launch import progress
from structlin.launch.local import Task
from structlin.launch.progress import Clock, Reporter, flops_of, heartbeat
from structlin.launch.reconcile import JobState
from structlin.runs.job import Job
from structlin.runs.store import RunFolder
from tests.tiny import tiny


class Folder(RunFolder):
    """A folder whose journal is a list."""

    def __init__(self, path: Path, rows: list[dict]) -> None:
        super().__init__(path)
        object.__setattr__(self, "kept", rows)

    @property
    def journal(self):
        folder = self

        class Journal:
            def rows(self, kind: str):
                return [row for row in folder.kept if row["kind"] == kind]

            def evaluations(self):
                return self.rows("eval")

        return Journal()


@dataclass
class Pool:
    tasks: list[Task] = field(default_factory=list)


def task(tmp_path: Path, step: int, target: int = 100, outcome: str = "", began: float = 1.0) -> Task:
    rows = [{"kind": "train", "step": step, "loss": 2.5, "tokens_per_second": 1000.0}] if step else []
    state = JobState(Job(tiny(), (target,)), Folder(tmp_path, rows), "running", target if outcome == "done" else 0)
    return Task(state, outcome, began=began)


def test_the_line_says_what_is_done_runs_and_is_left(tmp_path: Path) -> None:
    now = [0.0]
    tasks = [task(tmp_path, 100, outcome="done"), task(tmp_path, 50), task(tmp_path, 0), task(tmp_path, 0, began=0.0)]
    per_step = step_flops(tiny())
    assert flops_of(tasks) == (150 * per_step, 400 * per_step)
    clock = Clock(0.0, 400 * per_step, now=lambda: now[0])
    assert clock.left(0.0) is None
    now[0] = 30.0
    # 150 steps took 30 s, so the 250 that are left take 50.
    assert clock.left(150 * per_step) == pytest.approx(50.0)
    line = heartbeat(tasks, clock)
    assert "1 of 4 runs ended, 38% of the FLOPs, about 50 s left" in line
    assert "50/100 loss 2.500" in line
    assert "starting" in line
    assert "\n" not in line


def test_what_was_done_before_does_not_make_it_look_fast(tmp_path: Path) -> None:
    now = [0.0]
    clock = Clock(300.0, 400.0, now=lambda: now[0])
    now[0] = 10.0
    assert clock.left(350.0) == pytest.approx(10.0)


def test_a_beat_comes_every_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    pool = Pool([task(tmp_path, 50)])
    reporter = Reporter(Console(width=80), now=lambda: now[0])
    clock = Clock(*flops_of(pool.tasks), now=lambda: now[0])
    for second in range(0, 181, 5):
        now[0] = float(second)
        reporter.beat(pool, clock)  # type: ignore[arg-type]
    assert capsys.readouterr().out.count("0 of 1 runs ended") == 3


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_live_table_cuts_no_number(width: int, tmp_path: Path) -> None:
    pool = Pool([task(tmp_path, 1_234_567, 7_654_321), task(tmp_path, 0)])
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(progress._display(pool, Clock(0.0, 1.0), width))  # type: ignore[arg-type]
    text = console.export_text()
    assert "1,234,567/7,654,321" in text
    assert "…" not in text
