"""Which structure do the linear layers take?"""

from __future__ import annotations

from dataclasses import dataclass

from structlin.config.checks import one_of
from structlin.config.ranks import NONE, canonical, label
from structlin.errors import UserError
from structlin.structure import ROUNDINGS, Theta, name_of
from structlin.structure.heads import HEAD_LAYOUTS
from structlin.structure.plan import CONTRACTIONS, OUTPUT_ORDERS


@dataclass(frozen=True)
class StructureConfig:
    """The structure of the linear layers."""

    theta: str = "(1/2|0|1/2|0|1/2|1/2|0)"
    """The size of every index as text (structure/theta.py); names are resolved before they get here."""
    rounding: str = "exact"
    """Policy that makes integer sizes of the exponents: exact or paper."""
    head_layout: str = "none"
    """Head-aware BTT: the axes (alpha, gamma, epsilon, phi) of q, k, v and o in heads n and features of a head d."""
    output_order: str = "fed"
    """Axes of the output of two factors, the first outermost: fed, or efd as BlockShuffle leaves it."""
    contraction: str = "cheapest"
    """Order in which the factors meet the input: cheapest, or first (factor 1 first, as the released code does)."""
    ranks: str = "none"
    """Ranks of single linears in place of theta's, as canonical JSON (config/ranks.py); none: all have theta's."""

    def __post_init__(self) -> None:
        try:
            theta = Theta.parse(self.theta)
            theta.check_useful()
        except ValueError as error:
            raise UserError(f"structure.theta: {error}") from None
        object.__setattr__(self, "theta", str(theta))
        one_of("structure.rounding", self.rounding, ROUNDINGS)
        one_of("structure.head_layout", self.head_layout, HEAD_LAYOUTS)
        one_of("structure.output_order", self.output_order, OUTPUT_ORDERS)
        one_of("structure.contraction", self.contraction, CONTRACTIONS)
        object.__setattr__(self, "ranks", canonical(self.ranks))
        self._check_layout(theta)
        if theta.is_dense:
            # A dense layer has neither axes nor an order: one way to say it, so that it has one identity.
            object.__setattr__(self, "output_order", "fed")
            if self.ranks == NONE:
                object.__setattr__(self, "contraction", "cheapest")

    def _check_layout(self, theta: Theta) -> None:
        if self.head_layout != "none" and not theta.is_btt:
            raise UserError(
                f"structure.head_layout = {self.head_layout} lays out a block tensor train of two factors "
                f"(beta = delta = 0), which {theta} is not; use structure=btt, or head_layout=none"
            )
        if self.output_order == "efd" and theta.num_factors != 2:
            raise UserError(
                f"structure.output_order = efd orders the output of two factors, and {theta} has {theta.num_factors}; "
                "use output_order=fed"
            )
        if self.output_order == "efd" and self.head_layout != "none":
            raise UserError(
                f"structure.head_layout = {self.head_layout} orders the output's axes itself; use output_order=fed"
            )

        if self.head_layout != "none" and self.ranks != NONE:
            raise UserError(
                f"structure.head_layout = {self.head_layout} lays out the features of structured layers, and "
                "structure.ranks makes others of some; use head_layout=none, or ranks=none"
            )

    @property
    def num_factors(self) -> int:
        """Factors of theta."""
        return Theta.parse(self.theta).num_factors

    @property
    def is_dense(self) -> bool:
        """Whether it is no structure at all."""
        return Theta.parse(self.theta).is_dense

    @property
    def plain_name(self) -> str:
        """A name for theta and the order of its output's axes."""
        return name_of(Theta.parse(self.theta), self.output_order)

    @property
    def name(self) -> str:
        """``plain_name``; then @ a head layout or ranks of single linears, and /paper under the paper's rounding."""
        plain = self.plain_name
        if plain == "dense":
            return plain if self.ranks == NONE else label(self.ranks)
        layout = "" if self.head_layout == "none" else f"@{self.head_layout}"
        layout += "" if self.ranks == NONE else f"@{label(self.ranks)}"
        return plain + layout + ("" if self.rounding == "exact" else f"/{self.rounding}")
