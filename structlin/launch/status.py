"""How far is a sweep? A table from any shell: what waits, what runs with its loss and ETA, what has failed and why.

It is read from the run store and, where runs were submitted to a cluster, from two calls of SLURM.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from structlin.config.request import Site
from structlin.launch.reconcile import reconcile
from structlin.launch.slurm.controller import Controller
from structlin.launch.slurm.standing import Standing, Survey, survey
from structlin.launch.slurm.submissions import submissions
from structlin.planning.bill import count, duration
from structlin.planning.horizon import flops_per_step
from structlin.runs.job import Job
from structlin.runs.speeds import shape_key
from structlin.runs.store import Store

WATCH_SECONDS = 15
"""Between two looks: two calls of SLURM and a walk over the store each."""
MOST_ROWS = 20
PHASES = ("done", "diverged", "running", "waiting", "failed", "interrupted", "missing")
GONE = ("done", "diverged", "failed", "interrupted", "missing")


def look(jobs: Sequence[Job], site: Site) -> Survey:
    """Where every job stands now."""
    return survey(reconcile(jobs, Store(site.runs)), submissions(site.runs), Controller(), must_answer=False)


def show(jobs: Sequence[Job], site: Site, console: Console) -> int:
    """Print the status once: 0 when every run is done, 1 while some are not."""
    seen = look(jobs, site)
    console.print(_display(seen), highlight=False)
    return 0 if all(one.state.is_final for one in seen.standings) else 1


def watch(jobs: Sequence[Job], site: Site, console: Console) -> int:
    """Show the status until nothing waits or runs; Ctrl-C ends the watching alone."""
    seen = look(jobs, site)
    with Live(_display(seen), console=console, auto_refresh=False) as live:
        while any(one.phase not in GONE for one in seen.standings):
            time.sleep(WATCH_SECONDS)
            seen = look(jobs, site)
            live.update(_display(seen), refresh=True)
    return 0 if all(one.state.is_final for one in seen.standings) else 1


def _display(seen: Survey) -> Group:
    phases = Counter(one.phase for one in seen.standings)
    parts: list[object] = [", ".join(f"{phases[phase]} {phase}" for phase in PHASES if phases[phase])]
    running = [one for one in seen.standings if one.phase == "running"]
    if running:
        parts.append(_running(running))
    waiting = Counter(one.reason or "begins soon" for one in seen.standings if one.phase == "waiting")
    parts += [f"{number} waiting: {reason}" for reason, number in waiting.most_common(MOST_ROWS)]
    parts += _failed([one for one in seen.standings if one.phase in ("failed", "interrupted")])
    parts.append(f"{_share(seen.standings):.1%} of the FLOPs are done")
    if seen.note:
        parts.append(seen.note)
    return Group(*parts)  # type: ignore[arg-type]


def _running(standings: Sequence[Standing]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("run", "name", "where", "step", "loss", "tokens/s", "ETA"):
        table.add_column(name, justify="left" if name in ("run", "name", "where") else "right", no_wrap=True)
    for one in standings[:MOST_ROWS]:
        table.add_row(one.state.job.run_id, one.state.job.title, one.name, *_progress(one))
    if len(standings) > MOST_ROWS:
        table.add_row(f"and {len(standings) - MOST_ROWS} more")
    return table


def _progress(one: Standing) -> tuple[str, str, str, str]:
    """Step, loss, speed and time left of a running run, by its journal."""
    job = one.state.job
    rows = one.state.folder.journal.rows("train")
    if not rows:
        return f"{one.state.step:,}/{job.target_step:,}", "", "", "starting"
    last = rows[-1]
    speed = float(last.get("tokens_per_second") or 0.0)
    left = (job.target_step - last["step"]) * job.science.optim.batch_tokens / speed if speed > 0 else None
    loss = "nan" if last.get("loss") is None else f"{last['loss']:.3f}"
    return f"{last['step']:,}/{job.target_step:,}", loss, count(speed), duration(left)


def _failed(standings: Sequence[Standing]) -> list[str]:
    lines = []
    for one in standings[:MOST_ROWS]:
        reason = one.reason or str(one.state.folder.status().get("reason", ""))
        where = f"\n    log: {one.log}" if one.log else ""
        lines.append(f"{one.phase} {one.state.job.run_id} {one.state.job.title}: {reason}{where}")
    if len(standings) > MOST_ROWS:
        lines.append(f"and {len(standings) - MOST_ROWS} more")
    return lines


def _share(standings: Sequence[Standing]) -> float:
    """Share of all FLOPs that need not be trained again."""
    total = done = 0.0
    known: dict[str, float] = {}  # thousands of runs have a few shapes
    for one in standings:
        science = one.state.job.science
        shape = shape_key(science)
        per_step = known[shape] if shape in known else known.setdefault(shape, flops_per_step(science))
        total += per_step * one.state.job.target_step
        done += per_step * one.state.step
    return done / max(1.0, total)
