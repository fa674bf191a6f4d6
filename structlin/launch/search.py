"""How does grid=search become trained runs? Decide what can be decided, train the next rung, and look again.

The store is all that a search remembers (structlin/search/course.py). On this machine one rung follows the other; on a
cluster a rung is submitted, and the same command later submits the next one, or this one stays with search.wait=true.

    runs/searches/<name>.json     the record (structlin/search/report.py), written after every look
    runs/searches/<name>.html     its charts
    forecasts/<name>.json         what it foretells, when it is over (structlin/search/forecast.py)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

from rich.console import Console

from structlin.config.identity import run_id
from structlin.config.launch import LocalLaunch, SlurmLaunch
from structlin.config.request import SweepRequest
from structlin.drawing.terminal import terminal
from structlin.errors import UserError, one_line
from structlin.host.files import write_atomically
from structlin.launch import carry_out, status
from structlin.launch.reconcile import job_state, reconcile
from structlin.planning import bill as bills
from structlin.planning.grid import Plan
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.search import forecast, report
from structlin.search.arms import Arm
from structlin.search.course import Course, Seen, cells_at_top, course

LOOK_SECONDS = 30.0
"""Between two looks at a cluster under search.wait=true; the first ones follow sooner, for rungs that are short."""
_SOONER = (8, 4, 2)
FOLDER = "searches"


def run_search(request: SweepRequest) -> int:
    """python sweep.py grid=search: 0 when it is over, or on its way on a cluster; 1 when runs have not ended well."""
    console = terminal()
    now = look(request)
    name = request.name or name_of(now)
    if not request.action.trains:
        return _act(now, request, console)
    if not now.is_over:
        # What the top would read too often is said now, not hours later.
        bills.check_epochs(Plan(cells_at_top(now), ()), request.site)
    if request.dry_run:
        return _dry_run(now, request, console)
    begun = True
    while (rung := now.underway) is not None:
        # What was decided meanwhile has just been said.
        _say(report.bill(now, decided=begun), console)
        begun = False
        carry_out.write_manifest(now.plan(), request, name)
        plan = Plan(rung.cells, rung.jobs)
        if isinstance(request.launch, SlurmLaunch):
            code = _submit(plan, request, name, console)
            if code or not request.search or not request.search.wait:
                return code
        else:
            assert isinstance(request.launch, LocalLaunch)
            if code := carry_out.launch(plan, request.site.grouped(name), request.launch, console):
                return code
        now = look(request)
        keep(now, request.site.runs, name)
        if not now.is_over:
            _say(report.said(report.record(now)), console)
    _end(now, request, name, console)
    return 0


def _end(now: Course, request: SweepRequest, name: str, console: Console) -> None:
    """Keep and say what a search that is over has found, and keep what it foretells."""
    runs = request.site.runs
    carry_out.write_manifest(now.plan(), request, name)
    keep(now, runs, name)
    found = report.record(now)
    _say(report.said(found), console)
    lines = [f"{runs / FOLDER / name}.html has every rung"]
    try:
        if kept := forecast.keep(found, name):
            lines.append(f"forecast kept in {kept}; later: python fit_laws.py runs={runs} score={kept}")
    except OSError as error:
        # Typed where nothing may be written: no reason to lose the end of a search.
        lines.append(f"the forecast stands in the record alone ({one_line(error)}); type this again elsewhere")
    _say(iter(lines), console)


def look(request: SweepRequest) -> Course:
    """The search as the store has it."""
    store = Store(request.site.runs)

    def read(job: Job) -> Seen:
        state = job_state(job, store)
        if not state.is_final:
            return Seen(False, ())
        rows = state.folder.published()
        found = state.folder.journal.evaluations() if rows is None else rows
        return Seen(True, tuple((int(row["step"]), float(row["val_loss"])) for row in found))

    return course(request, read)


def keep(now: Course, runs: Path, name: str) -> None:
    """Write the record and its page."""
    from structlin.search.pages import page

    found = report.record(now)
    text = json.dumps(found, indent=1, allow_nan=False) + "\n"
    write_atomically(runs / FOLDER / f"{name}.json", text.encode())
    write_atomically(runs / FOLDER / f"{name}.html", page(found).encode())


def name_of(now: Course) -> str:
    """A name for an unnamed search: by what is compared and where, so that more budget goes on under the same name."""
    asked = [arm for arm in now.arms if arm.origin != "proposed"]
    text = f"{now.search.target!r}" + "".join(_identity(arm) for arm in asked)
    return f"search-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _identity(arm: Arm) -> str:
    return run_id(arm.template.science)


def _act(now: Course, request: SweepRequest, console: Console) -> int:
    """Whatever is wished of a search but training."""
    if request.action.cancel:
        if isinstance(request.launch, LocalLaunch):
            raise UserError("cancel=true is for launch=slurm; a local search is stopped by Ctrl-C")
        from structlin.launch.slurm.carry_out import cancel

        return cancel(now.plan(), request, console)
    show = status.watch if request.action.watch else status.show
    return show(now.plan().jobs, request.site, console, request.format)


def _dry_run(now: Course, request: SweepRequest, console: Console) -> int:
    rung = now.underway
    plan = Plan(rung.cells, rung.jobs) if rung is not None else Plan((), ())
    if request.format == "json":
        found = report.record(now)
        print(
            json.dumps(
                {"search": found, "total": {"training_flops": found["total"], "everything": found["everything"]}}
            )
        )
        return 0
    _say(report.bill(now), console)
    if now.is_over:
        _say(report.said(report.record(now)), console)
    elif plan.cells:
        workers = 1
        if isinstance(request.launch, LocalLaunch):
            from structlin.launch.local import num_workers

            workers = num_workers(request.launch.workers, request.site)
        bill = bills.make_bill(plan, request.site, workers)
        console.print(f"rung {now.rungs[-1].number}, the next: {bills.total_said(bill)}", highlight=False)
    return 0


def _submit(plan: Plan, request: SweepRequest, name: str, console: Console) -> int:
    """Submit a rung; under search.wait=true until all of it is trained. 1 where it never will be."""
    from structlin.launch.slurm import carry_out as slurm
    from structlin.launch.slurm.controller import ControllerError

    code = slurm.launch(plan, request, name, console)
    if code or request.search is None or not request.search.wait:
        if not code:
            console.print("the same command submits the next rung when this one has ended", highlight=False)
        return code
    for seconds in chain((LOOK_SECONDS / share for share in _SOONER), repeat(LOOK_SECONDS)):
        if _is_trained(plan, request):
            break
        time.sleep(seconds)
        if _is_trained(plan, request):
            break
        try:
            # What has crashed or run out of time is submitted again, as the same command would.
            if code := slurm.launch(plan, request, name, Console(quiet=True)):
                return code
        except ControllerError as error:
            console.print(f"SLURM does not answer, and is asked again later: {error}", highlight=False, markup=False)
            continue
        if not slurm.is_underway(plan, request) and not _is_trained(plan, request):
            console.print("nothing of this rung is on its way any more; retry=failed tries again what was given up")
            return 1
    return 0


def _is_trained(plan: Plan, request: SweepRequest) -> bool:
    """Whether all runs of a rung have ended well, or diverged."""
    return all(state.is_final for state in reconcile(plan.jobs, Store(request.site.runs)))


def _say(lines: Iterator[str], console: Console) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
