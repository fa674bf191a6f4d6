"""What is a structure? Seven exponents that say which tensors each index of a two-factor einsum joins.

    index   alpha  beta  gamma  delta  epsilon  phi    rho
    joins   X-A    X-B   X-A-B  Y-A    Y-B      Y-A-B  A-B

Each exponent lies in [0, 1]; the input exponents (alpha, beta, gamma) sum to one and so do the output exponents
(delta, epsilon, phi). They are kept as fractions exactly as written: under rounding=paper 256^0.67 and 256^(2/3)
are different sizes. Source: arXiv 2410.02117, section 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache

# The paper writes thirds as 0.33 and 0.67, so a sum may miss one by a hundredth.
SUM_TOLERANCE = Fraction(1, 100)


@dataclass(frozen=True)
class Theta:
    """The exponents of one two-factor einsum layer; size of index i is about d^i."""

    alpha: Fraction
    """Input index that touches A only."""
    beta: Fraction
    """Input index that touches B only."""
    gamma: Fraction
    """Input index shared by A and B."""
    delta: Fraction
    """Output index that touches A only."""
    epsilon: Fraction
    """Output index that touches B only."""
    phi: Fraction
    """Output index shared by A and B."""
    rho: Fraction
    """Index joining A and B alone (the rank)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise ValueError(f"{field.name} = {value} in theta {self} lies outside [0, 1]")
        for names in (("alpha", "beta", "gamma"), ("delta", "epsilon", "phi")):
            total = sum((getattr(self, name) for name in names), Fraction(0))
            if abs(total - 1) > SUM_TOLERANCE:
                raise ValueError(
                    f"{' + '.join(names)} = {float(total):.4g} in theta {self}, but must be 1 (within 0.01)"
                )

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> Theta:
        """Read ``(a|b|g|d|e|f|r)`` or ``a,b,g,d,e,f,r``; each number a decimal or a fraction such as 1/3.

        Raises ValueError naming the text and what is wrong with it.
        """
        body = text.strip()
        if body.startswith(("(", "[")) and body.endswith((")", "]")):
            body = body[1:-1]
        parts = [part.strip() for part in re.split(r"[|,]", body)]
        if len(parts) != 7:
            raise ValueError(
                f"theta '{text}' has {len(parts)} numbers, but needs 7: (alpha|beta|gamma|delta|epsilon|phi|rho)"
            )
        return cls(*(_fraction(part, text) for part in parts))

    @property
    def exponents(self) -> tuple[Fraction, ...]:
        """The seven exponents in the order of the text form."""
        return (self.alpha, self.beta, self.gamma, self.delta, self.epsilon, self.phi, self.rho)

    def __str__(self) -> str:
        return "(" + "|".join(str(exponent) for exponent in self.exponents) + ")"

    @property
    def is_dense(self) -> bool:
        """gamma = phi = 1: every feature joins both factors; as a layer this is one dense weight."""
        return self.gamma == 1 and self.phi == 1

    @property
    def is_btt(self) -> bool:
        """Whether this is a block tensor train: no index of the input or output skips a factor (beta = delta = 0)."""
        return self.beta == self.delta == 0 and not self.is_dense

    @property
    def swapped(self) -> Theta:
        """The same layer with the names of A and B exchanged."""
        return Theta(self.beta, self.alpha, self.gamma, self.epsilon, self.delta, self.phi, self.rho)

    @property
    def is_redundant(self) -> bool:
        """A is contracted first by convention, yet B first is cheaper: the swapped theta names the same layer."""
        return min(self.alpha, self.epsilon) < min(self.beta, self.delta)

    @property
    def is_degenerate(self) -> bool:
        """The rank exceeds what the factors can use, so that the layer costs more than a dense one."""
        return self.rho > max(min(self.alpha, self.epsilon), min(self.beta, self.delta))

    def check_useful(self) -> None:
        """Raise ValueError for a redundant or degenerate theta, naming the change that mends it."""
        if self.is_degenerate:
            most = max(min(self.alpha, self.epsilon), min(self.beta, self.delta))
            raise ValueError(
                f"theta {self} is degenerate: rho = {self.rho} exceeds min(alpha, epsilon) = {most}, so it costs more "
                f"than a dense layer; use rho <= {most}"
            )
        if self.is_redundant:
            raise ValueError(
                f"theta {self} is redundant: min(alpha, epsilon) < min(beta, delta); "
                f"swap A and B: the same layer is {self.swapped}"
            )

    def with_rho(self, rho: Fraction) -> Theta:
        """The same theta with another rank exponent."""
        return Theta(self.alpha, self.beta, self.gamma, self.delta, self.epsilon, self.phi, rho)


def parse_fraction(text: str) -> Fraction:
    """Read a decimal or a fraction such as 1/3; ValueError names the text."""
    return _fraction(text, text)


def _fraction(part: str, whole: str) -> Fraction:
    try:
        # Fraction keeps decimals exactly as written: Fraction("0.33") is 33/100.
        return Fraction(part)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{part}' in '{whole}' is not a number such as 0.5 or 1/3") from None
