"""In which worlds is a search tried? Arms with planted laws, and what has been trained of them.

    pooled, own, crossing    L = E + A_s / N^alpha_s + B_s / D^beta_s: forms that predictors of the search have
    plateau                  the same under a plateau: L^-8 = (that law)^-8 + P_s^-8
    m4                       (L - E) / (P - L)^k_s = c x, x being the sum of two powers (M4 of arXiv 2209.06640)
    curved                   log A_s / N^alpha_s and the other term are parabolas in log N and log D

Exponents of the last three differ between arms by 5% as in ``own``, and so does what is new in each: none of the
search's predictors has these forms.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from structlin.laws.minimum.objective import Array
from structlin.search.measurements import Measured

KINDS = ("pooled", "own", "crossing")
FOREIGN = ("plateau", "m4", "curved")
ARMS, ETA, WIDTHS, FIRST, BEYOND = 27, 3.0, 5, 1e15, 30.0
RUN_NOISE, ROW_NOISE = 0.01, 0.004
PER_DECADE = 8
_LATTICE = 2.0**0.5
_WIDE = {"pooled": 0.0, "crossing": 0.1}
"""Spread of log exponents between arms; 5% in all others."""
_TURNS = {"crossing": ETA**4}
# Without them the best losses at the first rung are about 7.2, at the last 4.8, and 3.4 at the target.
_PLATEAU, _SHARPNESS, _M4_TOP = 7.5, 8.0, 11.0
_CURVATURE = 0.02


@dataclass
class World:
    """Arms with planted laws, and what has been trained of them."""

    kind: str
    seed: int
    E: float = 1.8
    log_a: Array = field(init=False)
    log_b: Array = field(init=False)
    alpha: Array = field(init=False)
    beta: Array = field(init=False)
    own: Array = field(init=False)
    """What arms of a foreign form differ by besides: standard normal, (2, ARMS)."""
    pivot: float = field(init=False)
    """log of the size, about which exponents turn."""

    def __post_init__(self) -> None:
        generator = np.random.default_rng([self.seed, self.number])
        draw = generator.standard_normal((4, ARMS))
        self.log_a, self.log_b = np.log(482.0) + 0.1 * draw[0], np.log(2085.0) + 0.1 * draw[1]
        wide = _WIDE.get(self.kind, 0.05)
        self.alpha, self.beta = 0.35 * np.exp(wide * draw[2]), 0.37 * np.exp(wide * draw[3])
        # Exponents turn about sizes and tokens within the rungs: the order there says little of the order beyond, and
        # in a world of crossings the frontiers cross between the first rung and the target.
        self.pivot = np.log(FIRST * _TURNS.get(self.kind, ETA**3) / 6) / 2
        self.log_a += (self.alpha - 0.35) * (self.pivot - 1.0)
        self.log_b += (self.beta - 0.37) * (self.pivot + 1.0)
        self.own = generator.standard_normal((2, ARMS))

    @property
    def number(self) -> int:
        """Of the kind, for its random numbers."""
        return (*KINDS, *FOREIGN).index(self.kind)

    def loss(self, arm: int, size: Array, tokens: Array) -> Array:
        """L without noise."""
        n, d = np.log(size), np.log(tokens)
        first, second = self.log_a[arm] - self.alpha[arm] * n, self.log_b[arm] - self.beta[arm] * d
        if self.kind == "curved":
            bend = _CURVATURE / 2 * (1 + self.own[:, arm] / 2)
            first = first + bend[0] * (n - self.pivot + 1.0) ** 2
            second = second + bend[1] * (d - self.pivot - 1.0) ** 2
        reducible = np.exp(first) + np.exp(second)
        if self.kind == "plateau":
            top = _PLATEAU * np.exp(0.03 * self.own[0, arm])
            return np.asarray(((self.E + reducible) ** -_SHARPNESS + top**-_SHARPNESS) ** (-1 / _SHARPNESS))
        if self.kind == "m4":
            return self.E + (_M4_TOP - self.E) * _m4(reducible / (_M4_TOP - self.E), np.exp(0.3 * self.own[0, arm]))
        return np.asarray(self.E + reducible)

    def best_loss(self, flops: float) -> Array:
        """The lowest loss of each arm at a compute, over all sizes: (ARMS,)."""
        size = np.geomspace(1e3, 1e14, 4001)
        return np.array([self.loss(arm, size, flops / (6 * size)).min() for arm in range(ARMS)])

    def sizes(self, flops: float) -> Array:
        """The sizes of a budget: on a lattice, at 5 to 200 tokens a MAC."""
        low, high = np.log(np.sqrt(flops / 6 / np.array([200.0, 5.0]))) / np.log(_LATTICE)
        steps = np.arange(np.ceil(low), np.floor(high) + 1)
        return np.asarray(_LATTICE ** steps[np.unique(np.linspace(0, len(steps) - 1, WIDTHS).round().astype(int))])

    def run(self, arm: int, size: float, flops: float) -> tuple[Array, Array, int]:
        """Tokens and losses of a trunk to a compute, with its luck, and its number."""
        place = round(np.log(size) / np.log(_LATTICE))
        steps = np.arange(-4 * PER_DECADE, 0.5) / PER_DECADE
        # Evaluations stand on one lattice for a size, so that a longer run has all of a shorter one's.
        last = np.floor(np.log10(flops / (6 * size)) * PER_DECADE + 1e-9) / PER_DECADE
        tokens = 10.0 ** (last + steps)
        generator = np.random.default_rng([self.seed, self.number, arm, place])
        luck = RUN_NOISE * generator.standard_normal()
        noise = generator.standard_normal(20 * PER_DECADE)[np.round((last + steps) * PER_DECADE).astype(int)]
        keep = tokens > 20 * 1e5
        loss = self.loss(arm, np.full(len(tokens), size), tokens) * np.exp(luck + ROW_NOISE * noise)
        return tokens[keep], loss[keep], arm * 1000 + place


@dataclass
class Trained:
    """What of a world has been trained: the length of every trunk."""

    world: World
    ends: dict[tuple[int, float], float] = field(default_factory=dict)

    def train(self, arms: Array | list[int] | range, flops: float) -> None:
        """Every arm at all sizes of a compute."""
        for arm in arms:
            for size in self.world.sizes(flops):
                key = (int(arm), float(size))
                self.ends[key] = max(flops, self.ends.get(key, 0.0))

    @property
    def spent(self) -> float:
        """FLOPs of all trunks."""
        return sum(self.ends.values())

    def measured(self) -> Measured:
        """All evaluations."""
        parts = []
        for (arm, size), flops in self.ends.items():
            tokens, loss, run = self.world.run(arm, size, flops)
            parts.append(np.column_stack([np.full((len(loss), 3), (arm, run, size)), tokens, 6 * size * tokens, loss]))
        rows = np.concatenate(parts)
        return Measured(rows[:, 0].astype(int), rows[:, 1].astype(int), *rows[:, 2:].T)


def _m4(x: Array, k: float) -> Array:
    """y of y / (1 - y)^k = x between 0 and 1, by halving."""
    low, high = np.zeros(len(x)), np.ones(len(x))
    for _ in range(40):
        middle = (low + high) / 2
        above = middle > x * (1 - middle) ** k
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.asarray((low + high) / 2)
