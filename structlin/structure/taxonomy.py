"""Where does a structure stand among all structures? Three exponents, for any number of factors.

    nu     FLOPs        = Theta(d^(1 + nu))      1 + nu: the least, over all orders of contraction, of the largest step
    omega  FLOPs/params = Theta(d^omega)         1 + nu minus the exponent of the largest factor
    psi    rank         = Theta(d^psi)           the least cut between input and output

for d_in = d_out = d. Exponents alone count; at nu = 1 coefficients decide. For two factors these are the formulas of
arXiv 2410.02117, section 3, in a form that does not care which factor is called A:

    m = max(min(alpha, epsilon), min(beta, delta))      nu = 1 + rho - m
    omega = min(alpha + delta, beta + epsilon) - m      psi = min(1, 2 + rho - alpha - epsilon, 2 + rho - beta - delta)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import combinations

from structlin.structure.contraction import orders
from structlin.structure.index import Index, indices, places


@dataclass(frozen=True)
class Taxonomy:
    """The exponents (nu, omega, psi) of a structure."""

    nu: float
    """Compute intensity: FLOPs grow as d^(1 + nu); dense has 1."""
    omega: float
    """Parameter sharing: FLOPs per parameter grow as d^omega; BTT, low rank and dense have 0."""
    psi: float
    """Rank exponent: 1 is full rank."""


def exponents_taxonomy(num_factors: int, exponents: Sequence[Fraction] | Sequence[float]) -> Taxonomy:
    """(nu, omega, psi) of the exponents of all indices, in the order of ``indices(num_factors)``."""

    def total(chosen: Iterable[int]) -> float:
        # Fractions are added exactly, so that thirds cancel.
        return float(sum(exponents[place] for place in chosen))

    compute = min(max(map(total, steps)) for steps in _step_places(num_factors))
    largest = max(map(total, _factor_places(num_factors)))
    rank = min(1.0, *map(total, cuts(num_factors)))
    return Taxonomy(nu=compute - 1, omega=compute - largest, psi=rank)


@cache
def cuts(num_factors: int) -> tuple[tuple[int, ...], ...]:
    """Places of the indices that join {input, kept factors} with {output, the others}, for all sets of kept ones."""
    own, numbers = indices(num_factors), range(1, num_factors + 1)
    kept = [set(chosen) for count in range(num_factors + 1) for chosen in combinations(numbers, count)]
    return tuple(tuple(place for place, index in enumerate(own) if _is_cut(index, one)) for one in kept)


def _is_cut(index: Index, kept: set[int]) -> bool:
    # The input stands with the kept factors, the output with the others.
    left = index.side == "x" or any(factor in kept for factor in index.factors)
    right = index.side == "y" or any(factor not in kept for factor in index.factors)
    return left and right


@cache
def _step_places(num_factors: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Places of the indices of each step of each order."""
    at = places(num_factors)
    return tuple(tuple(tuple(at[i.name] for i in step.all) for step in steps) for steps in orders(num_factors))


@cache
def _factor_places(num_factors: int) -> tuple[tuple[int, ...], ...]:
    own = indices(num_factors)
    return tuple(
        tuple(place for place, index in enumerate(own) if factor in index) for factor in range(1, num_factors + 1)
    )
