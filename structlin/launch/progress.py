"""What does a user see while runs train? A bar per run with its loss and ETA and the FLOPs done overall.

On a terminal the display is live (rich); elsewhere one line is printed as each run ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from structlin.launch.local import Pool, Task
from structlin.planning.bill import count, duration
from structlin.planning.horizon import flops_per_step

REFRESH_SECONDS = 0.5
MOST_ROWS = 12


def watch(pool: Pool, console: Console) -> None:
    """Start a pool and show it until it ends. Ctrl-C stops it so that every run can go on later, and is raised."""
    reporter = Reporter(console)
    pool.start()
    try:
        if console.is_terminal:
            with Live(console=console, refresh_per_second=4, transient=True) as live:
                while pool.is_running:
                    live.update(_display(pool))
                    reporter.report(pool)
                    time.sleep(REFRESH_SECONDS)
        while pool.is_running:
            reporter.report(pool)
            time.sleep(REFRESH_SECONDS / 5)
    except KeyboardInterrupt:
        console.print("stopping: every run saves a checkpoint; the same command goes on from there")
        raise
    finally:
        # A second Ctrl-C must not leave workers behind.
        pool.stop()
        while pool.is_running:
            time.sleep(0.05)
        reporter.report(pool)


@dataclass
class Reporter:
    """Prints one line for each run that has ended since the last look."""

    console: Console
    _seen: set[int] = field(default_factory=set)

    def report(self, pool: Pool) -> None:
        """Print what is new."""
        for index, task in enumerate(pool.tasks):
            if task.outcome and index not in self._seen:
                self._seen.add(index)
                if task.began or task.outcome != "done":
                    self.console.print(_line(task), highlight=False)


def _line(task: Task) -> str:
    evaluations = task.state.folder.journal.evaluations()
    loss = f"loss {evaluations[-1]['val_loss']:.4f} at step {evaluations[-1]['step']:,}" if evaluations else ""
    took = duration(time.monotonic() - task.began) if task.began else "before"
    reason = f": {task.reason}" if task.reason else ""
    return f"{task.outcome:<11} {task.state.job.title:<28} {loss}  {took}{reason}"


def _display(pool: Pool) -> Group:
    running = [task for task in pool.tasks if task.began and not task.outcome]
    rows = Table(box=None, pad_edge=False)
    for name in ("run", "", "step", "loss", "tokens/s", "ETA"):
        rows.add_column(name, justify="left" if name in ("run", "") else "right")
    for task in running[:MOST_ROWS]:
        rows.add_row(*_row(task))
    return Group(rows, _overall(pool))


def _overall(pool: Pool) -> Progress:
    """The share of all FLOPs that is done."""
    total = done = 0.0
    for task in pool.tasks:
        per_step = flops_per_step(task.state.job.science)
        total += per_step * task.state.job.target_step
        done += per_step * (_step(task) if task.began and not task.outcome else task.state.step)
    ended = sum(bool(task.outcome) for task in pool.tasks)
    overall = Progress(TextColumn("{task.description}"), BarColumn(40), TextColumn("{task.percentage:>3.0f}%"))
    text = f"{ended}/{len(pool.tasks)} runs, {count(done)} of {count(total)} FLOPs"
    overall.add_task(text, total=1000, completed=int(1000 * done / max(1.0, total)))
    return overall


def _row(task: Task) -> tuple[str, ...]:
    target = task.state.job.target_step
    rows = task.state.folder.journal.rows("train")
    if not rows:
        return task.state.job.title, "", f"0/{target:,}", "", "", "starting"
    last = rows[-1]
    bar = "█" * int(20 * last["step"] / target) + "·" * (20 - int(20 * last["step"] / target))
    speed = float(last["tokens_per_second"])
    left = (target - last["step"]) * task.state.job.science.optim.batch_tokens / max(speed, 1e-9)
    loss = "nan" if last["loss"] is None else f"{last['loss']:.3f}"
    return task.state.job.title, bar, f"{last['step']:,}/{target:,}", loss, count(speed), duration(left)


def _step(task: Task) -> int:
    rows = task.state.folder.journal.rows("train")
    return int(rows[-1]["step"]) if rows else task.state.step
