"""Which integer sizes does a theta take at a given layer shape? The only place where sizes are rounded.

Two factors have letters: input x[g, b, a], first factor A[f, d, r, g, a], second factor B[f, e, r, g, b], output
y[f, e, d], with sizes a = N_alpha, b = N_beta, g = N_gamma, d = N_delta, e = N_epsilon, f = N_phi, r = N_rho
(arXiv 2410.02117). A dense layer is one factor.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache

from structlin.errors import UserError, suggest
from structlin.structure.index import GREEK, Index, indices, places
from structlin.structure.taxonomy import Taxonomy, cuts, exponents_taxonomy
from structlin.structure.theta import Term, Theta

LETTERS = {"a": "x1", "b": "x2", "g": "x12", "d": "y1", "e": "y2", "f": "y12", "r": "r12"}
"""Letter of a size of two factors -> its index."""
_ROUNDING_ERROR = 1e-9


class UnservedWidth(UserError):
    """A structure that a layer of this shape cannot have: an index would be smaller than 1, or a rank idle."""


@dataclass(frozen=True)
class Sizes:
    """The integer size of every index of one layer of shape (d_in, d_out)."""

    num_factors: int
    """One: a dense weight."""
    of_indices: tuple[int, ...]
    """In the order of ``indices(num_factors)``."""
    d_in: int
    """Features that enter the layer; ``used_in`` of them (or zero padding) reach the factors."""
    d_out: int
    """Features that leave the layer."""

    @classmethod
    def dense_layer(cls, d_in: int, d_out: int) -> Sizes:
        """One d_out x d_in weight."""
        return cls(1, (d_in, d_out), d_in, d_out)

    @classmethod
    def of_two(cls, d_in: int, d_out: int, **letters: int) -> Sizes:
        """Two factors by the letters of their indices; what is not given is 1."""
        by_index = {LETTERS[letter]: size for letter, size in letters.items()}
        return cls(2, tuple(by_index.get(index.name, 1) for index in indices(2)), d_in, d_out)

    def of_rank(self, rank: int) -> Sizes:
        """The same two factors with another rank between them."""
        at = places(2)["r12"]
        return Sizes(2, (*self.of_indices[:at], rank, *self.of_indices[at + 1 :]), self.d_in, self.d_out)

    def __getitem__(self, name: str) -> int:
        return self.of_indices[places(self.num_factors)[name]]

    @property
    def dense(self) -> bool:
        """One d_out x d_in weight instead of factors."""
        return self.num_factors == 1

    @property
    def a(self) -> int:
        """N_alpha."""
        return self["x1"]

    @property
    def b(self) -> int:
        """N_beta."""
        return self["x2"]

    @property
    def g(self) -> int:
        """N_gamma."""
        return self["x12"]

    @property
    def d(self) -> int:
        """N_delta."""
        return self["y1"]

    @property
    def e(self) -> int:
        """N_epsilon."""
        return self["y2"]

    @property
    def f(self) -> int:
        """N_phi."""
        return self["y12"]

    @property
    def r(self) -> int:
        """N_rho."""
        return self["r12"]

    def items(self) -> Iterator[tuple[Index, int]]:
        """Every index with its size."""
        return zip(indices(self.num_factors), self.of_indices, strict=True)

    @property
    def used_in(self) -> int:
        """Input features of the factors: below d_in some are dropped, above it zeros are appended."""
        return math.prod(self.of_indices[: _sides(self.num_factors)])

    @property
    def used_out(self) -> int:
        """Output features of the factors: below d_out zeros are appended, above it the surplus is cut."""
        inputs = _sides(self.num_factors)
        return math.prod(self.of_indices[inputs : 2 * inputs])

    @property
    def shared(self) -> int:
        """The product of the sizes of input and output indices that several factors share."""
        return math.prod(s for index, s in self.items() if index.side != "r" and len(index.factors) > 1)

    @property
    def rank_bound(self) -> int:
        """An upper bound of the rank of the layer's matrix: the least cut between input and output.

        With equality at random weights for every BTT of which rounding cuts no feature, and for every map of three
        factors that was tried (derived; seen in tests).
        """
        sizes = self.of_indices
        through = (math.prod(sizes[place] for place in cut) for cut in cuts(self.num_factors))
        return min(self.d_in, self.d_out, *through)

    @property
    def exponents(self) -> tuple[float, ...]:
        """The realised exponents log_d(size), in the order of the indices; regressions use these."""
        log_in, log_out = math.log(self.d_in), math.log(self.d_out)
        logs = {"x": log_in, "y": log_out, "r": min(log_in, log_out)}
        return tuple(_ratio(size, logs[index.side]) for index, size in self.items())

    @property
    def taxonomy(self) -> Taxonomy:
        """(nu, omega, psi) by the exponents that rounding realised."""
        return exponents_taxonomy(self.num_factors, self.exponents)


@lru_cache(maxsize=65_536)
def factorise(theta: Theta, d_in: int, d_out: int, rounding: str = "exact") -> Sizes:
    """Integer sizes of ``theta`` for a layer of shape (d_in, d_out) under a named rounding policy.

    ``exact`` (default): divisors whose product is exactly d, nearest to c d^exponent in log distance, so that no
    feature is padded or lost. ``paper``: every size rounded on its own, as the published code does; 256 features
    at 0.33|0.67 become 6 x 41 = 246. UserError for an unknown policy or a width below 1; UnservedWidth where a
    coefficient makes an index smaller than 1.
    """
    if rounding not in _POLICIES:
        raise UserError(f"unknown structure.rounding '{rounding}'; {suggest(rounding, _POLICIES)}")
    if d_in < 1 or d_out < 1:
        raise UserError(f"a layer of shape {d_in} x {d_out} has no features; use widths of at least 1")
    if theta.is_dense:
        return Sizes.dense_layer(d_in, d_out)
    _check_served(theta, d_in, d_out)
    candidates = [
        Sizes(theta.num_factors, sizes, d_in, d_out) for sizes in _candidates(theta, d_in, d_out, _POLICIES[rounding])
    ]
    # Equally near sizes differ in rank and cost (at d = 32 a BTT has rank 16 or 32): the higher rank first, then the
    # smaller shared sizes, which are cheaper. Of more than two factors those come before that which keep the ratio of
    # what feeds a factor to what it gives: it sets the scale of the outputs.
    if len(candidates) > 1:
        candidates.sort(key=lambda s: (-s.rank_bound, _disproportion(theta, s), s.shared, s["x1"], s["y1"]))
    _check_rank(theta, candidates[0])
    return candidates[0]


def _check_rank(theta: Theta, sizes: Sizes) -> None:
    """UnservedWidth for a rank by a coefficient that exceeds what a block of two factors can have."""
    if theta.is_plain or theta.num_factors != 2:
        return
    most = min(sizes.a * sizes.d, sizes.b * sizes.e)
    if sizes.r > most:
        raise UnservedWidth(
            f"theta {theta} cannot serve a layer of {sizes.d_in} x {sizes.d_out}: {GREEK['r12']} = {theta['r12']} "
            f"would have size {sizes.r}, and a block of {sizes.a * sizes.d} x {sizes.b * sizes.e} has rank {most} at "
            "most; use a smaller one, or wider layers"
        )


def _disproportion(theta: Theta, sizes: Sizes) -> float:
    """How far rounding moves, over the factors, the ratio of the input sizes that end there to the output sizes that
    begin there, as a sum of logarithms; 0 for two factors, whose choice is older and must not change."""
    if theta.num_factors == 2:
        return 0.0
    widths = {"x": math.log(sizes.d_in), "y": math.log(sizes.d_out)}
    moved = [0.0] * theta.num_factors
    for index, size in sizes.items():
        if index.side != "r":
            change = math.log(size) - theta[index.name].log_size(widths[index.side])
            at = index.factors[-1] if index.side == "x" else index.factors[0]
            moved[at - 1] += change if index.side == "x" else -change
    return round(sum(map(abs, moved)), 9)


@lru_cache(maxsize=65_536)
def rounded(theta: Theta, sizes: Sizes) -> dict[str, tuple[float, int]]:
    """What rounding changed: index -> (size asked for, size taken), for the sizes of theta at one layer shape.

    Worked example: BTT at 32 x 32 asks for 5.66 of every index and gets 4 and 8.
    """
    if sizes.dense:
        return {}
    widths = {"x": sizes.d_in, "y": sizes.d_out, "r": min(sizes.d_in, sizes.d_out)}
    asked = {index: theta[index.name].size(widths[index.side]) for index in theta.present}
    return {
        theta.called(index): (size, sizes[index.name])
        for index, size in asked.items()
        if abs(size - sizes[index.name]) > _ROUNDING_ERROR * size
    }


def rank_size(term: Term, d_in: int, d_out: int) -> int:
    """The integer size of a rank."""
    return max(1, round(term.size(min(d_in, d_out))))


def _sides(num_factors: int) -> int:
    """How many indices the input can have, which is as many as the output can."""
    return 2**num_factors - 1


def _candidates(
    theta: Theta, d_in: int, d_out: int, split: Callable[[int, tuple[Term, ...]], tuple[tuple[int, ...], ...]]
) -> Iterator[tuple[int, ...]]:
    """All choices of equally near sizes, in the order of theta's indices."""
    count, order = _sides(theta.num_factors), _by_sharing(theta.num_factors)
    x_terms, y_terms, ranks = theta.terms[:count], theta.terms[count : 2 * count], theta.terms[2 * count :]
    # Ranks are no part of a width: nothing has to come out as their product, so each is rounded on its own.
    of_ranks = tuple(rank_size(term, d_in, d_out) for term in ranks)
    # ``split`` is asked in the order of sharing and answers in it; this is the inverse permutation.
    back = sorted(range(count), key=lambda place: order[place])
    inputs = split(d_in, tuple(x_terms[place] for place in order))
    outputs = split(d_out, tuple(y_terms[place] for place in order))
    # Input and output are rounded apart, so every choice of one goes with every choice of the other.
    for of_x, of_y in itertools.product(inputs, outputs):
        yield (*(of_x[place] for place in back), *(of_y[place] for place in back), *of_ranks)


@cache
def _by_sharing(num_factors: int) -> tuple[int, ...]:
    """The order in which the indices of a side are tried: what more factors share comes first (gamma, alpha, beta)."""
    own = indices(num_factors)[: _sides(num_factors)]
    return tuple(sorted(range(len(own)), key=lambda place: (-len(own[place].factors), own[place].factors)))


def _check_served(theta: Theta, d_in: int, d_out: int) -> None:
    """UnservedWidth where an index would be smaller than 1, or a rank larger than anything that it could join."""
    if theta.is_plain:
        return
    least = min(d_in, d_out)
    widths = {"x": d_in, "y": d_out, "r": least}
    for index, term in zip(theta.indices, theta.terms, strict=True):
        size, width = term.size(widths[index.side]), widths[index.side]
        if size < 1 - _ROUNDING_ERROR:
            raise UnservedWidth(
                f"theta {theta} cannot serve a layer of {d_in} x {d_out}: {theta.called(index)} = {term} would have "
                f"size {size:.3g}, below 1; {_way_up(term)}"
            )
        if size > width * (1 + _ROUNDING_ERROR):
            raise UnservedWidth(
                f"theta {theta} cannot serve a layer of {d_in} x {d_out}: {theta.called(index)} = {term} would have "
                f"size {size:.4g}, above the {width} features there are; use a smaller one, or wider layers"
            )


def _way_up(term: Term) -> str:
    """What makes the size of an index at least 1."""
    if term.exponent == 0:
        return "it does not grow with the width: use a coefficient of at least 1"
    least = math.ceil((1 / float(term.coefficient)) ** (1 / float(term.exponent)) - _ROUNDING_ERROR)
    return f"it takes widths of at least {least}"


def nearest_divisors(size: int, terms: tuple[Term, ...]) -> tuple[tuple[int, ...], ...]:
    """Factors of ``size``, one per term, whose product is ``size`` and whose logs are nearest to the targets.

    An absent index always gets 1, so that a family keeps its shape. All equally near ones are returned, rising.
    Worked example: 768 at (1/2, 1/2) gives 24 x 32 and 32 x 24.
    """
    return _nearest(size, tuple(None if term.is_absent else (term.exponent, term.coefficient) for term in terms))


@lru_cache(maxsize=16_384)
def _nearest(size: int, wanted: tuple[tuple[Fraction, Fraction] | None, ...]) -> tuple[tuple[int, ...], ...]:
    log_size = math.log(size)
    targets = [None if one is None else Term(*one).log_size(log_size) for one in wanted]
    if all(target is None for target in targets):
        return ((size, *(1 for _ in targets[1:])),)
    found = list(_near(size, targets, [math.inf]))
    nearest = min(distance for distance, _ in found)
    return tuple(sorted(factors for distance, factors in found if distance == nearest))


def _near(
    size: int, targets: Sequence[float | None], best: list[float], so_far: float = 0.0
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Ordered factorisations of ``size`` that are not farther from the targets than the best one known, with distances.

    ``best`` holds the least sum of squares found so far. A branch is left where even an equal share of what it has to
    make up for would exceed that.
    """
    head, rest = targets[0], targets[1:]
    open_targets = [target for target in targets if target is not None]
    if head is None:
        for distance, tail in _near(size, rest, best, so_far):
            yield distance, (1, *tail)
        return
    # The last size takes all that is left: the product must be exact.
    if len(open_targets) == 1:
        total = so_far + (math.log(size) - head) ** 2
        if total <= best[0] + _ROUNDING_ERROR:
            best[0] = min(best[0], total)
            yield round(total, 9), (size, *(1 for _ in rest))
        return
    log_size, ahead = math.log(size), sum(open_targets[1:])
    # The nearest divisor first: the earlier a good answer is known, the more branches are left unseen.
    for factor in sorted(_divisors(size), key=lambda one: abs(math.log(one) - head)):
        total = so_far + (math.log(factor) - head) ** 2
        short = log_size - math.log(factor) - ahead
        # The logs of the rest must make up for ``short`` together; by Cauchy-Schwarz equal parts cost least.
        if total + short * short / (len(open_targets) - 1) <= best[0] + _ROUNDING_ERROR:
            for distance, tail in _near(size // factor, rest, best, total):
                yield distance, (factor, *tail)


def _rounded(size: int, terms: tuple[Term, ...]) -> tuple[tuple[int, ...], ...]:
    return (tuple(max(1, round(term.size(size))) for term in terms),)


_POLICIES: dict[str, Callable[[int, tuple[Term, ...]], tuple[tuple[int, ...], ...]]] = {
    "exact": nearest_divisors,
    "paper": _rounded,
}
ROUNDINGS = tuple(_POLICIES)


@lru_cache(maxsize=4096)
def _divisors(size: int) -> tuple[int, ...]:
    small = [i for i in range(1, math.isqrt(size) + 1) if size % i == 0]
    return tuple(sorted({*small, *(size // i for i in small)}))


def _ratio(size: int, log_width: float) -> float:
    return math.log(size) / log_width if log_width > 0 else 0.0
