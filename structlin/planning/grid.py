"""Which cells does a sweep hold? Budgets and widths become (run, step) cells, and cells become jobs.

    frontier   one constant-rate trunk per width, as long as its largest budget needs, evaluated all along it
    isoflop    one decayed run per width and budget
    cooldown   a constant-rate trunk per width, and a decayed branch from it at every budget
    design     the constant-rate runs that teach most by the laws fitted so far, within the budget in all

A cell depends on its own budget alone, so a sweep asked for in two commands has the cells of one asked for at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from structlin.anatomy.compute import flops_until, step_flops, steps_for_flops
from structlin.config.grid import DESIGNS, GridConfig
from structlin.config.identity import run_id
from structlin.config.request import SweepRequest, Template
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.planning.beginning import run_of, steps_of
from structlin.planning.design import designed_cells
from structlin.planning.horizon import evaluation_steps, steps_for_tokens
from structlin.planning.widths import choose_widths
from structlin.runs.job import Job
from structlin.structure import CATALOG, Theta
from structlin.structure.catalog import catalogue_name


@dataclass(frozen=True)
class Cell:
    """One point of a sweep: a run at a step."""

    science: Science
    step: int
    budget_flops: float | None
    """The budget it was made for; None where tokens were given by hand."""
    asked: str = field(default="", compare=False)
    """The name that its structure was asked for by."""

    @property
    def tokens(self) -> int:
        """Tokens trained on."""
        return self.step * self.science.optim.batch_tokens

    @property
    def alias(self) -> str:
        """The catalogue's other name that its theta was asked for by (monarch, which is btt), or nothing."""
        structure = self.science.structure
        is_other = self.asked in CATALOG and self.asked != structure.plain_name
        return self.asked if is_other and catalogue_name(Theta.parse(structure.theta)) else ""

    @property
    def shown(self) -> str:
        """Its variant, with the structure by the name that it was asked for."""
        plain = self.science.structure.plain_name
        return self.science.variant.replace(plain, self.alias, 1) if self.alias else self.science.variant

    @property
    def training_flops(self) -> int:
        """Training FLOPs of the whole cell."""
        return flops_until(self.science, self.step)


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep and the jobs that make them."""

    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]
    """One per trajectory, trunks before the branches that start from them."""


def plan_sweep(request: SweepRequest) -> Plan:
    """Expand templates x budgets. UserError for a width that no head divides or a budget below one step."""
    grid = request.grid
    check_schedules(request)
    cells = tuple(
        dict.fromkeys(
            replace(cell, asked=template.asked)
            for template in request.templates
            for cell in _with_extra_seeds(list(_cells(template, request)), grid.extra_seeds)
        )
    )
    return Plan(cells, tuple(_jobs(cells, grid.design, request.site.evals_per_decade)))


def check_schedules(request: SweepRequest) -> None:
    """UserError for a schedule that the design of the sweep does not train under."""
    design = request.grid.design
    for template in request.templates:
        if template.schedule not in DESIGNS[design]:
            raise UserError(f"grid={design} trains under schedule={'|'.join(DESIGNS[design])}, not {template.schedule}")


def plan_run(template: Template, d_model: int, tokens: int, per_decade: int) -> Plan:
    """One run: python train.py."""
    steps = steps_of(template, d_model, tokens)
    cell = Cell(run_of(template, d_model, steps), steps, None, template.asked)
    own = Job(cell.science, evaluation_steps(cell.science, steps, per_decade))
    return Plan((cell,), (*_parent_jobs([cell]), own))


# --- cells --------------------------------------------------------------------------------------------------------


def _cells(template: Template, request: SweepRequest) -> Iterator[Cell]:
    grid = request.grid
    lengths = None if request.budgets else template.tokens or grid.tokens
    if lengths is not None:
        for width in _given_widths(template, grid):
            for tokens in lengths:
                steps = steps_of(template, width, tokens)
                yield Cell(run_of(template, width, steps), steps, None)
        return
    for budget in request.budgets:
        if grid.design == "design":
            for width, steps in designed_cells(template, budget, grid):
                yield Cell(run_of(template, width, steps), steps, None)
            continue
        given = template.widths or grid.widths
        widths = _given_widths(template, grid) if given else choose_widths(template, budget, grid)
        for width in widths:
            yield _budget_cell(template, width, budget, grid.most_tokens)


def _with_extra_seeds(cells: Sequence[Cell], seeds: Sequence[int]) -> Iterator[Cell]:
    """The cells, and those at the smallest and the largest width once more under every extra seed."""
    yield from cells
    if not cells:
        return
    widths = [cell.science.model.d_model for cell in cells]
    for cell in cells:
        if cell.science.model.d_model in (min(widths), max(widths)):
            yield from (replace(cell, science=replace(cell.science, seed=seed)) for seed in seeds)


def _budget_cell(template: Template, width: int, budget: float, most_tokens: float | None) -> Cell:
    trunk = template.trunk(width)
    steps = steps_for_flops(partial(run_of, template, width), budget)
    if most_tokens is not None:
        steps = min(steps, steps_for_tokens(trunk, most_tokens))
    if steps < 1:
        raise UserError(
            f"budget = {budget:.3g} FLOPs buys no whole step of {trunk.variant} at d_model = {width}, which takes "
            f"{step_flops(trunk):.3g}; give more, a smaller width, or scale=small"
        )
    return Cell(run_of(template, width, steps), steps, budget)


def _given_widths(template: Template, grid: GridConfig) -> tuple[int, ...]:
    widths = template.widths or grid.widths
    if not widths:
        raise UserError("grid.tokens needs the widths they are for: grid.widths=[64,128]")
    for width in widths:
        template.trunk(width)  # validates that heads divide it
    return tuple(sorted(set(widths)))


# --- jobs ---------------------------------------------------------------------------------------------------------


def _jobs(cells: Iterable[Cell], design: str, per_decade: int) -> Iterator[Job]:
    """One job per trajectory: every cell's step is evaluated, a trunk all along, a decayed run at its end."""
    runs: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        runs[run_id(cell.science)].append(cell)
    yield from _parent_jobs(cells)
    if design == "cooldown":
        yield from _trunk_jobs(cells, per_decade)
    for members in runs.values():
        science, steps = members[0].science, {cell.step for cell in members}
        if science.schedule.kind == "constant":
            steps |= set(evaluation_steps(science, max(steps), per_decade))
        if science.start.parent is not None:
            steps.add(0)  # what the parent's weights are worth under this structure, before any healing
        yield Job(science, tuple(sorted(steps)))


def _parent_jobs(cells: Iterable[Cell]) -> Iterator[Job]:
    """One job for every run that others start from, which keeps a checkpoint of each of their beginnings."""
    parents: dict[str, Science] = {}
    starts: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        start = cell.science.start
        while start.parent is not None:
            parents.setdefault(run_id(start.parent), start.parent)
            starts[run_id(start.parent)].add(start.step)
            start = start.parent.start
    # A parent's own parent was found after it, and has to be there before.
    for identity in reversed(list(parents)):
        steps = tuple(sorted(starts[identity]))
        yield Job(parents[identity], steps, checkpoints=steps)


def _trunk_jobs(cells: Iterable[Cell], per_decade: int) -> Iterator[Job]:
    trunks: dict[str, Science] = {}
    starts: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        trunk = cell.science.scheduled("constant", None)
        trunks.setdefault(run_id(trunk), trunk)
        starts[run_id(trunk)].add(cell.science.schedule.cooldown_start)
    for identity, steps in starts.items():
        trunk = trunks[identity]
        wanted = steps | set(evaluation_steps(trunk, max(steps), per_decade))
        yield Job(trunk, tuple(sorted(wanted)), checkpoints=tuple(sorted(steps)))
