"""Which structures that nobody has tried may be better? A surrogate over the space of structures proposes new arms.

    log loss at the target = c + w . x + g(x) + noise      x: omega, psi, nu as written and as realised at one
                                                               width, which coefficients and divisors move; factors

w is a ridge regression in standardised x and g a Gaussian process (squared exponential) on what it leaves; its length
and size are those of the largest likelihood on a grid, and the noise is what the forecast does not know of each arm. A
candidate is worth its expected improvement of log loss on the best arm (Mockus 1978) for each FLOP that its first rung
costs. The multiplier grows with that by one slope for all, so that the order is that of the multiplier. Candidates are
the next thetas of the sequence that the arms were drawn from, within its bounds, and families with their arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from structlin.config.request import Template
from structlin.config.search import Sampled
from structlin.config.structure import StructureConfig
from structlin.errors import UserError
from structlin.laws.minimum.objective import Array
from structlin.search.arms import AXES, Arm, place_of
from structlin.structure import Theta, theta_of
from structlin.structure.families import output_order_of
from structlin.structure.sample import sample_thetas

CANDIDATES = 64
"""Further thetas of each sequence."""
LEAST_ARMS = 6
FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("low_rank", {"rank": rank}) for rank in ("d/2", "d/4", "d/8", "d/16")),
    *(("monarch", {"blocks": blocks}) for blocks in (2, 4, 8)),
    *(("block_shuffle", {"blocks": blocks}) for blocks in (2, 4, 8)),
    *(("btt", {"rank": rank}) for rank in (2, 4, 8)),
    *(("btt", {"rank": rank, "factors": 3}) for rank in (2, 4)),
    *(("block_dense", {"blocks": blocks, "rank": rank}) for blocks in (2, 4) for rank in ("d/2", "d/4")),
    *(("kronecker_sum", {"terms": terms}) for terms in (2, 4)),
)
_LENGTHS, _SHARES = (0.5, 1.0, 2.0, 4.0), (0.1, 0.3, 0.6, 0.9)
_RIDGE = 1e-2


@dataclass(frozen=True)
class Surrogate:
    """A line and a Gaussian process through the arms."""

    points: Array
    """(m, k), standardised."""
    mean: Array
    scale: Array
    line: Array
    """Constant and slopes, (k + 1,)."""
    length: float
    size: float
    """Standard deviation of the process."""
    noise: Array
    """Variance of each arm, (m,)."""
    values: Array
    """What the line leaves, (m,)."""

    def at(self, x: Array) -> tuple[Array, Array]:
        """Expectation and standard deviation at (c, k) points."""
        z = (x - self.mean) / self.scale
        inside = self.size**2 * _kernel(self.points, self.points, self.length) + np.diag(self.noise)
        across = self.size**2 * _kernel(z, self.points, self.length)
        weights = np.linalg.solve(inside, across.T).T
        expected = self.line[0] + z @ self.line[1:] + weights @ self.values
        variance = self.size**2 - np.sum(weights * across, axis=1)
        # The line's own uncertainty grows with the distance from the arms' mean.
        spread = float(np.mean(self.noise) + self.size**2) / len(self.values)
        return expected, np.sqrt(np.maximum(variance, 0.0) + spread * (1.0 + np.sum(z**2, axis=1)))


def _kernel(a: Array, b: Array, length: float) -> Array:
    square = np.sum((a[:, None, :] - b[None, :, :]) ** 2, axis=2)
    return np.asarray(np.exp(-square / (2 * length**2)))


def surrogate(x: Array, y: Array, variance: Array) -> Surrogate:
    """Fit (m, k) places, m log losses and the variance of each."""
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    z = (x - mean) / scale
    design = np.column_stack([np.ones(len(z)), z])
    weight = 1.0 / (variance + float(np.var(y)) / 4 + 1e-12)
    penalty: Array = _RIDGE * float(weight.sum()) * np.diag([0.0, *np.ones(z.shape[1])])
    line: Array = np.asarray(np.linalg.solve(design.T @ (design * weight[:, None]) + penalty, design.T @ (weight * y)))
    left = y - design @ line
    whole = float(np.var(left)) + 1e-12
    best: tuple[float, float, float] | None = None
    for length in _LENGTHS:
        for share in _SHARES:
            inside = share * whole * _kernel(z, z, length) + np.diag(variance + (1 - share) * whole * 0.1 + 1e-10)
            _, logdet = np.linalg.slogdet(inside)
            cost = float(logdet + left @ np.linalg.solve(inside, left))
            if best is None or cost < best[0]:
                best = (cost, length, math.sqrt(share * whole))
    assert best is not None
    return Surrogate(z, mean, scale, line, best[1], best[2], variance + 1e-10, left)


def improvement(expected: Array, spread: Array, best: float) -> Array:
    """Expected amount by which a value falls below ``best``, of normal ones."""
    spread = np.maximum(spread, 1e-12)
    u = (best - expected) / spread
    density = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1.0 + np.array([math.erf(one / math.sqrt(2)) for one in u]))
    return np.asarray(spread * (u * below + density))


@dataclass(frozen=True)
class Proposal:
    """A new arm, and why."""

    arm: Arm
    place: tuple[float, ...]
    """AXES."""
    log_loss: float
    """Expected at the target."""
    spread: float
    improvement: float
    """Expected, of log loss on the best arm."""
    flops: float
    """What its first rung costs."""
    nearest: str
    """The arm that it is most like."""

    def to_mapping(self) -> dict[str, Any]:
        """For the record."""
        return {
            "arm": self.arm.name, "theta": str(self.arm.theta), **dict(zip(AXES, self.place, strict=True)),
            "expected_loss": math.exp(self.log_loss), "spread": self.spread, "expected_improvement": self.improvement,
            "flops": self.flops, "nearest": self.nearest,
        }  # fmt: skip


def propose(
    arms: Sequence[Arm],
    log_loss: Array,
    variance: Array,
    sampled: Sequence[Sampled],
    most: int,
    price: Callable[[Arm], float],
    known: Sequence[Arm] = (),
) -> list[Proposal]:
    """At most ``most`` new arms, the most improvement for each FLOP first.

    ``arms``, ``log_loss`` and ``variance``: what is known at the target, without mixtures; ``price``: FLOPs of an arm's
    first rung, 0 where no width serves it; ``known``: arms that are there already. Nothing from fewer than LEAST_ARMS.
    """
    if most < 1 or len(arms) < LEAST_ARMS or not sampled:
        return []
    x = np.array([_features(arm) for arm in arms])
    found = list(candidates(arms[0].template, sampled, [*arms, *known]))
    model = surrogate(x, log_loss, variance)
    chosen: list[Proposal] = []
    best = float(np.min(log_loss))
    priced = [(one, price(one)) for one in found]
    priced = [(one, cost) for one, cost in priced if cost > 0]
    while priced and len(chosen) < most:
        at = np.array([_features(one) for one, _ in priced])
        expected, spread = model.at(at)
        gains = improvement(expected, spread, best)
        pick = int(np.argmax(gains / np.array([cost for _, cost in priced])))
        arm, cost = priced.pop(pick)
        nearest = arms[int(np.argmin(np.sum(((x - at[pick]) / model.scale) ** 2, axis=1)))].name
        one = Proposal(arm, arm.place(), float(expected[pick]), float(spread[pick]), float(gains[pick]), cost, nearest)
        chosen.append(one)
        # What is proposed counts as known at what is expected of it, so that the next one lies elsewhere.
        x2, y2 = (
            np.vstack([x, *(np.array([_features(c.arm)]) for c in chosen)]),
            [*log_loss, *(c.log_loss for c in chosen)],
        )
        model = surrogate(x2, np.array(y2), np.array([*variance, *(c.spread**2 / 4 for c in chosen)]))
    return chosen


def _features(arm: Arm) -> list[float]:
    written = arm.theta.taxonomy
    return [*arm.place(), *(float(getattr(written, axis)) for axis in AXES), math.log(arm.theta.num_factors)]


def candidates(base: Template, sampled: Sequence[Sampled], known: Sequence[Arm]) -> list[Arm]:
    """New arms like ``base`` but for their structure: further thetas of the sequences, then families."""
    have = {str(arm.theta) for arm in known}
    seeds = known[0].seeds
    found: list[Arm] = []
    for one in sampled:
        thetas = _further(one)
        found += [arm for theta in thetas if (arm := _arm(base, theta, "fed", "sample", seeds)) is not None]
    bounds = dict(sampled[0].bounds)
    for name, arguments in FAMILIES:
        try:
            theta = theta_of(name, arguments=arguments)
        except ValueError:
            continue
        place = theta.taxonomy
        if all(low <= getattr(place, axis) <= high for axis, (low, high) in bounds.items()):
            arm = _arm(base, theta, output_order_of(name), name, seeds)
            found += [arm] if arm is not None else []
    unique: dict[str, Arm] = {}
    for arm in found:
        if str(arm.theta) not in have:
            unique.setdefault(str(arm.theta), arm)
    return list(unique.values())


@lru_cache(maxsize=64)
def _further(one: Sampled) -> tuple[Theta, ...]:
    """The next thetas of a sequence; exact sums of many fractions take seconds, and every look asks again."""
    try:
        return tuple(sample_thetas(one.count + CANDIDATES, one.seed, dict(one.bounds), one.factors)[one.count :])
    except UserError:  # bounds that hold no more
        return ()


def _arm(base: Template, theta: Theta, order: str, asked: str, seeds: tuple[int, ...]) -> Arm | None:
    """An arm of a theta; None where a layer of the reference width cannot have it."""
    try:
        place_of(theta, base.science.structure.rounding)
        structure = StructureConfig(
            theta=str(theta), rounding=base.science.structure.rounding, output_order=order,
            contraction=base.science.structure.contraction,
        )  # fmt: skip
    except ValueError:
        return None
    science = replace(base.science, structure=structure)
    return Arm(replace(base, science=science, asked=asked), seeds, "proposed")
