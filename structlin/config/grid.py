"""Which widths and tokens is a budget spent on? The designs of a sweep and their keys."""

from __future__ import annotations

import math
from dataclasses import dataclass

from structlin.config.checks import LARGEST_SIZE, at_least
from structlin.errors import UserError, suggest

DESIGNS = {
    "frontier": ("constant",),
    "isoflop": ("cosine", "cooldown"),
    "cooldown": ("cooldown",),
    "design": ("constant",),
    "search": ("constant",),
}
"""Design of a sweep -> the schedules it can train under."""


@dataclass(frozen=True)
class GridConfig:
    """Which widths and tokens a budget is spent on."""

    design: str = "frontier"
    """frontier, isoflop, cooldown, design or search (DESIGNS)."""
    points: int = 6
    """Widths per structure and budget."""
    tokens_per_param: tuple[float, ...] = (5.0, 200.0)
    """Range of tokens per forward MAC over which the widths are spread."""
    widths: tuple[int, ...] | None = None
    """Widths by hand, which the heads divide."""
    tokens: tuple[int, ...] | None = None
    """Tokens by hand, for every width; then no budget is needed."""
    most_tokens: float | None = None
    """No run of a budget is longer than this: small widths would take more steps than they can use."""
    extra_seeds: tuple[int, ...] = ()
    """Seeds besides that of the Science, for the smallest and the largest width of each structure and budget."""
    laws: str = "laws/laws.json"
    """Fitted laws that design=design plans from."""

    def __post_init__(self) -> None:
        if self.design not in DESIGNS:
            raise UserError(f"unknown grid design '{self.design}'; {suggest(self.design, DESIGNS)}")
        if self.points < 1:
            raise UserError(f"grid.points = {self.points} must be at least 1")
        bounds = self.tokens_per_param
        if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] < math.inf:
            raise UserError(f"grid.tokens_per_param = {list(bounds)} must be [low, high] with 0 < low <= high")
        for name in ("widths", "tokens"):
            values = getattr(self, name)
            if values is not None and (not values or min(values) < 1):
                raise UserError(f"grid.{name} = {list(values)} must list numbers of at least 1")
        for width in self.widths or ():
            at_least("grid.widths", width, 1, LARGEST_SIZE)
        if self.most_tokens is not None and not self.most_tokens >= 1:
            raise UserError(f"grid.most_tokens = {self.most_tokens} must be at least 1")
