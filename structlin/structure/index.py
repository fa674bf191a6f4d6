"""Which indices can a linear map of N factors have? Each joins the input, the output or neither, and a set of factors.

    x12   an input index that factors 1 and 2 share        y3   an output index of factor 3 alone
    r23   an index that joins factors 2 and 3 and nothing else (a rank)

One to four factors have 2, 7, 18 and 41 of them. Those of two factors also have the Greek names of arXiv 2410.02117:

    x1    x2    x12    y1     y2       y12  r12
    alpha beta  gamma  delta  epsilon  phi  rho
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations

MOST_FACTORS = 4
GREEK = {
    "x1": "alpha",
    "x2": "beta",
    "x12": "gamma",
    "y1": "delta",
    "y2": "epsilon",
    "y12": "phi",
    "r12": "rho",
}


@dataclass(frozen=True)
class Index:
    """One index of a linear map."""

    side: str
    """x: of the input; y: of the output; r: of neither."""
    factors: tuple[int, ...]
    """The factors that it joins, rising, counted from 1; at least two where the side is r."""

    @cached_property
    def name(self) -> str:
        """E.g. x12."""
        return self.side + "".join(map(str, self.factors))

    @classmethod
    def parse(cls, name: str) -> Index:
        """The index of a name such as x12. ValueError says what a name is made of."""
        match = re.fullmatch(rf"([xyr])([1-{MOST_FACTORS}]+)", name)
        factors = tuple(map(int, match[2])) if match else ()
        if not match or list(factors) != sorted(set(factors)) or (match[1] == "r" and len(factors) < 2):
            raise ValueError(
                f"'{name}' is no index; write x, y or r and the factors that it joins, rising from 1 to "
                f"{MOST_FACTORS} (r joins two or more): x1, x12, y3, r23"
            )
        return cls(match[1], factors)

    def __contains__(self, factor: int) -> bool:
        return factor in self.factors

    def __str__(self) -> str:
        return self.name


@cache
def indices(num_factors: int) -> tuple[Index, ...]:
    """All indices of a map of so many factors, input first; sets of factors in binary order: 1, 2, 12, 3, 13, 23, 123.

    So those of two factors stand in the order alpha, beta, gamma, delta, epsilon, phi, rho.
    """
    numbers = range(1, num_factors + 1)
    sets = [chosen for count in numbers for chosen in combinations(numbers, count)]
    sets.sort(key=lambda chosen: sum(1 << factor for factor in chosen))
    sides = [("x", sets), ("y", sets), ("r", [chosen for chosen in sets if len(chosen) > 1])]
    return tuple(Index(side, chosen) for side, of_side in sides for chosen in of_side)


@cache
def places(num_factors: int) -> dict[str, int]:
    """Where each index stands in ``indices``, by its name."""
    return {index.name: place for place, index in enumerate(indices(num_factors))}
