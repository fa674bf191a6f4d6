"""How far is a sweep? A table from any shell: what waits, what runs with its loss and ETA, what has failed and why.

It is read from the run store and, where runs were submitted to a cluster, from two calls of SLURM. Reasons are other
people's text: none of it is markup.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from structlin.config.request import Site
from structlin.drawing.terminal import Columns, fitted
from structlin.host.code import is_mixed
from structlin.host.passed_over import summary
from structlin.launch.listed import Listed, listed
from structlin.launch.reconcile import JobState, Wanted, look_over
from structlin.launch.slurm.controller import Controller
from structlin.launch.slurm.reasons import LATER, NEVER, STUCK, hint_of
from structlin.launch.slurm.standing import Standing, Survey, survey
from structlin.launch.slurm.submissions import submissions
from structlin.planning.bill import count, duration
from structlin.runs.job import Job
from structlin.runs.store import Store

WATCH_SECONDS = 15
"""Between two looks: two calls of SLURM and a walk over the store each."""
PIPE_SECONDS = 60
"""Between two lines where nobody looks at a terminal."""
MOST_ROWS = 20
PHASES = ("done", "diverged", "running", "waiting", "failed", "interrupted", "missing")
GONE = ("done", "diverged", "failed", "interrupted", "missing")


def look(jobs: Sequence[Wanted], site: Site) -> Survey:
    """Where every job stands now."""
    return survey(look_over(jobs, Store(site.runs)), submissions(site.runs), Controller(), must_answer=False)


def show(jobs: Sequence[Wanted], site: Site, console: Console, style: str = "table") -> int:
    """Print the status once, as a table or as one JSON object: 0 when every run is done, 1 while some are not."""
    seen = look(jobs, site)
    if style == "json":
        print(json.dumps(_as_json(seen)))
    else:
        for part in _parts(seen, console):
            # A path or a reason is never broken by us, so that it can be copied.
            console.print(part, soft_wrap=isinstance(part, Text))
    return _code(seen)


def watch(jobs: Sequence[Wanted], site: Site, console: Console, style: str = "table") -> int:
    """Show the status until nothing waits or runs any more; Ctrl-C ends the watching alone.

    What was not begun yet is waited for. Into a pipe it prints a line a minute.
    """
    if console.is_terminal and style == "table":
        seen = look(jobs, site)
        with Live(Group(*_parts(seen, console)), console=console, auto_refresh=False) as live:

            def draw(now: Survey) -> None:
                live.update(Group(*_parts(now, console)), refresh=True)

            return _watch(jobs, site, seen, WATCH_SECONDS, draw)

    def tell(now: Survey) -> None:
        line = json.dumps(_as_json(now)) if style == "json" else f"{time.strftime('%H:%M:%S')}  {_line(now)}"
        print(line, flush=True)

    seen = look(jobs, site)
    tell(seen)
    return _watch(jobs, site, seen, PIPE_SECONDS, tell)


def _watch(jobs: Sequence[Wanted], site: Site, seen: Survey, pause: float, tell: Callable[[Survey], None]) -> int:
    has_lived = False
    while True:
        lives = any(one.phase not in GONE for one in seen.standings)
        to_come = any(one.phase in ("missing", "interrupted") for one in seen.standings)
        has_lived = has_lived or lives
        if not lives and (has_lived or not to_come):
            return _code(seen)
        time.sleep(pause)
        seen = look(jobs, site)
        tell(seen)


def _code(seen: Survey) -> int:
    return 0 if all(one.state.is_final for one in seen.standings) else 1


def _counts(seen: Survey) -> str:
    phases = Counter(one.phase for one in seen.standings)
    return ", ".join(f"{phases[phase]} {phase}" for phase in PHASES if phases[phase]) or "no runs"


def _line(seen: Survey) -> str:
    """The status in one line."""
    waiting = [one for one in seen.standings if one.phase == "waiting" and one.reason]
    why = "".join(f"; {line}" for line in _waiting(waiting)[:1])
    return f"{_counts(seen)}; {_share(seen.standings):.1%} of the FLOPs{why}"


def _as_json(seen: Survey) -> dict[str, Any]:
    """The status for programs: counts, the share of the FLOPs, and every run."""
    return {
        "counts": {phase: sum(one.phase == phase for one in seen.standings) for phase in PHASES},
        "share_of_flops": _share(seen.standings),
        "runs": [_run_as_json(one) for one in seen.standings],
        "mixed_code": _mixed(seen.standings),
        "notes": [note for note in (seen.note, summary()) if note],
    }


def _run_as_json(one: Standing) -> dict[str, Any]:
    phase = one.phase
    found: dict[str, Any] = {
        "run_id": one.state.job.run_id,
        "title": one.state.job.title,
        "phase": phase,
        "step": one.state.step,
        "target_step": one.state.job.target_step,
    }
    if phase not in ("done", "missing"):
        found |= {"where": one.name, "reason": _reason(one), "log": None if one.log is None else str(one.log)}
    if phase == "waiting":
        hint = hint_of(one.reason)
        found |= {"hint": hint.way, "never_begins": hint.fate == NEVER}
    if phase == "running":
        last = _last_row(one)
        found |= {"step": last.get("step", one.state.step), "loss": last.get("loss")}
        found["tokens_per_second"] = last.get("tokens_per_second")
    return found


def _parts(seen: Survey, console: Console) -> Iterator[Table | Text]:
    """The status line by line, its table as wide as the console is."""
    yield Text(_counts(seen))
    yield from fitted(_running([one for one in seen.standings if one.phase == "running"]), console)
    yield from map(Text, _waiting([one for one in seen.standings if one.phase == "waiting"]))
    yield from map(Text, _failed([one for one in seen.standings if one.phase in ("failed", "interrupted")]))
    yield from map(Text, _mixed_line(_mixed(seen.standings)))
    yield Text(f"{_share(seen.standings):.1%} of the FLOPs are done")
    yield from (Text(note) for note in (seen.note, summary()) if note)


def _running(standings: Sequence[Standing]) -> Columns:
    names = ("run", "name", "where", "step", "loss", "tokens/s", "ETA")
    table = Columns(names, texts=("name", "where"), less=("where", "tokens/s"))
    for one in standings[:MOST_ROWS]:
        table.add(one.state.job.run_id, one.state.job.title, one.name, *_progress(one))
    if len(standings) > MOST_ROWS:
        table.add(f"and {len(standings) - MOST_ROWS} more", *[""] * (len(names) - 1))
    return table


def _waiting(standings: Sequence[Standing]) -> list[str]:
    """How many wait for which reason, what never begins first, each with what would change it."""
    reasons = Counter(one.reason or "begins soon" for one in standings)
    fates = (NEVER, STUCK, LATER)
    ranked = sorted(reasons.most_common(), key=lambda pair: fates.index(hint_of(pair[0]).fate))
    return [f"{number} {waits_for(reason)}" for reason, number in ranked[:MOST_ROWS]]


def waits_for(reason: str) -> str:
    """``waiting: Priority``, or that it never begins, and what to do."""
    hint = hint_of(reason)
    if hint.fate == NEVER:
        return f"never begin: {reason}: {hint.way}; then cancel=true and the command with that"
    if hint.fate == STUCK:
        return f"waiting until somebody acts: {reason}: {hint.way}"
    return f"waiting: {reason}" + (f": {hint.way}" if hint.way else "")


def _last_row(one: Standing) -> dict[str, Any]:
    rows = one.state.folder.journal.rows("train")
    return rows[-1] if rows else {}


def _progress(one: Standing) -> tuple[str, str, str, str]:
    """Step, loss, speed and time left of a running run, by its journal."""
    job = one.state.job
    last = _last_row(one)
    if not last:
        return f"{one.state.step:,}/{job.target_step:,}", "", "", "starting"
    speed = float(last.get("tokens_per_second") or 0.0)
    left = (job.target_step - last["step"]) * _light(job).batch_tokens / speed if speed > 0 else None
    loss = "nan" if last.get("loss") is None else f"{last['loss']:.3f}"
    return f"{last['step']:,}/{job.target_step:,}", loss, count(speed), duration(left)


def _light(job: Wanted) -> Listed:
    return job if isinstance(job, Listed) else next(listed([_job(job)]))


def _job(job: Wanted) -> Job:
    assert isinstance(job, Job)
    return job


def _reason(one: Standing) -> str:
    return one.reason or str(one.state.folder.at_once().status().get("reason", ""))


def _failed(standings: Sequence[Standing]) -> list[str]:
    lines = []
    for one in standings[:MOST_ROWS]:
        where = f"\n    log: {one.log}" if one.log else ""
        lines.append(f"{one.phase} {one.state.job.run_id} {one.state.job.title}: {_reason(one)}{where}")
    if len(standings) > MOST_ROWS:
        lines.append(f"and {len(standings) - MOST_ROWS} more")
    return lines


def _mixed(standings: Sequence[Standing]) -> list[str]:
    """Runs that several codes or torch versions have trained; an attempt alone is of one, and is not opened."""
    return [one.state.job.run_id for one in standings if _is_mixed(one.state)]


def _is_mixed(state: JobState[Any]) -> bool:
    if state.mixed is not None:
        return state.mixed
    folder = state.folder.at_once()
    return len(folder.attempts()) > 1 and is_mixed(folder.provenance())


def _mixed_line(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:MOST_ROWS]) + (", ..." if len(names) > MOST_ROWS else "")
    return [f"mixed_code: {len(names)} run(s) were trained by several versions of the code or of torch: {shown}"]


def _share(standings: Sequence[Standing]) -> float:
    """Share of all FLOPs that need not be trained again."""
    total = done = 0.0
    jobs = [one.state.job for one in standings]
    light = iter(listed(job for job in jobs if isinstance(job, Job)))
    for one, job in zip(standings, jobs, strict=True):
        per_step = job.flops_per_step if isinstance(job, Listed) else next(light).flops_per_step
        total += per_step * job.target_step
        done += per_step * one.state.step
    return done / max(1.0, total)
