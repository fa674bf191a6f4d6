"""Where does a structure stand among all structures? Three exponents.

    nu     FLOPs        = Theta(d^(1 + nu))      nu    = 1 + rho - m
    omega  FLOPs/params = Theta(d^omega)         omega = min(alpha + delta, beta + epsilon) - m
    psi    rank         = Theta(d^psi)           psi   = min(1, 2 + rho - alpha - epsilon, 2 + rho - beta - delta)

with m = max(min(alpha, epsilon), min(beta, delta)), for d_in = d_out = d. Source: arXiv 2410.02117, section 3; the
form above does not care which factor is called A (derived here, equal to the paper's for every theta that is
neither redundant nor degenerate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from structlin.structure.sizes import Sizes
from structlin.structure.theta import Theta


@dataclass(frozen=True)
class Taxonomy:
    """The exponents (nu, omega, psi) of a structure."""

    nu: float
    """Compute intensity: FLOPs grow as d^(1 + nu); dense has 1."""
    omega: float
    """Parameter sharing: FLOPs per parameter grow as d^omega; BTT, low rank and dense have 0."""
    psi: float
    """Rank exponent: 1 is full rank."""


def taxonomy(theta: Theta) -> Taxonomy:
    """(nu, omega, psi) of a theta; e.g. BTT (1/2, 0, 1), low rank at rho = 1/2 (1/2, 0, 1/2), dense (1, 0, 1)."""
    return _from_exponents([float(exponent) for exponent in theta.exponents])


def realised_taxonomy(sizes: Sizes) -> Taxonomy:
    """The same from the exponents that rounding realised at one layer shape."""
    if sizes.dense:
        return Taxonomy(nu=1.0, omega=0.0, psi=1.0)
    return _from_exponents(sizes.exponents)


def _from_exponents(exponents: Sequence[float]) -> Taxonomy:
    alpha, beta, _, delta, epsilon, _, rho = exponents
    m = max(min(alpha, epsilon), min(beta, delta))
    return Taxonomy(
        nu=1 + rho - m,
        omega=min(alpha + delta, beta + epsilon) - m,
        psi=min(1.0, 2 + rho - alpha - epsilon, 2 + rho - beta - delta),
    )
