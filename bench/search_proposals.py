"""Do proposals find better arms than those asked for? Planted losses over the space of structures, the search as it is.

    python -m bench.search proposals 60      with proposals, without, and with as many more thetas asked for

24 thetas of two and three factors, dense and btt, and all that the surrogate may propose have losses
L = E + A_s / N^alpha + B_s / D^beta. log A_s and log B_s are each a line and a smooth function over (omega, psi, nu) as
realised, and a residual of the arm's own: a ``third`` of the variance of each (a line leaves a quarter of it on kept
GPT-2s, two fifths on kept regressions), or ``all`` of it residual, as on kept pixels, where there is nothing to learn.
Runs have luck of 1% and exist as soon as the search asks for them; regret is against the best arm asked for, so that it
may be negative, and against the best of all that may be proposed too; gain is the loss less than without proposals.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.config.request import SweepRequest
from structlin.laws.minimum.objective import Array
from structlin.runs.job import Job
from structlin.search.arms import Arm, arms_of, place_of
from structlin.search.course import ARMS_A_PROPOSAL, Course, Seen, course
from structlin.search.proposals import candidates
from structlin.structure import Theta

SHARES = {"third": (1 / 3, 1 / 3, 1 / 3), "all": (0.0, 0.0, 1.0)}
"""Of line, smooth function and residual in the variance of log A and log B."""
COUNT, TARGET, BUDGET = 24, 3e13, 6e12
SPREAD, LUCK = 0.1, 0.01
E, A, B, ALPHA, BETA = 1.0, 40.0, 120.0, 0.35, 0.37
_WAVES, _LENGTH = 60, 1.5


@cache
def request(more: int = 0, *words: str) -> SweepRequest:
    """The search; thetas are sampled once."""
    start = ["grid=search", f"target={TARGET}", f"budget={BUDGET}", f"structure.count={COUNT + more}", "scale=small"]
    return sweep_request([*start, "tracking=journal", *words])


def searches() -> dict[str, SweepRequest]:
    """What is compared."""
    none, new = "search.proposals=0", (COUNT + 2) // ARMS_A_PROPOSAL
    return {"with proposals": request(), "without": request(0, none), f"{new} more asked for": request(new, none)}


@cache
def _asked() -> tuple[Arm, ...]:
    return arms_of(request())


@cache
def _possible() -> tuple[Arm, ...]:
    """All arms that may be proposed."""
    search = request().search
    assert search is not None
    return tuple(candidates(_asked()[0].template, search.sampled, _asked()))


@cache
def _scale() -> tuple[Array, Array]:
    """Mean and spread of the places of those asked for."""
    places = np.array([arm.place() for arm in _asked()])
    return places.mean(axis=0), places.std(axis=0)


@cache
def _place(theta: str, rounding: str) -> Array:
    mean, scale = _scale()
    return np.asarray((np.array(place_of(Theta.parse(theta), rounding)) - mean) / scale)


@dataclass
class Space:
    """Losses over the space of structures, and runs that are there when they are asked for."""

    shares: tuple[float, float, float]
    seed: int
    slopes: Array = field(init=False)
    waves: Array = field(init=False)
    phases: Array = field(init=False)
    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = np.random.default_rng([self.seed, 7])
        self.slopes = generator.standard_normal((2, 3)) / np.sqrt(3)
        self.waves = generator.standard_normal((2, _WAVES, 3)) / _LENGTH
        self.phases = 2 * np.pi * generator.random((2, _WAVES))

    def logs(self, theta: str, rounding: str) -> tuple[float, float]:
        """log A and log B of a theta."""
        if theta not in self.known:
            z = _place(theta, rounding)
            line = self.slopes @ z
            # Random waves are a draw of a Gaussian process of this length.
            smooth = np.sqrt(2 / _WAVES) * np.cos(self.waves @ z + self.phases).sum(axis=1)
            own = np.random.default_rng([self.seed, *map(ord, theta)]).standard_normal(2)
            parts = np.sqrt(self.shares)
            both = np.log([A, B]) + SPREAD * (parts[0] * line + parts[1] * smooth + parts[2] * own)
            self.known[theta] = float(both[0]), float(both[1])
        return self.known[theta]

    def read(self, job: Job) -> Seen:
        """A run as long as it is wanted."""
        structure, batch = job.science.structure, job.science.optim.batch_tokens
        a, b = self.logs(structure.theta, structure.rounding)
        size = ledger(job.science).macs_per_token
        luck = LUCK * np.random.default_rng([self.seed, int(job.run_id[:8], 16)]).standard_normal()
        steps = np.array(job.evaluations)
        loss = (E + np.exp(a) / size**ALPHA + np.exp(b) / (steps * batch) ** BETA) * np.exp(luck)
        return Seen(True, tuple(zip(map(int, steps), map(float, loss), strict=True)))

    def truth(self, arms: Sequence[Arm]) -> Array:
        """Lowest loss of each arm over all sizes at the target."""
        sizes = np.geomspace(1e3, 1e9, 2001)
        found = []
        for arm in arms:
            structure = arm.template.science.structure
            a, b = self.logs(structure.theta, structure.rounding)
            found.append((np.exp(a) / sizes**ALPHA + np.exp(b) / (TARGET / 6 / sizes) ** BETA).min())
        return E + np.array(found)


def measure(number: int) -> None:
    """Regret and share of compute of the searches."""
    for kind, shares in SHARES.items():
        began = time.process_time()
        spread, found = zip(*(_world(Space(shares, seed)) for seed in range(number)), strict=True)
        rows = np.array(found)
        print(
            f"residual {kind}: losses of the arms asked for spread by {100 * np.mean(spread):.2f}% at the target "
            f"({number} worlds, {time.process_time() - began:.0f} CPU s)"
        )
        for place, name in enumerate(searches()):
            _say(name, rows[:, place], rows[:, 1, 0] - rows[:, place, 0])


Row = tuple[float, float, float, float, float]
"""Regret against the best asked for, and of all; share of compute, of the budget; whether a new arm is chosen."""


def _world(space: Space) -> tuple[float, list[Row]]:
    asked = space.truth(_asked())
    best = min(float(asked.min()), float(space.truth(_possible()).min()))
    return float(np.std(np.log(asked))), [
        _row(space, course(one, space.read), asked, best) for one in searches().values()
    ]


def _row(space: Space, now: Course, asked: Array, best: float) -> Row:
    assert now.winner is not None
    arm = now.arms[now.winner]
    loss = float(space.truth([arm])[0])
    everything = now.everything * len(asked) / len(now.arms)
    regret, all_of = loss / float(asked.min()) - 1, loss / best - 1
    known = {one.name for one in _asked()}
    return regret, all_of, now.spent / everything, now.spent / BUDGET, float(arm.name not in known)


def _say(name: str, rows: Array, gain: Array) -> None:
    regret, all_of, share, spent, new = 100 * rows.T
    gain = 100 * gain
    error = gain.std() / np.sqrt(max(len(gain) - 1, 1))
    print(
        f"  {name:<17}regret {np.median(regret):.2f}% (mean {regret.mean():.2f}, 9 of 10 below "
        f"{np.quantile(regret, 0.9):.2f}), against all mean {all_of.mean():.2f}%, gain {gain.mean():.2f} ± "
        f"{error:.2f}% (more in {100 * np.mean(gain > 0):.0f}%, less in {100 * np.mean(gain < 0):.0f}% of worlds), a "
        f"new arm chosen in {new.mean():.0f}%, share {np.median(share):.1f}%, {spent.mean():.0f}% of the budget",
        flush=True,
    )
