"""How does a request become trained runs? Plan, bill, agreement, data, training, summary: one path of both doors."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace

from rich.console import Console

from structlin.config.identity import run_id
from structlin.config.launch import LocalLaunch, SlurmLaunch
from structlin.config.request import Site, SweepRequest, TrainRequest
from structlin.errors import UserError
from structlin.host.files import write_json
from structlin.launch import status
from structlin.launch.agreement import agree
from structlin.launch.local import Pool, num_workers, probe_missing
from structlin.launch.preparation import prepare_data
from structlin.launch.progress import watch
from structlin.launch.reconcile import reconcile
from structlin.planning import bill as bills
from structlin.planning.grid import Plan, plan_run, plan_sweep
from structlin.runs.machine import gpu_memory_gb
from structlin.runs.store import Store


def run_sweep(request: SweepRequest) -> int:
    """python sweep.py: 0 when every cell is done, 1 when some are not."""
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
    return show(plan.jobs, request.site, console)


def _dry_run(plan: Plan, request: SweepRequest, name: str, console: Console) -> int:
    if isinstance(request.launch, SlurmLaunch) and request.format == "table":
        from structlin.launch.slurm.carry_out import show_dry

        show_dry(plan, request, name, console)
        return 0
    is_local = isinstance(request.launch, LocalLaunch)
    workers = num_workers(request.launch.workers, request.site) if isinstance(request.launch, LocalLaunch) else 1
    bill = bills.make_bill(plan, on_this_gpu(request.site) if is_local else request.site, workers)
    if request.format == "json":
        print(bills.to_json(bill))
    else:
        bills.show(bill, console)
    return 0


def run_training(request: TrainRequest) -> int:
    """python train.py: one run, shown and recorded as in a sweep."""
    plan = plan_run(request.template, request.d_model, request.tokens, request.site.evals_per_decade)
    return launch(plan, request.site, LocalLaunch(workers=1, max_hours=float("inf")), terminal())


def terminal() -> Console:
    """stdout: as wide as the terminal, and wide enough for a whole table where it is none."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def launch(plan: Plan, site: Site, config: LocalLaunch, console: Console) -> int:
    """Train what is missing of a plan on this machine. UserError where the bill is refused or data cannot be had."""
    site = on_this_gpu(site)
    states = reconcile(plan.jobs, Store(site.runs))
    pending = [state.job for state in states if not state.is_final]
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
        pool = Pool(plan.jobs, site, workers)
        watch(pool, console)
    return summarise(plan, site, console)


def on_this_gpu(site: Site) -> Site:
    """The site with the memory of the GPU that is here, where nothing else was said of it."""
    placement = site.placement
    if placement.device == "cpu" or placement.gpu_memory_gb:
        return site
    return replace(site, placement=replace(placement, gpu_memory_gb=gpu_memory_gb()))


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
    cells = [
        {"run_id": run_id(cell.science), "step": cell.step, "budget_flops": cell.budget_flops} for cell in plan.cells
    ]
    path = request.site.runs / "sweeps" / f"{name}.json"
    write_json(path, {"name": name, "command": request.command, "design": request.grid.design, "cells": cells})


def _name(plan: Plan) -> str:
    """A name for an unnamed sweep: its structures and a hash of its cells."""
    structures = list(dict.fromkeys(cell.science.structure.name for cell in plan.cells))
    words = "-".join(structures) if len(structures) <= 3 else f"{len(structures)}-structures"
    cells = "".join(f"{run_id(cell.science)}@{cell.step}" for cell in plan.cells)
    safe = "".join(character if character.isalnum() or character in "-_" else "_" for character in words)
    return f"{safe}-{hashlib.sha256(cells.encode()).hexdigest()[:8]}"
