"""How does a request become trained runs? Plan, bill, agreement, data, training, summary: one path of both doors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import Console

from structlin.anatomy.compute import flops_between
from structlin.config.identity import run_id
from structlin.config.launch import LocalLaunch, SlurmLaunch
from structlin.config.request import Site, StatusRequest, SweepRequest, TrainRequest
from structlin.drawing.terminal import terminal
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
from structlin.planning import decide, missing
from structlin.planning.grid import Cell, Plan, plan_run, plan_sweep
from structlin.runs.job import Job
from structlin.runs.machine import gpu_memory_gb
from structlin.runs.store import Store


def run_sweep(request: SweepRequest) -> int:
    """python sweep.py: 0 when every cell is done, 1 when some are not."""
    apply_umask(request.site.umask, request.site.runs)
    if request.search is not None:
        from structlin.launch.search import run_search  # which imports this

        return run_search(request)
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
    return launch(plan, request.site.grouped(name), request.launch, console, missing.lines(plan, request))


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
        _say(missing.lines(plan, request), console)
        return 0
    is_local = isinstance(request.launch, LocalLaunch)
    workers = num_workers(request.launch.workers, request.site) if isinstance(request.launch, LocalLaunch) else 1
    bill = bills.make_bill(plan, on_this_gpu(request.site) if is_local else request.site, workers)
    if request.format == "json":
        print(bills.to_json(bill, [answer.to_mapping() for answer in decide.answers(plan, request)]))
    else:
        bills.show(bill, console)
        _say(missing.lines(plan, request), console)
    return 0


def _say(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def run_training(request: TrainRequest) -> int:
    """python train.py: one run, shown and recorded as in a sweep."""
    apply_umask(request.site.umask, request.site.runs)
    plan = plan_run(request.template, request.d_model, request.tokens, request.site.evals_per_decade)
    return launch(plan, request.site, LocalLaunch(workers=1, max_hours=float("inf")), terminal())


def launch(plan: Plan, site: Site, config: LocalLaunch, console: Console, remarks: Iterable[str] = ()) -> int:
    """Train what is missing of a plan on this machine; ``remarks`` stand below its bill.

    UserError where the bill is refused or data cannot be had.
    """
    site = on_this_gpu(site)
    states = reconcile(plan.jobs, Store(site.runs))
    pending = [state.job for state in states if not state.is_final]
    if config.same_code:
        refuse_other_code(states)
    workers = min(num_workers(config.workers, site), max(1, len(pending)))
    # Before anything is prepared or measured, so that it stands there at once; it refuses what reads data too often.
    bill = bills.make_bill(plan, site, workers, pending)
    bills.show(bill, console)
    if pending:
        _say(remarks, console)
    if len(pending) < len(states):
        done = len(states) - len(pending)
        console.print(f"{done} of {bills.counted(len(states), 'run')} are done already", highlight=False)
    if pending:
        prepare_data(pending, site, console)
        sciences = [job.science for job in pending]
        if probe_missing(sciences, site, workers, lambda line: console.print(line, highlight=False)):
            bill = bills.make_bill(plan, site, workers, pending)
            console.print(f"by measured speeds: {bills.total_said(bill)}", highlight=False)
        hours = (bill.total_seconds or 0.0) / 3600
        agree(f"this takes about {hours:,.1f} hours on this machine", hours, config.max_hours)
        if config.canary and len(pending) > 1:
            first = min(pending, key=_flops_of)
            watch(Pool([first], site, 1), console)
            if not job_state(first, Store(site.runs)).is_final:
                console.print("the canary has not ended well: the others are not begun")
                return summarise(plan, site, console)
        watch(Pool(plan.jobs, site, workers), console)
    code = summarise(plan, site, console)
    if pending and code == 0:
        _publish(site)
    return code


def _publish(site: Site) -> None:
    """Give W&B the table of a sweep that has ended, where it has copies of its runs."""
    from structlin.runs.tracking import evaluations, mirror

    name, mode = site.placement.group, mirror.wandb_mode(site.placement)
    if name and mode:
        evaluations.publish(site.runs, name, site.placement.project, mode, mirror.CLOSE_SECONDS)


def _flops_of(job: Job) -> float:
    return flops_between(job.science, 0, job.target_step)


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
        f"{bills.counted(len(states) - len(unfinished) - diverged, 'run')} done, {diverged} diverged, "
        f"{len(unfinished)} not finished in {site.runs}",
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
    """A name for an unnamed sweep: its structures and mixtures as asked for, and a hash of its cells."""
    kinds = list(dict.fromkeys(_kind(cell) for cell in plan.cells))
    words = "-".join(kinds) if len(kinds) <= 3 else f"{len(kinds)}-structures"
    cells = "".join(f"{run_id(cell.science)}@{cell.step}" for cell in plan.cells)
    safe = re.sub(r"[^A-Za-z0-9_-]", "_", words)
    return f"{safe}-{hashlib.sha256(cells.encode()).hexdigest()[:8]}"


def _kind(cell: Cell) -> str:
    """The structure by the name that it was asked for, and the mixture: moe-btt8, btt-moe-ffn8."""
    science = cell.science
    structure = cell.alias or science.structure.name
    if science.moe.kind == "none":
        return structure
    return (
        science.moe.label if science.structure_is_idle or structure == "dense" else f"{structure}-{science.moe.label}"
    )
