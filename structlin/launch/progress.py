"""What does a user see while runs train? A bar per run with its loss and ETA, and the FLOPs done and left overall.

On a terminal the display is live (rich); elsewhere a line is printed as each run ends, and one a minute of them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from structlin.anatomy.compute import flops_between
from structlin.launch.local import Pool, Task
from structlin.planning.bill import count, duration

REFRESH_SECONDS = 0.5
HEARTBEAT_SECONDS = 60.0
MOST_ROWS = 12
BAR = 20
NARROW = 100
"""Below this width the bars of single runs are left out, so that no number is cut."""


def watch(pool: Pool, console: Console) -> None:
    """Start a pool and show it until it ends. Ctrl-C stops it so that every run can go on later, and is raised."""
    reporter = Reporter(console)
    clock = Clock(*flops_of(pool.tasks))
    pool.start()
    try:
        if console.is_terminal:
            with Live(console=console, refresh_per_second=4, transient=True) as live:
                while pool.is_running:
                    live.update(_display(pool, clock, console.width))
                    reporter.report(pool)
                    time.sleep(REFRESH_SECONDS)
        while pool.is_running:
            reporter.report(pool)
            reporter.beat(pool, clock)
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
class Clock:
    """When a sweep will end, by what it has done since it was started."""

    done: float
    """FLOPs done before."""
    total: float
    """FLOPs of all of it."""
    now: Callable[[], float] = time.monotonic
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.now()

    def left(self, done: float) -> float | None:
        """Seconds until the end; None before anything is done."""
        gained = done - self.done
        return (self.now() - self.began) * (self.total - done) / gained if gained > 0 else None


@dataclass
class Reporter:
    """Prints one line for each run that has ended since the last look, and one a minute of all."""

    console: Console
    every: float = HEARTBEAT_SECONDS
    now: Callable[[], float] = time.monotonic
    _seen: set[int] = field(default_factory=set)
    _last: float | None = None

    def report(self, pool: Pool) -> None:
        """Print what is new."""
        for index, task in enumerate(pool.tasks):
            if task.outcome and index not in self._seen:
                self._seen.add(index)
                if task.began or task.outcome != "done":
                    self.console.print(_line(task), highlight=False)

    def beat(self, pool: Pool, clock: Clock) -> None:
        """Print how far everything is, once a minute."""
        if self._last is None:
            self._last = self.now()
        if self.now() - self._last >= self.every:
            self._last = self.now()
            self.console.print(heartbeat(pool.tasks, clock), highlight=False, markup=False, soft_wrap=True)


def heartbeat(tasks: Sequence[Task], clock: Clock) -> str:
    """``12:03:15  5 of 14 runs ended, 45% of the FLOPs, about 3 min left; btt d32 seed 0 2,000/3,917 loss 2.345``."""
    done, total = flops_of(tasks)
    ended = sum(bool(task.outcome) for task in tasks)
    left = clock.left(done)
    eta = f", about {duration(left)} left" if left is not None else ""
    running = [task for task in tasks if task.began and not task.outcome]
    runs = "; ".join(_short(task) for task in running[:MOST_ROWS])
    more = f"; and {len(running) - MOST_ROWS} more" if len(running) > MOST_ROWS else ""
    clock_time = time.strftime("%H:%M:%S")
    share = f"{ended} of {len(tasks)} runs ended, {done / max(1.0, total):.0%} of the FLOPs"
    return f"{clock_time}  {share}{eta}" + (f"; {runs}{more}" if running else "")


def flops_of(tasks: Sequence[Task]) -> tuple[float, float]:
    """FLOPs that are done, and those of everything."""
    done = total = 0.0
    for task in tasks:
        job = task.state.job
        step = _step(task) if task.began and not task.outcome else task.state.step
        total += flops_between(job.science, 0, job.target_step)
        done += flops_between(job.science, 0, step)
    return done, total


def _line(task: Task) -> str:
    evaluations = task.state.folder.journal.evaluations()
    loss = f"loss {evaluations[-1]['val_loss']:.4f} at step {evaluations[-1]['step']:,}" if evaluations else ""
    took = duration(time.monotonic() - task.began) if task.began else "before"
    reason = f": {task.reason}" if task.reason else ""
    return f"{task.outcome:<11} {task.state.job.title:<28} {loss}  {took}{reason}"


def _short(task: Task) -> str:
    rows = task.state.folder.journal.rows("train")
    target = task.state.job.target_step
    if not rows:
        return f"{task.state.job.title} starting"
    return f"{task.state.job.title} {rows[-1]['step']:,}/{target:,} loss {_loss(rows[-1]['loss'])}"


def _display(pool: Pool, clock: Clock, width: int) -> Group:
    running = [task for task in pool.tasks if task.began and not task.outcome]
    rows = Table(box=None, pad_edge=False)
    names = ("run", "", "step", "loss", "tokens/s", "ETA")
    shown = [place for place, name in enumerate(names) if name or width >= NARROW]
    for place in shown:
        is_text = names[place] in ("run", "")
        rows.add_column(names[place], justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
    for task in running[:MOST_ROWS]:
        row = _row(task)
        rows.add_row(*(row[place] for place in shown))
    return Group(rows, _overall(pool, clock))


def _overall(pool: Pool, clock: Clock) -> Progress:
    """The share of all FLOPs that is done, and when the rest will be."""
    done, total = flops_of(pool.tasks)
    ended = sum(bool(task.outcome) for task in pool.tasks)
    overall = Progress(TextColumn("{task.description}"), BarColumn(BAR), TextColumn("{task.percentage:>3.0f}%"))
    left = clock.left(done)
    eta = f", {duration(left)} left" if left is not None else ""
    text = f"{ended}/{len(pool.tasks)} runs, {count(done)} of {count(total)} FLOPs{eta}"
    overall.add_task(text, total=1000, completed=int(1000 * done / max(1.0, total)))
    return overall


def _row(task: Task) -> tuple[str, ...]:
    target = task.state.job.target_step
    rows = task.state.folder.journal.rows("train")
    if not rows:
        return task.state.job.title, "", f"0/{target:,}", "", "", "starting"
    last = rows[-1]
    filled = int(BAR * last["step"] / target)
    speed = float(last["tokens_per_second"])
    left = (target - last["step"]) * task.state.job.science.optim.batch_tokens / max(speed, 1e-9)
    step = f"{last['step']:,}/{target:,}"
    bar = "█" * filled + "·" * (BAR - filled)
    return task.state.job.title, bar, step, _loss(last["loss"]), count(speed), duration(left)


def _loss(value: float | None) -> str:
    return "nan" if value is None else f"{value:.3f}"


def _step(task: Task) -> int:
    rows = task.state.folder.journal.rows("train")
    return int(rows[-1]["step"]) if rows else task.state.step
