"""How are the weights updated, and at which rate over the steps?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from structlin.config.checks import at_least, one_of
from structlin.errors import UserError
from structlin.structure.plan import RATE_RULES

ROLES = ("factor", "embedding", "router", "gain", "bias", "scale")
"""Of a parameter (nn/spec.py): weights of linears, tables, routers, and of layer norms, biases and learned caps."""
DECAYED = ("factor", "embedding", "router")
"""Roles that decay unless others are asked for: all but vectors and scalars."""
SCHEDULES = ("constant", "cosine", "cooldown")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with a learning rate per factor."""

    name: str = "adamw"
    lr: float = 3e-3
    """lr0: the rate of scalars, vectors and embeddings; factors multiply it (structure/scaling.py)."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    decayed: tuple[str, ...] = DECAYED
    """Roles of the parameters to which the decay applies (ROLES)."""
    clip: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""
    rate_rule: str = "structure"
    """structure: muP per factor; naive: the dense multiplier for every factor; plain: one rate for all parameters."""
    batch_tokens: int = 65_536
    """Tokens an optimizer step."""

    def __post_init__(self) -> None:
        one_of("optim.name", self.name, ("adamw",))
        one_of("optim.rate_rule", self.rate_rule, RATE_RULES)
        at_least("optim.batch_tokens", self.batch_tokens, 1)
        for role in self.decayed:
            one_of("optim.decayed", role, ROLES)
        # Sorted, and all alike where nothing decays: one way to say it, so that it has one identity.
        asked = self.decayed if self.weight_decay else DECAYED
        object.__setattr__(self, "decayed", tuple(role for role in ROLES if role in asked))
        for name in ("lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"optim.{name} = {getattr(self, name)} must be a number above 0")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"optim.{name} = {getattr(self, name)} must be a number of at least 0")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optim.{name} = {getattr(self, name)} must lie in [0, 1)")


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over steps. A constant rate has no horizon: a longer run extends the same trunk."""

    kind: str = "constant"
    """constant; cosine (to final * lr at the horizon); cooldown (constant, then linear to final * lr)."""
    warmup_steps: int = 2_000
    """Steps of linear warm-up from 0."""
    horizon_steps: int | None = None
    """Last step of a decayed schedule; None under a constant rate."""
    final: float = 0.1
    """Rate at the horizon over the peak rate."""
    cooldown_fraction: float = 0.2
    """Share of the horizon spent in the decay of ``cooldown``."""

    def __post_init__(self) -> None:
        one_of("schedule.kind", self.kind, SCHEDULES)
        at_least("schedule.warmup_steps", self.warmup_steps, 0)
        for name in ("final", "cooldown_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"schedule.{name} = {getattr(self, name)} must lie in [0, 1]")
        if (self.kind == "constant") != (self.horizon_steps is None):
            raise UserError(
                f"schedule.kind = {self.kind} with horizon_steps = {self.horizon_steps}: "
                "a constant rate has no horizon and a decayed one needs it"
            )

    @property
    def cooldown_start(self) -> int:
        """The step at which a cooldown leaves its constant trunk."""
        assert self.horizon_steps is not None
        return self.horizon_steps - max(1, round(self.cooldown_fraction * self.horizon_steps))
