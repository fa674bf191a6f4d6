"""Which structure do the linear layers take?"""

from __future__ import annotations

from dataclasses import dataclass

from structlin.config.checks import one_of
from structlin.errors import UserError
from structlin.structure import ROUNDINGS, Theta, name_of

HEAD_LAYOUTS = ("none", "nddn", "dndn", "ndnd", "dnnd")
"""Axes (alpha, gamma, epsilon, phi) of arXiv 2410.02117 (head-aware BTT): n heads, d features of a head."""


@dataclass(frozen=True)
class StructureConfig:
    """The structure of the linear layers."""

    theta: str = "(1/2|0|1/2|0|1/2|1/2|0)"
    """The seven exponents as text; catalogue names are resolved before they get here."""
    rounding: str = "exact"
    """Policy that makes integer sizes of the exponents: exact or paper."""
    head_layout: str = "none"
    """Head-aware BTT: the axes (alpha, gamma, epsilon, phi) of q, k, v and o in heads n and features of a head d."""

    def __post_init__(self) -> None:
        try:
            theta = Theta.parse(self.theta)
            theta.check_useful()
        except ValueError as error:
            raise UserError(f"structure.theta: {error}") from None
        object.__setattr__(self, "theta", str(theta))
        one_of("structure.rounding", self.rounding, ROUNDINGS)
        one_of("structure.head_layout", self.head_layout, HEAD_LAYOUTS)
        if self.head_layout != "none" and not theta.is_btt:
            raise UserError(
                f"structure.head_layout = {self.head_layout} lays out a block tensor train (beta = delta = 0), which "
                f"{theta} is not; use structure=btt, or head_layout=none"
            )

    @property
    def name(self) -> str:
        """The catalogue name of the theta, or its text; then @ a head layout, and /paper under the paper's rounding."""
        plain = name_of(Theta.parse(self.theta))
        if plain == "dense":
            return plain
        layout = "" if self.head_layout == "none" else f"@{self.head_layout}"
        return plain + layout + ("" if self.rounding == "exact" else f"/{self.rounding}")
