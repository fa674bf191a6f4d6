"""What is missing for a verdict? More seeds, widths or compute, each tried on the plan, and the command for it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from structlin.anatomy.compute import flops_between
from structlin.config.request import SweepRequest, Template
from structlin.errors import UserError
from structlin.planning.decide import BASELINE, Answer, answers, task_without_pilot
from structlin.planning.grid import Plan, plan_sweep

SEEDS = (2, 3, 4, 6, 8)
WIDTHS = (2, 4, 6)
BOTH_WIDTHS = 4
BUDGETS = (3.0, 10.0, 30.0)
MOST_CELLS = 300
"""Larger plans are not planned again to see what they lack."""


@dataclass(frozen=True)
class Addition:
    """One way to a verdict."""

    text: str
    """What is added: 2 more seeds."""
    words: tuple[str, ...]
    """Words of the command line that add it."""
    flops: float
    """Training FLOPs of the larger plan."""


def lines(plan: Plan, request: SweepRequest) -> Iterator[str]:
    """What the plan will decide, a line a structure, and where it decides nothing what is missing."""
    found = answers(plan, request)
    if not found and (task := task_without_pilot(request)):
        yield f"what this decides is not foretold: no laws of task={task} are kept; your own (grid.laws) would serve"
        return
    if not found:
        names = list(dict.fromkeys(template.asked for template in request.templates))
        if names != [BASELINE]:
            is_plain = all(names) and all(template.science.moe.kind == "none" for template in request.templates)
            way = f"; add it: structure={','.join([BASELINE, *names])}" if is_plain else ""
            yield f"decides nothing against dense, which is not in this sweep{way}"
        return
    for source in dict.fromkeys(answer.source for answer in found):
        yield f"what this can decide, by {source} (90% intervals, expected):"
    for answer in found:
        yield f"  {said(answer)}"
    open_ = [answer for answer in found if not answer.decides]
    if not open_:
        return
    if len(open_) == len(found):
        yield "this plan can decide nothing: no multiplier that the pilots expect is told from 1"
    yield from _ways(plan, request, open_)


def said(answer: Answer) -> str:
    """One structure: how well its multiplier and exponent will be known."""
    known = f"within a factor {answer.factor:.2f}" if answer.factor < 10 else "not within a factor of 10"
    told = "enough to tell it from 1" if answer.decides else "too wide to tell it from 1"
    expected = "" if answer.expected is None else f"; {answer.expected:.2f} by the pilots"
    return (
        f"{answer.variant}: multiplier against {answer.baseline} at {answer.flops:.2g} FLOPs {known} "
        f"({told}{expected}); exponent {answer.exponent:.3f} ± {answer.exponent_half:.3f}"
    )


def _ways(plan: Plan, request: SweepRequest, open_: Sequence[Answer]) -> Iterator[str]:
    """What would reach a verdict of every open structure, the cheapest first with its command."""
    if len(plan.cells) > MOST_CELLS or not request.budgets:
        return
    names = {answer.variant for answer in open_}
    ways = [way for make in (_seeds, _widths, _budgets) if (way := make(request, names))] or [
        way for way in (_both(request, names),) if way
    ]
    if not ways:
        yield "missing: more than eight seeds with four more widths each, or thirty times the compute"
        return
    ways.sort(key=lambda way: way.flops)
    yield f"missing for a verdict: {', or '.join(f'{way.text} ({way.flops:.2g} FLOPs in all)' for way in ways)}"
    yield f"  {command(request, ways[0].words)}"


def command(request: SweepRequest, words: Sequence[str]) -> str:
    """The command of a request with other words."""
    keys = {word.partition("=")[0] for word in words}
    kept = [word for word in shlex.split(request.command) if word.partition("=")[0] not in keys | {"dry_run", "format"}]
    return shlex.join([*kept, *words])


def _seeds(request: SweepRequest, names: set[str]) -> Addition | None:
    """More seeds of every structure."""
    now = sorted({template.science.seed for template in request.templates})
    for count in SEEDS:
        if count <= len(now):
            continue
        seeds = list(range(count))
        templates = dict.fromkeys(_of_seed(template, seed) for template in request.templates for seed in seeds)
        flops = _reached(replace(request, templates=tuple(templates)), names)
        if flops is not None:
            more = count - len(now)
            return Addition(_more(more, "seed"), (f"seed={','.join(map(str, seeds))}",), flops)
    return None


def _both(request: SweepRequest, names: set[str]) -> Addition | None:
    """More seeds and more widths together."""
    if not _can_have_widths(request):
        return None
    points = request.grid.points + BOTH_WIDTHS
    found = _seeds(replace(request, grid=replace(request.grid, points=points)), names)
    if found is None:
        return None
    text = f"{found.text} and {_more(BOTH_WIDTHS, 'width')}"
    return Addition(text, (*found.words, f"grid.points={points}"), found.flops)


def _of_seed(template: Template, seed: int) -> Template:
    return replace(template, science=replace(template.science, seed=seed))


def _widths(request: SweepRequest, names: set[str]) -> Addition | None:
    """More widths of every structure and budget."""
    if not _can_have_widths(request):
        return None
    for more in WIDTHS:
        points = request.grid.points + more
        flops = _reached(replace(request, grid=replace(request.grid, points=points)), names)
        if flops is not None:
            return Addition(_more(more, "width"), (f"grid.points={points}",), flops)
    return None


def _can_have_widths(request: SweepRequest) -> bool:
    """Whether the planner chooses the widths."""
    return request.grid.widths is None and not any(template.widths for template in request.templates)


def _budgets(request: SweepRequest, names: set[str]) -> Addition | None:
    """A larger budget besides."""
    for factor in BUDGETS:
        budget = float(f"{max(request.budgets) * factor:.2g}")
        budgets = (*request.budgets, budget)
        flops = _reached(replace(request, budgets=budgets), names)
        if flops is not None:
            return Addition(f"a budget of {budget:.2g}", (f"budget={','.join(f'{b:g}' for b in budgets)}",), flops)
    return None


def _reached(request: SweepRequest, names: set[str]) -> float | None:
    """FLOPs of a larger request where it decides all of the structures."""
    try:
        plan = plan_sweep(request)
    except UserError:
        return None
    if not all(answer.decides for answer in answers(plan, request) if answer.variant in names):
        return None
    return sum(flops_between(job.science, 0, job.target_step) for job in plan.jobs)


def _more(count: int, noun: str) -> str:
    return f"{count} more {noun}{'s' * (count > 1)}"
