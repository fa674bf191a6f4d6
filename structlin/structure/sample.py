"""Which thetas fill the continuous space evenly? A seeded low-discrepancy sequence over both simplices and the ranks.

Halton's sequence (the digits of n mirrored at the point, one prime base per axis), shifted by a seeded random vector,
covers the unit cube evenly for every n at once, so that a longer sample contains the shorter one. Redundant and
degenerate thetas are passed over, about six of seven; what is left stays even (measured: half the discrepancy of chance
at 1,000 thetas, where an additive recurrence in the golden ratio's generalisation is no better than chance).
Exponents are rounded to thousandths, so that a sampled theta can be typed again.

Three factors have seven indices a side and four ranks, sixteen axes. There the digits of bases above 11 are permuted by
the seed, since the first points of large bases lie on lines, and the ranks together take at most d: their exponents
are four parts of a simplex of five.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import count as naturals
from itertools import islice

from structlin.errors import UserError
from structlin.structure.index import places
from structlin.structure.theta import Term, Theta

# Bounds so narrow that fewer than one candidate in this many passes are a mistake, not patience.
CANDIDATES_PER_THETA = 2_000
SAMPLED_FACTORS = (2, 3)
MOST_THETAS = 100_000
"""A sweep samples no more: each is kept, named and planned."""
_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
_PLAIN_BASES = 5
"""Bases whose digits are not permuted; two factors take only these."""

Digits = Callable[[int], int]


def sample_thetas(
    count: int, seed: int = 0, bounds: Mapping[str, tuple[float, float]] | None = None, factors: int = 2
) -> list[Theta]:
    """``count`` thetas of 2 or 3 ``factors`` spread evenly over the space, each neither redundant nor degenerate.

    ``bounds`` keeps a taxonomy exponent within a closed range, e.g. {"psi": (1, 1), "omega": (0, 0.1)}.
    Raises UserError when the bounds name no exponent or leave (almost) nothing.
    """
    limits = dict(bounds or {})
    for name, (low, high) in limits.items():
        if name not in ("nu", "omega", "psi") or low > high:
            raise UserError(f"structure bound {name} = [{low}, {high}]; use nu, omega or psi with low <= high")
    if count < 1:
        raise UserError(f"structure.count = {count}; ask for at least 1 theta")
    if factors not in SAMPLED_FACTORS:
        raise UserError(f"structure=sample structure.factors={factors}: thetas of 2 or 3 factors are sampled")
    candidates = islice(_of_two(seed) if factors == 2 else _of_three(seed), CANDIDATES_PER_THETA * count)
    found = list(islice((theta for theta in candidates if _admitted(theta, limits)), count))
    if len(found) < count:
        raise UserError(
            f"only {len(found)} of {count} thetas lie within {limits} after {CANDIDATES_PER_THETA * count} candidates; "
            "widen the bounds"
        )
    return found


def _of_two(seed: int) -> Iterator[Theta]:
    for u1, u2, v1, v2, w in _points(seed, 5):
        yield Theta.two(*_triangle(u1, u2), *_triangle(v1, v2), _thousandths(w))


def _of_three(seed: int) -> Iterator[Theta]:
    names = list(places(3))
    for point in _points(seed, 16):
        exponents = [*_simplex(point[:6]), *_simplex(point[6:12]), *_simplex(point[12:])[:-1]]
        yield Theta.of({name: Term(value) for name, value in zip(names, exponents, strict=True) if value})


def _admitted(theta: Theta, limits: Mapping[str, tuple[float, float]]) -> bool:
    if theta.is_dense or theta.is_redundant or theta.is_degenerate:
        return False
    place = theta.taxonomy
    return all(low - 1e-9 <= getattr(place, name) <= high + 1e-9 for name, (low, high) in limits.items())


def _points(seed: int, axes: int) -> Iterator[list[float]]:
    """Points of the unit cube."""
    shift = [random.Random(seed * 8191 + axis).random() for axis in range(axes)]
    digits = [_digits(seed, base, axis < _PLAIN_BASES) for axis, base in enumerate(_BASES[:axes])]
    for index in naturals(1):
        yield [
            math.fmod(origin + _mirrored(index, base, permuted), 1.0)
            for origin, base, permuted in zip(shift, _BASES, digits, strict=False)
        ]


def _digits(seed: int, base: int, plain: bool) -> Digits:
    """What a digit of a base becomes; zero stays, so that leading zeros do."""
    if plain:
        return int
    rest = list(range(1, base))
    random.Random(seed * 8191 + base * 127).shuffle(rest)
    return [0, *rest].__getitem__


def _mirrored(index: int, base: int, permuted: Digits = int) -> float:
    """The digits of ``index`` mirrored at the point, in [0, 1): 6 = 110 in base 2 gives 0.011 = 3/8."""
    value, weight = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        weight /= base
        value += permuted(digit) * weight
    return value


def _triangle(u: float, v: float) -> tuple[Fraction, Fraction, Fraction]:
    """An area-preserving map from the unit square to three exponents that sum to exactly one."""
    first = _thousandths(1 - math.sqrt(u))
    second = min(_thousandths(math.sqrt(u) * (1 - v)), 1 - first)
    return first, second, 1 - first - second


def _simplex(point: Sequence[float]) -> list[Fraction]:
    """A volume-preserving map from the unit cube of k axes to k + 1 exponents that sum to exactly one."""
    found: list[Fraction] = []
    rest = 1.0
    for axis, u in enumerate(point):
        part = rest * (1 - u ** (1 / (len(point) - axis)))
        found.append(min(_thousandths(part), 1 - sum(found, Fraction(0))))
        rest -= part
    return [*found, 1 - sum(found, Fraction(0))]


def _thousandths(value: float) -> Fraction:
    return Fraction(round(value * 1000), 1000)
