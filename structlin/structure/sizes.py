"""Which integer sizes does a theta take at a given layer shape? The only place where exponents are rounded.

Letters: input x[g, b, a], first factor A[f, d, r, g, a], second factor B[f, e, r, g, b], output y[f, e, d], with
sizes a = N_alpha, b = N_beta, g = N_gamma, d = N_delta, e = N_epsilon, f = N_phi, r = N_rho (arXiv 2410.02117).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from structlin.errors import UserError, suggest
from structlin.structure.theta import Theta


@dataclass(frozen=True)
class Sizes:
    """The integer sizes of one layer of shape (d_in, d_out)."""

    a: int
    b: int
    g: int
    d: int
    e: int
    f: int
    r: int
    d_in: int
    """Features that enter the layer; a*b*g of them (or zero padding) reach the factors."""
    d_out: int
    """Features that leave the layer."""
    dense: bool = False
    """One d_in x d_out weight instead of two factors."""

    @property
    def used_in(self) -> int:
        """Input features of the einsum: below d_in some are dropped, above it zeros are appended."""
        return self.a * self.b * self.g

    @property
    def used_out(self) -> int:
        """Output features of the einsum: below d_out zeros are appended, above it the surplus is cut."""
        return self.d * self.e * self.f

    @property
    def rank_bound(self) -> int:
        """An upper bound of the rank of the layer's matrix.

        With equality at random weights for every BTT of which rounding cuts no feature.
        """
        if self.dense:
            return min(self.d_in, self.d_out)
        through_a = self.b * self.g * self.r * self.d * self.f
        through_b = self.a * self.g * self.r * self.e * self.f
        return min(self.d_in, self.d_out, self.used_in, self.used_out, through_a, through_b)

    @property
    def exponents(self) -> tuple[float, ...]:
        """The realised exponents log_d(size), in theta's order; regressions use these."""
        log_in, log_out = math.log(self.d_in), math.log(self.d_out)
        log_rank = min(log_in, log_out)
        inputs = (_ratio(self.a, log_in), _ratio(self.b, log_in), _ratio(self.g, log_in))
        outputs = (_ratio(self.d, log_out), _ratio(self.e, log_out), _ratio(self.f, log_out))
        return (*inputs, *outputs, _ratio(self.r, log_rank))


def factorise(theta: Theta, d_in: int, d_out: int, rounding: str = "exact") -> Sizes:
    """Integer sizes of ``theta`` for a layer of shape (d_in, d_out) under a named rounding policy.

    ``exact`` (default): divisors whose product is exactly d, nearest to d^exponent in log distance, so that no
    feature is padded or lost. ``paper``: every size rounded on its own, as the published code does; 256 features
    at 0.33|0.67 become 6 x 41 = 246. Raises UserError for an unknown policy or a width below 1.
    """
    if rounding not in _POLICIES:
        raise UserError(f"unknown structure.rounding '{rounding}'; {suggest(rounding, _POLICIES)}")
    if d_in < 1 or d_out < 1:
        raise UserError(f"a layer of shape {d_in} x {d_out} has no features; use widths of at least 1")
    if theta.is_dense:
        return Sizes(1, 1, d_in, 1, 1, d_out, 1, d_in, d_out, dense=True)
    split = _POLICIES[rounding]
    r = max(1, round(min(d_in, d_out) ** theta.rho))
    candidates = [
        Sizes(a, b, g, d, e, f, r, d_in, d_out)
        for g, a, b in split(d_in, (theta.gamma, theta.alpha, theta.beta))
        for f, d, e in split(d_out, (theta.phi, theta.delta, theta.epsilon))
    ]
    # Equally near sizes differ in rank and cost (at d = 32 a BTT has rank 16 or 32): the higher rank first, then
    # the smaller shared sizes, which are cheaper.
    return min(candidates, key=lambda s: (-s.rank_bound, s.g * s.f, s.a, s.d))


@lru_cache(maxsize=4096)
def nearest_divisors(size: int, exponents: tuple[Fraction, ...]) -> tuple[tuple[int, ...], ...]:
    """Factors of ``size``, one per exponent, whose product is ``size`` and whose logs are nearest to the targets.

    An exponent of zero always gives 1, so that a family keeps its shape. All equally near ones are returned.
    Worked example: 768 at (1/2, 1/2) gives 24 x 32 and 32 x 24.
    """
    targets = [float(exponent) * math.log(size) for exponent in exponents]

    def distance(factors: tuple[int, ...]) -> float:
        squares = sum((math.log(factor) - target) ** 2 for factor, target in zip(factors, targets, strict=True))
        return round(squares, 9)

    found = list(_factorisations(size, exponents))
    nearest = min(map(distance, found))
    return tuple(factors for factors in found if distance(factors) == nearest)


def _rounded(size: int, exponents: tuple[Fraction, ...]) -> tuple[tuple[int, ...], ...]:
    return (tuple(max(1, round(size ** float(exponent))) for exponent in exponents),)


_POLICIES: dict[str, Callable[[int, tuple[Fraction, ...]], tuple[tuple[int, ...], ...]]] = {
    "exact": nearest_divisors,
    "paper": _rounded,
}
ROUNDINGS = tuple(_POLICIES)


def _factorisations(size: int, exponents: tuple[Fraction, ...]) -> Iterator[tuple[int, ...]]:
    """All ways to write ``size`` as an ordered product, with 1 wherever the exponent is zero."""
    head, rest = exponents[0], exponents[1:]
    if not any(rest):
        yield (size if head else 1, *(1 for _ in rest))
        return
    for factor in _divisors(size) if head else (1,):
        for tail in _factorisations(size // factor, rest):
            yield (factor, *tail)


@lru_cache(maxsize=4096)
def _divisors(size: int) -> tuple[int, ...]:
    small = [i for i in range(1, math.isqrt(size) + 1) if size % i == 0]
    return tuple(sorted({*small, *(size // i for i in small)}))


def _ratio(size: int, log_width: float) -> float:
    return math.log(size) / log_width if log_width > 0 else 0.0
