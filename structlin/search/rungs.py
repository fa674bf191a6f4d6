"""How much compute has each rung, and how many arms? Successive halving on trunks that go on.

Rung k trains its arms to ``flops[k]`` = target / eta^j a run. Runs have a constant rate, so a promoted arm's runs go on
from where they stand, and rung k costs what lies between two rungs alone. With n arms, eta = 3 and one arm at the top,
all rungs together cost n b (1 + (1 - 1/eta) rungs), b being the first: 11% of training all 27 arms to the top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from structlin.errors import UserError

LEAST_AT_TOP = 2
"""Arms of the last rung: a choice, and what it is held against."""
_TRIES, _CLOSE, _AIM, _GROW = 24, 0.85, 0.97, 8.0


@dataclass(frozen=True)
class Ladder:
    """Rungs, the first at the bottom."""

    counts: tuple[int, ...]
    """Arms of each rung at most."""
    flops: tuple[float, ...]
    """Training FLOPs of one run at each."""

    @property
    def top(self) -> float:
        """Compute of a run at the last rung."""
        return self.flops[-1]


def counts_of(arms: int, eta: float, rungs: int | None = None, least: int = LEAST_AT_TOP) -> tuple[int, ...]:
    """Arms of each rung: n, n / eta, n / eta^2, .. rounded up, until ``least`` are left, or so many rungs."""
    found = [arms]
    while (rungs is None and found[-1] > least) or (rungs is not None and len(found) < rungs):
        found.append(min(found[-1], max(least, math.ceil(arms / eta ** len(found) - 1e-9))))
    return tuple(found)


def ladder(counts: Sequence[int], first: float, eta: float) -> Ladder:
    """The rungs above a first compute."""
    return Ladder(tuple(counts), tuple(first * eta**k for k in range(len(counts))))


def largest(
    counts: Sequence[int],
    eta: float,
    budget: float,
    target: float,
    cost: Callable[[Ladder], float],
    points: int = 6,
) -> Ladder:
    """The ladder of the most compute whose expected ``cost`` is within the budget; its top is at most the target.

    ``points``: runs of an arm, for the first guess. UserError where even the least first rung is beyond the budget, or
    the target leaves none.
    """
    most, least = target / eta ** (len(counts) - 1), math.inf
    units = counts[0] + sum(count * (eta**k - eta ** (k - 1)) for k, count in enumerate(counts) if k)
    first, found = min(most, budget / (points * units)), None
    for _ in range(_TRIES):
        one = ladder(counts, first, eta)
        price = cost(one)
        least = min(least, price)
        if price <= budget:
            found = one if found is None or one.top > found.top else found
            if price > _CLOSE * budget or first >= most:
                break
        # Costs grow nearly in proportion to the first rung, in steps of whole steps and whole widths.
        factor = _AIM * budget / price if math.isfinite(price) else _GROW
        first = min(most, first * min(max(factor, 1 / _GROW), _GROW))
    if found is None and math.isinf(least):
        raise UserError(
            f"target = {target:.3g} FLOPs leaves the first of {len(counts)} rungs {most:.3g} FLOPs a run, at which no "
            "arm has a width; give more, a smaller model, or fewer rungs: search.rungs=2"
        )
    if found is None:
        raise UserError(
            f"budget = {budget:.3g} FLOPs pays for no first rung of {counts[0]} arms: the smallest search of them "
            f"takes about {least:.2g}; give more, fewer arms, or a smaller model (scale=small)"
        )
    return found


def reserve(arms: int, counts: Sequence[int], steps: Sequence[float], eta: float) -> float:
    """FLOPs that the rungs above one of so many arms want: thinned by eta at each, to no fewer than are planned.

    ``counts``: arms that are planned for the rung and those above it; ``steps``: what an arm costs on each above it.
    """
    return sum(
        max(min(arms, count), math.ceil(arms / eta**k)) * step
        for k, (count, step) in enumerate(zip(counts[1:], steps, strict=True), start=1)
    )
