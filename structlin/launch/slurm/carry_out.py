"""What does ``launch=slurm`` do with a planned sweep? Bill, agreement, data, submission; then it returns."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata

from rich.console import Console

from structlin.config.launch import SlurmLaunch
from structlin.config.request import Site, SweepRequest
from structlin.errors import UserError
from structlin.launch import status
from structlin.launch.agreement import agree
from structlin.launch.preparation import prepare_data
from structlin.launch.reconcile import reconcile
from structlin.launch.same_code import refuse_other_code
from structlin.launch.slurm.controller import Controller, ControllerError, Label
from structlin.launch.slurm.packs import Pack, packs
from structlin.launch.slurm.reasons import NEVER, hint_of
from structlin.launch.slurm.standing import Standing, survey
from structlin.launch.slurm.submissions import submissions
from structlin.launch.slurm.submit import Submitted, Submitter, submission_lock
from structlin.planning import bill as bills
from structlin.planning.grid import Plan
from structlin.runs.driver import torch_is_cpu_build
from structlin.runs.store import Store

DRY_ARRAY_SIZE = 1001
"""MaxArraySize of a dry run where no controller answers: SLURM's own default."""


def absolute(site: Site) -> Site:
    """The site with paths that mean the same everywhere."""
    return replace(site, runs=site.runs.resolve(), data_root=site.data_root.resolve())


def launch(plan: Plan, request: SweepRequest, name: str, console: Console) -> int:
    """Submit what is missing: 0 when it is on its way or done, 1 where SLURM never takes something as it is."""
    site = absolute(request.site).grouped(name)
    submitter = Submitter(name, site, _config(request), _controller(request))
    bills.check_epochs(plan, site)  # before the lock is taken
    check_build(submitter.launch, site.placement.device)
    if (found_full := submitter.unwritable(plan.jobs)) is not None:
        _report(*found_full, request, console)
        return 0
    with submission_lock(site.runs):
        standings, missing = submitter.missing(plan.jobs, retry_failed=request.action.retry == "failed")
        if submitter.launch.same_code:
            refuse_other_code([one.state for one in missing])
        first, branches = submitter.orders(standings, missing)
        found = packs([*first, *branches], submitter.launch, site.placement)
        _show_bill(plan, site, submitter.launch, found, console)
        hours = _hours(found, submitter.launch)
        agree(f"this asks for {hours:,.1f} {_unit(submitter.launch)}", hours, submitter.launch.max_hours)
        prepare_data((one.state.job for one in missing), site, console)
        is_first = not any(one.state.is_final or one.live is not None for one in standings)
        try:
            result = submitter.submit(first, branches, canary=submitter.launch.canary and is_first)
        except KeyboardInterrupt:
            console.print("stopped: what SLURM has taken stays with it; the same command submits the rest")
            raise
    _report(standings, missing, result, request, console)
    return 1 if result.refused else 0


def is_underway(plan: Plan, request: SweepRequest) -> bool:
    """Whether an element of SLURM has, or a process trains, any run of a plan."""
    site = absolute(request.site)
    states = reconcile(plan.jobs, Store(site.runs))
    seen = survey(states, submissions(site.runs), _controller(request), must_answer=False)
    return any(one.live is not None or one.phase == "running" for one in seen.standings)


def check_build(launch: SlurmLaunch, device: str) -> None:
    """UserError where runs are for GPUs and the torch that elements would import knows none."""
    if launch.gpus and device != "cpu" and launch.python is None and torch_is_cpu_build():
        raise UserError(
            f"launch.gpus = {launch.gpus}, and torch {metadata.version('torch')} here is built without CUDA: "
            "rm -r .venv; make setup CUDA=13 (drivers of 580 and newer) or CUDA=12; or launch.gpus=0, launch.python=..."
        )


def show_dry(plan: Plan, request: SweepRequest, name: str, console: Console) -> None:
    """The bill, and below it what sbatch would read."""
    site = absolute(request.site).grouped(name)
    submitter = Submitter(name, site, _config(request), _controller(request))
    standings, missing, size = _dry_standings(plan, submitter)
    first, branches = submitter.orders(standings, missing)
    found = packs([*first, *branches], submitter.launch, site.placement)
    _show_bill(plan, site, submitter.launch, found, console)
    for text in submitter.scripts(first, branches, size):
        console.print(f"\n{text}", highlight=False, markup=False, soft_wrap=True)


def cancel(plan: Plan, request: SweepRequest, console: Console) -> int:
    """Cancel the living elements that have runs of this sweep, in one call."""
    site = absolute(request.site)
    controller = _controller(request)
    with submission_lock(site.runs):
        states = reconcile(plan.jobs, Store(site.runs))
        seen = survey(states, submissions(site.runs), controller, must_answer=True)
        # Only what SLURM shows under our own token, or name and time: another job may have the number by now.
        living = [one for one in seen.standings if one.live is not None and one.live.label != Label()]
        names: dict[str, set[str]] = {}
        for one in living:
            names.setdefault(one.cluster, set()).add(one.name)
        own = controller.name if any(names) else ""  # records of older versions name no cluster
        for cluster, elements in names.items():
            controller.on("" if cluster == own else cluster).cancel(sorted(elements))
    number = sum(map(len, names.values()))
    console.print(f"cancelled {number} elements with {len(living)} runs; the same command without cancel goes on")
    if left := sum(one.live is not None for one in seen.standings) - len(living):
        console.print(f"{left} runs could not be cancelled from here: {seen.note}", markup=False)
        return 1
    return 0


def _controller(request: SweepRequest) -> Controller:
    """The commands of the clusters that the profile names, or of the login node's own."""
    return Controller(cluster=",".join(_config(request).cluster_names))


def _config(request: SweepRequest) -> SlurmLaunch:
    assert isinstance(request.launch, SlurmLaunch)
    return request.launch


def _dry_standings(plan: Plan, submitter: Submitter) -> tuple[list[Standing], list[Standing], int]:
    """What would be submitted; where no controller answers, by the run store alone."""
    try:
        standings, missing = submitter.missing(plan.jobs, retry_failed=False, dry=True)
        return standings, missing, submitter.controller.limits().array_size
    except ControllerError:
        states = reconcile(plan.jobs, Store(submitter.site.runs))
        standings = survey(states, [], submitter.controller, must_answer=False).standings
        return standings, [one for one in standings if one.is_open], DRY_ARRAY_SIZE


def _show_bill(plan: Plan, site: Site, config: SlurmLaunch, found: Sequence[Pack], console: Console) -> None:
    orders = [order for pack in found for order in pack.orders]
    at_once = min(config.max_running or len(found), len(found)) * config.lanes
    bills.show(bills.make_bill(plan, site, max(1, at_once), [order.job for order in orders]), console)
    if not found:
        return
    unknown = sum(not order.is_measured for order in orders)
    console.print(
        f"{len(orders)} runs in {len(found)} elements: at most {_hours(found, config):,.1f} {_unit(config)}"
        + (f"; {unknown} runs of unmeasured shapes, by a cautious guess" if unknown else ""),
        highlight=False,
    )


def _hours(found: Sequence[Pack], config: SlurmLaunch) -> float:
    """Hours asked for: of GPUs, or of elements where there are none."""
    return sum(
        pack.resources.minutes / 60 * (pack.resources.nodes * pack.resources.gpus if config.gpus else 1)
        for pack in found
    )


def _unit(config: SlurmLaunch) -> str:
    return "GPU hours" if config.gpus else "element hours"


def _report(
    standings: Sequence[Standing],
    missing: Sequence[Standing],
    result: Submitted,
    request: SweepRequest,
    console: Console,
) -> None:
    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    done = sum(one.state.is_final for one in standings)
    underway = sum(one.live is not None or one.phase == "running" for one in standings)
    given_up = sum(one.is_open for one in standings) - len(missing)
    say(f"{done} of {len(standings)} runs are done, {underway} on their way, {len(result.runs)} submitted now")
    if result.runs:
        say(f"{result.elements} elements in arrays {', '.join(result.arrays)}")
    if result.canary:
        say(f"array {result.canary} goes first; the others begin when it has ended well (launch.canary)")
    if result.waiting:
        why = result.reason or "what they wait for is still to come"
        say(f"{len(result.waiting)} runs are for the same command later: {why}")
    for reason in dict.fromkeys(result.refused.values()):
        number = sum(reason == other for other in result.refused.values())
        say(f"{number} runs are not taken: {reason}")
    never = Counter(one.reason for one in standings if one.live is not None and hint_of(one.reason).fate == NEVER)
    for reason, number in never.items():
        say(f"{number} runs on their way {status.waits_for(reason)}")
    if given_up:
        say(f"{given_up} runs have failed more than launch.max_retries times; retry=failed tries them again")
    if underway or result.runs:
        say(f"watch:  {_again(request.command, 'status=true')}")


def _again(command: str, wish: str) -> str:
    """The same command with another wish."""
    words = [word for word in shlex.split(command) if not word.startswith(("retry=", "dry_run="))]
    return shlex.join([*words, wish])
