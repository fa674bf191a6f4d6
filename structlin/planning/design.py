"""Which cells teach most? grid=design: the next runs that narrow the frontier's interval, within a budget in all.

The laws fitted so far (fit_laws.py) hold a pilot per variant: its parametric law and Fisher information. Candidates
are the widths of the usual lattice at several lengths; ``laws.design`` picks among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from structlin.anatomy.ledger import ledger
from structlin.config.grid import GridConfig
from structlin.config.request import Template
from structlin.errors import UserError
from structlin.host.files import read_json
from structlin.planning.horizon import steps_for_tokens
from structlin.planning.widths import lattice, outlives_warmup

LENGTHS = 5
"""Lengths tried per width, evenly spaced (in log) over grid.tokens_per_param."""


def designed_cells(template: Template, budget: float, grid: GridConfig) -> Iterator[tuple[int, int]]:
    """(width, steps) of the chosen runs, at most ``grid.points``, whose training FLOPs sum to at most ``budget``.

    UserError where there is no laws.json, no pilot of this variant, or no candidate within the budget.
    """
    # The laws bring pandas, which no other plan needs.
    from structlin.laws.checks.next_runs import design, pilot_of

    candidates = list(_candidates(template, budget, grid))
    if not candidates:
        raise UserError(f"grid=design: no width of {template.science.variant} fits into budget = {budget:.3g} FLOPs")
    sizes = [ledger(template.trunk(width)).macs_per_token for width, _ in candidates]
    tokens = [steps * template.science.optim.batch_tokens for _, steps in candidates]
    pilot = pilot_of(_laws(grid), template.science.variant)
    chosen = design(pilot, sizes, tokens, budget_flops=budget, most=grid.points)
    cells = {(size, count): cell for size, count, cell in zip(sizes, tokens, candidates, strict=True)}
    for cell in chosen:
        yield cells[round(cell.size), round(cell.tokens)]


def _candidates(template: Template, budget: float, grid: GridConfig) -> Iterator[tuple[int, int]]:
    low, high = grid.tokens_per_param
    ratios = [low * (high / low) ** (index / (LENGTHS - 1)) for index in range(LENGTHS)]
    for width in lattice(template, (2, 3), (budget / (6 * low)) ** 0.5):
        trunk = template.trunk(width)
        size = ledger(trunk).macs_per_token
        for ratio in ratios:
            steps = steps_for_tokens(trunk, size * ratio)
            flops = 6 * size * steps * trunk.optim.batch_tokens
            if flops <= budget and outlives_warmup(trunk, steps):
                yield width, steps


def _laws(grid: GridConfig) -> dict[str, object]:
    if not Path(grid.laws).exists():
        raise UserError(f"grid=design plans from fitted laws, but {grid.laws} is missing; run python fit_laws.py first")
    found = read_json(Path(grid.laws))
    if not isinstance(found, dict):
        raise UserError(f"{grid.laws} holds no laws; run python fit_laws.py again")
    return found
