"""Which widths does a budget deserve? Those of a lattice whose tokens per forward MAC lie in the asked range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from structlin.anatomy.compute import steps_for_flops
from structlin.anatomy.ledger import ledger
from structlin.config.grid import GridConfig
from structlin.config.request import Template
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.planning.beginning import run_of
from structlin.planning.horizon import warmup_share
from structlin.structure.sizes import UnservedWidth

MOST_WIDTH = 1 << 20

ENOUGH_WIDTHS = 4
"""A coarse lattice with this many widths is preferred to a finer one: budgets then share their trunks."""

MOST_WARMUP = 0.5
"""A width is chosen for a budget only where warm-up takes at most this share of its steps."""


def choose_widths(template: Template, budget: float, grid: GridConfig) -> tuple[int, ...]:
    """Up to ``grid.points`` widths whose tokens per forward MAC lie in the asked range, evenly spread over it.

    At compute C = 6 N D and ratio t = D / N a model has N = sqrt(C / 6t) MACs per token. Widths come from the
    coarsest of the lattices step * {1, 1.5} 2^k, step * {1, 1.25, 1.5, 1.75} 2^k and all multiples of the step
    that holds enough of them (four, or all asked for), so that different budgets share widths, and with them
    trunks. Widths that the budget would leave in warm-up for over half of their steps are passed over. Where the
    range holds no width at all, the one nearest to it is taken.
    """
    # Many tokens per MAC mean a small model: the ratios change places.
    low, high = ((budget / (6 * ratio)) ** 0.5 for ratio in reversed(grid.tokens_per_param))
    found: list[int] = []
    members: list[int] = []
    for fractions in ((2, 3), (4, 5, 6, 7), None):
        # A lattice that offers nothing keeps the answer of the coarser one before it.
        members = list(lattice(template, fractions, high)) or members
        inside = [width for width in members if low <= _size(template, width) <= high]
        found = [width for width in inside if _affordable(template, width, budget)] or found
        if len(found) >= min(grid.points, ENOUGH_WIDTHS):
            break
    if not members:
        _refuse(template, high)
    if not found:
        # In logarithms, in which the range is symmetric about its geometric mean.
        middle = math.sqrt(low * high)
        found = [min(members, key=lambda width: abs(math.log(_size(template, width) / middle)))]
    return _spread(found, grid.points)


def _spread(widths: Sequence[int], points: int) -> tuple[int, ...]:
    """At most ``points`` of the widths, the first and last among them, evenly spaced by rank."""
    if len(widths) <= points:
        return tuple(widths)
    last = len(widths) - 1
    return tuple(widths[round(index * last / max(1, points - 1))] for index in range(points))


def _size(template: Template, width: int) -> int:
    return ledger(template.trunk(width)).macs_per_token


def outlives_warmup(science: Science, steps: int) -> bool:
    """Whether warm-up takes at most half of a run's steps."""
    return warmup_share(science, steps) <= MOST_WARMUP


def _affordable(template: Template, width: int, budget: float) -> bool:
    steps = steps_for_flops(partial(run_of, template, width), budget)
    return outlives_warmup(run_of(template, width, max(1, steps)), steps)


def lattice(template: Template, fractions: tuple[int, ...] | None, high: float) -> Iterator[int]:
    """Widths step * {fractions / fractions[0]} 2^k (None: all multiples) up to the first of size above ``high``.

    Widths that cannot have the structure (a Monarch of b blocks needs b^2) are passed over.
    """
    width_step = template.science.model.width_step
    multiples: Iterable[int] = range(1, MOST_WIDTH // width_step)
    if fractions is not None:
        scaled = {fraction << k for k in range(21) for fraction in fractions}
        multiples = sorted(value // fractions[0] for value in scaled if value % fractions[0] == 0)
    for multiple in multiples:
        width = multiple * width_step
        try:
            size = _size(template, width)
        except UnservedWidth:
            # No structure of this project costs less than d^(3/2): wider ones would be above ``high`` too.
            size = int(width**1.5)
        else:
            yield width
        if size > high or width > MOST_WIDTH:
            return


def _refuse(template: Template, high: float) -> None:
    """UserError for a structure that no width within reach can have, by the error of the widest."""
    step = template.science.model.width_step
    width = max(1, round(high ** (2 / 3) / step)) * step
    try:
        _size(template, width)
    except UnservedWidth as error:
        raise UserError(f"{error}; or give a larger budget, or wider layers by grid.widths") from None
