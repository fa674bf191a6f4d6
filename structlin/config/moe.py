"""Is the model a mixture of experts, and which linears are routed?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from structlin.config.checks import LARGEST_SIZE, at_least, one_of
from structlin.errors import UserError

KINDS = ("none", "btt", "ffn", "dense", "low_rank")
COVERED = ("all", "ffn", "attention")
ROUTER_STARTS = ("zero", "random")
_IDLE = {
    "num_experts": 1,
    "top_k": 1,
    "evaluation_top_k": 0,
    "layers": "all",
    "capacity": 0.0,
    "auxiliary_weight": 0.0,
    "z_weight": 0.0,
    "router_start": "zero",
}
"""What a model without experts never reads has one value, so that it has one identity."""


@dataclass(frozen=True)
class MoeConfig:
    """Mixture of experts of arXiv 2410.02117, section 5."""

    kind: str = "none"
    """none; btt (experts are the rank slices of a BTT, a router a linear); ffn (whole FFNs behind one router a block);
    dense and low_rank (every covered linear has experts of that form, a router each)."""
    num_experts: int = 8
    top_k: int = 2
    """Experts a token is sent to while training."""
    evaluation_top_k: int = 0
    """Experts a token is sent to in evaluations; 0: as in training. Costs are those of training."""
    layers: str = "all"
    """Linears that are routed: all (but the head), ffn or attention. Under kind=ffn, ``all`` also gives every linear of
    attention experts of the structure and a router."""
    capacity: float = 0.0
    """Most tokens an expert takes, as a multiple of its fair share; 0 drops none."""
    auxiliary_weight: float = 0.01
    """Weight of a router's loss (balance and z) in the training loss, averaged over routers."""
    z_weight: float = 0.1
    """Weight of the z-loss within a router's loss."""
    router_start: str = "zero"
    """First weights of the routers: zero, or random (normal, of variance 1 / d_in)."""

    def __post_init__(self) -> None:
        one_of("moe.kind", self.kind, KINDS)
        if self.kind == "none":
            for name, value in _IDLE.items():
                object.__setattr__(self, name, value)
            return
        one_of("moe.layers", self.layers, COVERED)
        one_of("moe.router_start", self.router_start, ROUTER_STARTS)
        at_least("moe.num_experts", self.num_experts, 1, LARGEST_SIZE)
        if not 1 <= self.top_k <= self.num_experts:
            raise UserError(f"moe.top_k = {self.top_k} must lie in [1, moe.num_experts = {self.num_experts}]")
        if not 0 <= self.evaluation_top_k <= self.num_experts:
            raise UserError(
                f"moe.evaluation_top_k = {self.evaluation_top_k} must lie in [0, moe.num_experts = {self.num_experts}]"
            )
        if self.evaluation_top_k == self.top_k:
            # One way to say it, so that it has one identity.
            object.__setattr__(self, "evaluation_top_k", 0)
        if self.kind == "ffn" and self.layers == "attention":
            raise UserError("moe.kind = ffn routes FFNs; use moe.layers=ffn or all, or moe=dense moe.layers=attention")
        for name in ("capacity", "auxiliary_weight", "z_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"moe.{name} = {getattr(self, name)} must be a number of at least 0")
        if 0 < self.capacity < 1:
            raise UserError(
                f"moe.capacity = {self.capacity} drops tokens even at balance; give at least 1, or 0 for none"
            )

    @property
    def label(self) -> str:
        """The name of this kind of mixture in a variant: moe-btt8, moe-ffn8-all, moe-btt8-k1; none without experts."""
        if self.kind == "none":
            return "none"
        usual = "ffn" if self.kind == "ffn" else "all"
        words = [f"moe-{self.kind}{self.num_experts}"]
        words += [] if self.layers == usual else [self.layers]
        words += [] if self.top_k == 2 else [f"k{self.top_k}"]
        words += [f"c{self.capacity:g}"] if self.capacity else []
        words += [f"e{self.evaluation_top_k}"] if self.evaluation_top_k else []
        words += [] if self.router_start == "zero" else [self.router_start]
        return "-".join(words)

    @property
    def routes_attention(self) -> bool:
        """Whether queries, keys and values have experts."""
        return self.kind != "none" and self.layers != "ffn"

    @property
    def replaces_structure(self) -> bool:
        """Whether every linear of the blocks has experts of their own form, so that the structure is never read."""
        return self.kind in ("btt", "dense", "low_rank") and self.layers == "all"
