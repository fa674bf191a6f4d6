"""How does a request become trained runs? Plan, bill, agreement, data, training, summary: one path of both doors."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from structlin.config.identity import run_id
from structlin.config.launch import LocalLaunch, SlurmLaunch
from structlin.config.request import Site, StatusRequest, SweepRequest, TrainRequest
from structlin.errors import UserError
from structlin.host.umask import apply_umask
from structlin.launch import status
from structlin.launch.agreement import agree
from structlin.launch.listed import hash_of, of_command, of_name, write
from structlin.launch.local import Pool, num_workers, probe_missing
from structlin.launch.preparation import prepare_data
from structlin.launch.progress import watch
from structlin.launch.reconcile import job_state, reconcile
from structlin.launch.same_code import refuse_other_code
from structlin.planning import bill as bills
from structlin.planning.grid import Plan, plan_run, plan_sweep
from structlin.planning.horizon import flops_per_step
from structlin.runs.job import Job
from structlin.runs.store import Store


def run_sweep(request: SweepRequest) -> int:
    """python sweep.py: 0 when every cell is done, 1 when some are not."""
    apply_umask(request.site.umask, request.site.runs)
    plan = plan_sweep(request)
    name = request.name or _name(plan)
    console = terminal()
    if request.study and request.format == "table":
        console.print(request.study, highlight=False)
    if not request.action.trains:
        return _act(plan, request, console)
    if request.dry_run:
        return _dry_run(plan, request, name, console)
    write_manifest(plan, request, name)
    if isinstance(request.launch, SlurmLaunch):
        from structlin.launch.slurm.carry_out import launch as submit  # submitit is for clusters alone

        return submit(plan, request, name, console)
    return launch(plan, request.site.grouped(name), request.launch, console)


def _act(plan: Plan, request: SweepRequest, console: Console) -> int:
    """Whatever is wished of a sweep but training."""
    if request.action.cancel:
        if isinstance(request.launch, LocalLaunch):
            raise UserError("cancel=true is for launch=slurm; a local sweep is stopped by Ctrl-C")
        from structlin.launch.slurm.carry_out import cancel

        return cancel(plan, request, console)
    show = status.watch if request.action.watch else status.show
    return show(plan.jobs, request.site, console, request.format)


def show_status(request: StatusRequest) -> int:
    """The status of a sweep by its name, or of the last one."""
    name, runs = of_name(request.site.runs, request.name)
    console = terminal()
    if request.format == "table" and request.name is None:
        console.print(f"sweep {name}")
    return (status.watch if request.watch else status.show)(runs, request.site, console, request.format)


def quick_status(arguments: Sequence[str], request: StatusRequest) -> int | None:
    """The status of the sweep of this command line, as it was made last; None where it has to be planned."""
    runs = of_command(request.site.runs, arguments)
    if runs is None:
        return None
    return (status.watch if request.watch else status.show)(runs, request.site, terminal(), request.format)


def _dry_run(plan: Plan, request: SweepRequest, name: str, console: Console) -> int:
    if isinstance(request.launch, SlurmLaunch) and request.format == "table":
        from structlin.launch.slurm.carry_out import show_dry

        show_dry(plan, request, name, console)
        return 0
    workers = num_workers(request.launch.workers, request.site) if isinstance(request.launch, LocalLaunch) else 1
    bill = bills.make_bill(plan, request.site, workers)
    if request.format == "json":
        print(bills.to_json(bill))
    else:
        bills.show(bill, console)
    return 0


def run_training(request: TrainRequest) -> int:
    """python train.py: one run, shown and recorded as in a sweep."""
    apply_umask(request.site.umask, request.site.runs)
    plan = plan_run(request.template, request.d_model, request.tokens, request.site.evals_per_decade)
    return launch(plan, request.site, LocalLaunch(workers=1, max_hours=float("inf")), terminal())


def terminal() -> Console:
    """stdout: as wide as the terminal, and wide enough for a whole table where it is none."""
    # Reasons, paths and names are other people's text: brackets in it are no markup, and colons no emoji.
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    return Console(**plain) if sys.stdout.isatty() else Console(width=160, **plain)


def launch(plan: Plan, site: Site, config: LocalLaunch, console: Console) -> int:
    """Train what is missing of a plan on this machine. UserError where the bill is refused or data cannot be had."""
    states = reconcile(plan.jobs, Store(site.runs))
    pending = [state.job for state in states if not state.is_final]
    if config.same_code:
        refuse_other_code(states)
    workers = min(num_workers(config.workers, site), max(1, len(pending)))
    if pending:
        bills.check_epochs(plan, site)  # before anything is prepared
        prepare_data(pending, site, console)
        probe_missing([job.science for job in pending], site, lambda line: console.print(line, highlight=False))
    bill = bills.make_bill(plan, site, workers, pending)
    bills.show(bill, console)
    if len(pending) < len(states):
        console.print(f"{len(states) - len(pending)} of {len(states)} runs are done already", highlight=False)
    if pending:
        hours = (bill.total_seconds or 0.0) / 3600
        agree(f"this takes about {hours:,.1f} hours on this machine", hours, config.max_hours)
        if config.canary and len(pending) > 1:
            first = min(pending, key=_flops_of)
            watch(Pool([first], site, 1), console)
            if not job_state(first, Store(site.runs)).is_final:
                console.print("the canary has not ended well: the others are not begun", highlight=False)
                return summarise(plan, site, console)
        watch(Pool(plan.jobs, site, workers), console)
    return summarise(plan, site, console)


def _flops_of(job: Job) -> float:
    return flops_per_step(job.science) * job.target_step


def summarise(plan: Plan, site: Site, console: Console) -> int:
    """Say what is done and what is not; the exit code."""
    states = reconcile(plan.jobs, Store(site.runs))
    unfinished = [state for state in states if not state.is_final]
    diverged = sum(state.state == "diverged" for state in states)
    console.print(
        f"{len(states) - len(unfinished) - diverged} runs done, {diverged} diverged, {len(unfinished)} not finished "
        f"in {site.runs}",
        highlight=False,
    )
    if unfinished:
        console.print("the same command again trains only what is missing", highlight=False)
    return 1 if unfinished else 0


def write_manifest(plan: Plan, request: SweepRequest, name: str) -> None:
    """runs/sweeps/<name>.json: the command and its cells, for whoever asks later what belonged together."""
    path = request.site.runs / "sweeps" / f"{name}.json"
    about = {"name": name, "command": request.command, "design": request.grid.design}
    write(path, plan, asked=hash_of(request.words), **about)


def _name(plan: Plan) -> str:
    """A name for an unnamed sweep: its structures and a hash of its cells."""
    structures = list(dict.fromkeys(cell.science.structure.name for cell in plan.cells))
    words = "-".join(structures) if len(structures) <= 3 else f"{len(structures)}-structures"
    cells = "".join(f"{run_id(cell.science)}@{cell.step}" for cell in plan.cells)
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", words)
    return f"{safe}-{hashlib.sha256(cells.encode()).hexdigest()[:8]}"
