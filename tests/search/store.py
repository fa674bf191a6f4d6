"""A store whose runs follow a planted law of their structure, searched without any training."""

from functools import cache

import numpy as np

from structlin.anatomy.compute import flops_until
from structlin.anatomy.ledger import ledger
from structlin.config.doors import sweep_request
from structlin.config.request import SweepRequest
from structlin.runs.job import Job
from structlin.search.course import Course, Seen, course

WORDS = [
    "grid=search",
    "target=3e13",
    "budget=4e12",
    "structure.count=10",
    "scale=small",
    "tracking=journal",
    "seed=0,1",
]


@cache
def request(*words: str) -> SweepRequest:
    return sweep_request([*WORDS, *words])


def law(variant: str, size: float, tokens: float) -> float:
    """L(N, D) of a variant: coefficients by its name."""
    kind = np.random.default_rng([sum(map(ord, variant))]).standard_normal(2)
    return float(1.0 + 40 * np.exp(0.1 * kind[0]) / size**0.35 + 120 * np.exp(0.1 * kind[1]) / tokens**0.37)


class Planted:
    """A store whose runs follow a law of their structure: what has been trained of it, and what was trained twice."""

    def __init__(self) -> None:
        self.steps: dict[str, set[int]] = {}
        self.science: dict[str, object] = {}
        self.again = 0

    def train(self, job: Job) -> None:
        have = self.steps.setdefault(job.run_id, set())
        self.again += sum(step < max(have) for step in set(job.evaluations) - have) if have else 0
        have.update(job.evaluations)
        self.science[job.run_id] = job.science

    def read(self, job: Job) -> Seen:
        have = self.steps.get(job.run_id, set())
        if not set(job.evaluations) <= have:
            return Seen(False, ())
        # A longer run shows more than was asked for.
        return Seen(True, tuple((step, self.loss(job, step)) for step in sorted(have)))

    def loss(self, job: Job, step: int) -> float:
        science = job.science
        size, tokens = ledger(science).macs_per_token, step * science.optim.batch_tokens
        luck = np.random.default_rng([int(job.run_id[:8], 16)]).standard_normal()
        return float(law(science.variant, size, tokens) * np.exp(0.01 * luck))

    @property
    def spent(self) -> float:
        return float(sum(flops_until(self.science[run], max(steps)) for run, steps in self.steps.items()))


def searched(asked: SweepRequest, store: Planted) -> Course:
    """The search, rung after rung."""
    for _ in range(20):
        now = course(asked, store.read)
        if now.underway is None:
            return now
        for job in now.underway.jobs:
            store.train(job)
    raise AssertionError("no end")
