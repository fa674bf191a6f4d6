"""Jobs and orders of tiny runs, as a plan would make them."""

from structlin.launch.slurm.resources import Order
from structlin.runs.job import Job
from tests.tiny import tiny


def job(seed: int = 0, steps: int = 100, d_model: int = 16) -> Job:
    return Job(tiny(d_model=d_model, seed=seed), (steps // 2, steps))


def order(seed: int = 0, steps: int = 100, speed: float | None = None, **more) -> Order:
    return Order(job(seed, steps), steps, speed, **more)
