"""Does a dense matrix beside the factors guide a run while it begins, and for how long? arXiv 2406.16450, section 3."""

from __future__ import annotations

from dataclasses import dataclass

from structlin.config.checks import at_least, one_of
from structlin.errors import UserError

KINDS = ("none", "full", "stochastic")
MATCHES = ("none", "dense")
SHARE = 0.5
"""Of a run's steps, where nothing else says how long it is guided (as published)."""


@dataclass(frozen=True)
class GuideConfig:
    """Self-guided training: y = s W x + (1 - s) F(x), s falling from 1 to 0 as a cosine; then W is dropped."""

    kind: str = "none"
    """none; full (every structured linear computes W x at every guided step); stochastic (it does with probability s,
    drawn by a hash of seed, step and layer)."""
    share: float | None = None
    """Share of the run's steps that is guided."""
    steps: int | None = None
    """Guided steps by number, for a run whose length is open (a constant rate)."""
    match: str = "none"
    """dense: guided for as long as makes the run as dear as the dense model's on the same fresh tokens; what it has
    over is read a second time (arXiv 2406.16450, appendix)."""

    def __post_init__(self) -> None:
        one_of("guide.kind", self.kind, KINDS)
        if self.kind == "none":
            for name, value in (("share", None), ("steps", None), ("match", "none")):
                object.__setattr__(self, name, value)
            return
        one_of("guide.match", self.match, MATCHES)
        given = [f"guide.{name} = {value}" for name, value in self._lengths() if value is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} all say how long a run is guided; give one")
        if not given:
            object.__setattr__(self, "share", SHARE)
        if self.share is not None and not 0 < self.share <= 1:
            raise UserError(f"guide.share = {self.share} must lie in (0, 1]")
        if self.steps is not None:
            at_least("guide.steps", self.steps, 1)

    def _lengths(self) -> tuple[tuple[str, object], ...]:
        return ("share", self.share), ("steps", self.steps), ("match", None if self.match == "none" else self.match)

    @property
    def needs_horizon(self) -> bool:
        """Whether its length follows from the run's."""
        return self.kind != "none" and self.steps is None

    @property
    def label(self) -> str:
        """In the name of a variant: full-guide, stochastic-guide.3, stochastic-guide-match."""
        if self.steps is not None:
            return f"{self.kind}-guide-{self.steps}"
        if self.match != "none":
            return f"{self.kind}-guide-match"
        return f"{self.kind}-guide" + ("" if self.share == SHARE else f"{self.share:g}".removeprefix("0"))
