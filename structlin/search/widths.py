"""Which runs has an arm at a compute? Those of the widths that its grid, or its law, wants there."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from structlin.anatomy.compute import steps_for_flops
from structlin.anatomy.ledger import ledger
from structlin.config.grid import GridConfig
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.planning.widths import choose_widths
from structlin.search.arms import Arm

_NEXT_TO = 1.15
"""Widths whose ratio is less are next to one another."""


def end_step(science: Science, flops: float, per_decade: int) -> int:
    """The step of the evaluation lattice nearest to a compute, at least 1.

    Every longer run evaluates there, so that a rung is done wherever more was trained.
    """
    steps = max(steps_for_flops(lambda _: science, flops), 1)
    return max(1, round(10 ** (round(math.log10(steps) * per_decade) / per_decade)))


Runs = tuple[tuple[Science, int], ...]
"""Runs under the first seed, and their last steps."""


class Widths:
    """The runs of an arm at a compute, kept: planning asks for the same again and again."""

    def __init__(self, grid: GridConfig, per_decade: int) -> None:
        self._grid, self._per_decade = grid, per_decade
        self._found: dict[tuple[object, ...], Runs] = {}

    def of(
        self, arm: Arm, flops: float, ratio: float | None = None, have: tuple[int, ...] = (), points: int = 0
    ) -> Runs:
        """The runs; none where no width serves the arm.

        ``ratio``: tokens per MAC that its law wants, about which the widths are laid; None: as the grid says. ``have``:
        widths that are trained already, and taken first where they lie in the range; ``points``: fewer than the grid's.
        """
        key = (arm, flops, ratio, have, points)
        if key not in self._found:
            sciences = [arm.template.trunk(width) for width in self._widths(arm, flops, ratio, have, points)]
            self._found[key] = tuple((one, end_step(one, flops, self._per_decade)) for one in sciences)
        return self._found[key]

    def _widths(
        self, arm: Arm, flops: float, ratio: float | None, have: tuple[int, ...], points: int
    ) -> tuple[int, ...]:
        grid = replace(self._grid, points=points or self._grid.points)
        if grid.widths:
            return tuple(sorted(set(grid.widths)))
        low, high = grid.tokens_per_param
        if ratio is not None:
            # New widths half as wide, in logs, as the range where nothing was known; those that are there as wide.
            half, ratio = math.sqrt(high / low), float(np.clip(ratio, low, high))
            low, high = ratio / half, ratio * half
            grid = replace(grid, tokens_per_param=(ratio / math.sqrt(half), ratio * math.sqrt(half)))
        try:
            found = choose_widths(arm.template, flops, grid)
        except UserError:
            return ()
        return _with_those_there(arm, flops, (low, high), found, have, grid.points) if have else found


def _with_those_there(
    arm: Arm, flops: float, ratios: tuple[float, float], found: tuple[int, ...], have: tuple[int, ...], points: int
) -> tuple[int, ...]:
    """Widths that have runs and lie in the range, then those chosen that are not next to one of them."""
    middle = 0.5 * math.log(flops / (6 * math.sqrt(ratios[0] * ratios[1])))
    reach = 0.25 * math.log(ratios[1] / ratios[0]) + 1e-9

    def off(width: int) -> float:
        return abs(math.log(ledger(arm.template.trunk(width)).macs_per_token) - middle)

    kept = sorted((width for width in have if off(width) <= reach), key=off)[:points]
    for width in sorted(found, key=off):
        if len(kept) < points and all(abs(math.log(width / one)) > math.log(_NEXT_TO) for one in kept):
            kept.append(width)
    return tuple(sorted(kept))
