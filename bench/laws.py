"""How fast is the fitter, how often do its intervals hold the truth, and does it find the global minimum?

    python -m bench.laws                          speed, about a minute
    python -m bench.laws coverage 200             coverage of the 90% intervals over synthetic sweeps
    python -m bench.laws coverage 200 held_out    one part: parametric, approaches, held_out or multipliers
    python -m bench.laws misfits 100              coverage, or a warning and no interval, where a law does not fit
    python -m bench.laws crossings 200            equal variants, and multipliers that are constant, grow and cross
    python -m bench.laws decades 40               the top decade foretold by every form, by the hull and corrected
    python -m bench.laws minimum 1000             random problems against a multi-start of scipy's L-BFGS-B
    python -m bench.laws polish 1000              one table of 245 rows against as many starts of scipy's Nelder-Mead

Speed is the median of repetitions after one unmeasured call, in seconds of one core (CPU time, so that other work on
the machine does not count; on an idle machine it is the time that passes). Whole processes show both times.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.planted.coverage import PARTS, coverage
from bench.planted.crossings import crossings
from bench.planted.decades import decades
from bench.planted.minimum import minimum, polish
from bench.planted.misfits import misfits
from bench.planted.sweeps import DENSE, fitted, many
from structlin import errors
from structlin.errors import UserError, asks_help, suggest, whole_number
from structlin.laws import synthetic
from structlin.laws.approaches import parametric
from structlin.laws.minimum.objective import Objective

ROOT = Path(__file__).parents[1]


def median(work: Callable[[], object], repetitions: int) -> float:
    """Median CPU seconds of a call after one that is not counted."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def speed() -> None:
    """The targets of docs/laws.md."""
    table = synthetic.grid(DENSE, rows=240, outliers=0.05, generator=np.random.default_rng(0))
    size, tokens, loss = (table[name].to_numpy() for name in ("params", "tokens", "loss"))
    one = median(lambda: parametric.fit(size, tokens, loss), 21)
    print(f"parametric fit, 240 rows                        {1e3 * one:8.1f} ms   (target 20 ms)")
    start = parametric.fit(size, tokens, loss)
    weights = np.random.default_rng(1).multinomial(240, np.full(240, 1 / 240), size=4000).astype(float)
    refits = median(lambda: parametric.refit(start, size, tokens, loss, Objective(), weights), 3)
    print(f"4,000 bootstrap refits of it                    {refits:8.2f} s    (target 3 s)")
    ten = many(10, 10, 30)
    clustered = median(lambda: fitted(ten, bootstrap=1000), 3)
    print(f"1,000 clustered bootstraps, 10 x 300 rows, all  {clustered:8.2f} s    (target 10 s)")
    store = many(10, 20, 50, seeds=50)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.parquet"
        store.to_parquet(path)
        cpu, wall = whole_process(path, folder)
        count = store["run"].nunique()
        print(f"{count:,} runs x 50 evaluations, whole process      {cpu:8.2f} s    (target 20 s; {wall:.1f} s passed)")
        demo = Path(folder) / "demo.csv"
        many(3, 5, 40).to_csv(demo, index=False)
        cpu, wall = sorted(whole_process(demo, folder) for _ in range(3))[1]
        print(f"3 structures x 5 runs x 40, whole process       {cpu:8.2f} s    (target 3 s; {wall:.1f} s passed)")


def whole_process(path: Path, out: str) -> tuple[float, float]:
    """CPU and passed seconds of a whole process of fit_laws.py on a table."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "fit_laws.py", "source=table", f"table={path}", f"out={out}/laws"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start


TASKS: dict[str, tuple[Callable[..., None], int]] = {
    "speed": (lambda repetitions: speed(), 1),
    "coverage": (coverage, 200),
    "misfits": (misfits, 100),
    "crossings": (crossings, 200),
    "decades": (decades, 40),
    "minimum": (minimum, 1000),
    "polish": (polish, 1000),
}
"""Name -> what it measures, and of how many sweeps, problems or starts where nobody says."""


def main(arguments: list[str]) -> int:
    """The task of the command line, of as many sweeps, problems or starts as it says. UserError for another."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    task, *more = arguments or ["speed"]
    if task not in TASKS:
        raise UserError(f"unknown task '{task}'; {suggest(task, TASKS)}")
    measure, usual = TASKS[task]
    parts = more[1:]
    if parts and (task != "coverage" or parts[0] not in PARTS or len(parts) > 1):
        raise UserError(f"'{' '.join(parts)}' is no part of {task}; {suggest(parts[0], PARTS)}, of coverage alone")
    measure(whole_number("n", more[0], 1) if more else usual, *parts)
    return 0


if __name__ == "__main__":
    errors.door(main)
