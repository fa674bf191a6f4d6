"""What is searched, at which compute are arms compared, and when does one leave? The keys of grid=search."""

from __future__ import annotations

import math
from dataclasses import dataclass

from structlin.errors import UserError

SEEDS = ("top", "all")
MOST_RUNGS = 12


@dataclass(frozen=True)
class Sampled:
    """Thetas that structure=sample has drawn: where proposals go on drawing."""

    count: int
    seed: int
    factors: int
    bounds: tuple[tuple[str, tuple[float, float]], ...] = ()
    """Taxonomy exponent -> its closed range."""


@dataclass(frozen=True)
class SearchConfig:
    """A search over structures."""

    target: float
    """Training FLOPs of the run at which arms are compared."""
    eta: float = 3.0
    """Each rung has so many times the compute of the one below it, and as many times fewer arms."""
    rungs: int | None = None
    """Number of rungs; None: until two arms are left."""
    level: float = 0.01
    """An arm leaves when its P(best) is below."""
    proposals: int | None = None
    """New arms after the first rung at most; None: one for nine arms, where thetas are sampled."""
    seeds: str = "top"
    """Where seeds besides the first are trained: at the top rung, or at all."""
    wait: bool = False
    """On a cluster: stay, and submit the next rung when one has ended."""
    sampled: tuple[Sampled, ...] = ()
    """What the arms were sampled by."""

    def __post_init__(self) -> None:
        if not 0 < self.target < 1e30:
            raise UserError(f"target = {self.target} must be training FLOPs between 0 and 1e30, such as 1e18")
        if not 1.5 <= self.eta <= 100:
            raise UserError(f"search.eta = {self.eta} must lie in [1.5, 100]; 3 is usual")
        if self.rungs is not None and not 1 <= self.rungs <= MOST_RUNGS:
            raise UserError(f"search.rungs = {self.rungs} must lie in [1, {MOST_RUNGS}], or be null")
        if not (0 <= self.level < 1) or math.isnan(self.level):
            raise UserError(f"search.level = {self.level} must be a probability below 1, such as 0.01")
        if self.proposals is not None and not 0 <= self.proposals <= 1000:
            raise UserError(f"search.proposals = {self.proposals} must lie in [0, 1000], or be null")
        if self.seeds not in SEEDS:
            raise UserError(f"search.seeds = {self.seeds} is unknown; top or all")
