"""How fast is the fitter, how often do its intervals hold the truth, and does it find the global minimum?

    OMP_NUM_THREADS=1 python bench/laws.py                speed, about a minute
    OMP_NUM_THREADS=1 python bench/laws.py coverage       coverage of the 90% intervals over synthetic sweeps
    OMP_NUM_THREADS=1 python bench/laws.py minimum 1000   random problems against a multi-start of scipy's L-BFGS-B

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
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from structlin.laws import parametric, synthetic  # noqa: E402
from structlin.laws.bootstrap import draw, interval, widening  # noqa: E402
from structlin.laws.choices import Choices  # noqa: E402
from structlin.laws.fit import BETWEEN, Laws, fit_laws  # noqa: E402
from structlin.laws.objective import Objective  # noqa: E402
from structlin.laws.parametric import ParametricLaw  # noqa: E402
from structlin.laws.points import choose  # noqa: E402
from structlin.laws.source import from_table  # noqa: E402

DENSE = synthetic.CHINCHILLA
BTT = ParametricLaw(DENSE.E, 0.7 * DENSE.A, DENSE.B, DENSE.alpha, DENSE.beta)


def median(work: Callable[[], object], repetitions: int) -> float:
    """Median CPU seconds of a call after one that is not counted."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def fitted(table: pd.DataFrame, **options: object) -> Laws:
    """A table read, chosen and fitted."""
    choices = Choices(source="table", table="memory.csv", **options)  # type: ignore[arg-type]
    frame, assumed, cautions = from_table(table, choices)
    return fit_laws(choose(frame, choices, assumed, cautions, own=False), choices)


def many(structures: int, sizes: int, evaluations: int, seeds: int = 1) -> pd.DataFrame:
    """Trunks of several structures, one planted law each."""
    generator = np.random.default_rng(0)
    frames = []
    for k in range(structures):
        law = ParametricLaw(DENSE.E, DENSE.A * 0.9**k, DENSE.B, DENSE.alpha, DENSE.beta)
        name = "dense" if k == 0 else f"structure{k}"
        frames.append(
            synthetic.trunks(
                law,
                variant=name,
                sizes=np.geomspace(1e6, 2.56e8, sizes).tolist(),
                seeds=range(seeds),
                evaluations=evaluations,
                generator=generator,
            )
        )
    return pd.concat(frames, ignore_index=True)


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
        cpu, wall = door(path, folder)
        count = store["run"].nunique()
        print(f"{count:,} runs x 50 evaluations, whole process      {cpu:8.2f} s    (target 20 s; {wall:.1f} s passed)")
        demo = Path(folder) / "demo.csv"
        many(3, 5, 40).to_csv(demo, index=False)
        cpu, wall = sorted(door(demo, folder) for _ in range(3))[1]
        print(f"3 structures x 5 runs x 40, whole process       {cpu:8.2f} s    (target 3 s; {wall:.1f} s passed)")


def door(path: Path, out: str) -> tuple[float, float]:
    """CPU and passed seconds of a whole process of fit_laws.py on a table."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "fit_laws.py", "source=table", f"table={path}", f"out={out}/laws"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - start


def coverage(sweeps: int) -> None:
    """How often 90% intervals hold the planted value, for several designs."""
    names = ("E", "A", "B", "alpha", "beta", "size_exponent", "compute_exponent")
    print(f"parametric, {sweeps} sweeps each; noise 0.5% a run, 0.2% a row")
    for count, seeds in ((5, 1), (5, 2), (8, 1), (12, 1), (20, 1)):
        held = dict.fromkeys(names, 0)
        generator = np.random.default_rng(count)
        for k in range(sweeps):
            table = synthetic.trunks(
                DENSE, sizes=np.geomspace(1e6, 2.56e8, count).tolist(), seeds=range(seeds), evaluations=12,
                run_noise=0.005, row_noise=0.002, generator=generator,
            ).assign(pair=lambda t: t["run"])  # fmt: skip
            size, tokens, loss = (table[name].to_numpy() for name in ("params", "tokens", "loss"))
            fit = parametric.fit(size, tokens, loss)
            theta = parametric.refit(fit, size, tokens, loss, Objective(), draw(table, 200, k)["dense"].rows)
            samples = parametric.samples_of(theta, fit.centre)
            for name in names:
                between = BETWEEN["within" if name in ("B", "beta") else "parametric"]
                factor = widening(count * seeds, between, 0.9)
                ends = interval(samples[name], getattr(fit.law, name), 0.9, factor, log=name in "AB")
                held[name] += ends.low <= getattr(DENSE, name) <= ends.high
        shown = "  ".join(f"{name} {100 * n / sweeps:.0f}%" for name, n in held.items())
        print(f"  {count * seeds:3d} runs: {shown}")
    print(f"frontier law and isoFLOP, {sweeps} sweeps each; noise 0.5% a run, 0.2% a row")
    for count, seeds in ((5, 1), (5, 2), (8, 1), (12, 1), (20, 1)):
        print(f"  {count * seeds:3d} trunks: {approach_coverage(sweeps, count, seeds)}")
    print(f"  25 finished runs at 5 budgets, 0.3%: {approach_coverage(sweeps)}")
    print(f"compute multiplier, {sweeps} sweeps each")
    for count, seeds, noise in ((5, 1, 0.003), (5, 2, 0.003), (8, 1, 0.003), (8, 1, 0.01), (12, 1, 0.005)):
        print(
            f"  {count * seeds:3d} runs, noise {100 * noise:.1f}%: {multiplier_coverage(sweeps, count, seeds, noise)}"
        )


def approach_coverage(sweeps: int, count: int = 0, seeds: int = 1) -> str:
    """Coverage of the intervals of approaches 1 and 2, for trunks or (count = 0) for a grid of finished runs."""
    held: dict[str, list[float]] = {}
    generator = np.random.default_rng(count)
    for k in range(sweeps):
        if count:
            table = synthetic.trunks(
                DENSE, sizes=np.geomspace(1e6, 2.56e8, count).tolist(), seeds=range(seeds), evaluations=25,
                run_noise=0.005, row_noise=0.002, generator=generator,
            ).drop(columns="seed")  # fmt: skip
        else:
            table = synthetic.isoflop(DENSE, noise=0.003, generator=generator)
        for name, value in held_by(fitted(table, bootstrap=50, seed=k), "dense").items():
            held.setdefault(name, []).append(value)
    return "  ".join(f"{name} {100 * np.mean(values):.0f}%" for name, values in held.items())


def held_by(laws: Laws, variant: str) -> dict[str, float]:
    """Which intervals of approaches 1 and 2 hold the values of DENSE: 1 or 0, and a share of the optima."""
    exponent = DENSE.compute_exponent
    constant = float((DENSE.frontier(1e18) - DENSE.E) * 1e18**exponent)
    found: dict[str, float] = {}
    if variant in laws.frontiers:
        ends = laws.frontier_intervals(variant)
        for name, truth in (("E", DENSE.E), ("A", constant), ("a", exponent)):
            found[name] = float(ends[name].low <= truth <= ends[name].high)
    two = laws.isoflops[variant]
    for name, power in (("N_opt", two.size), ("N_opt Akima", two.akima)):
        if power is not None:
            of = laws.power_interval(variant, power)
            found[name] = float(of.low <= DENSE.size_exponent <= of.high)
    inside = [s for s in two.slices if s.edge is None and np.isfinite(s.optimum)]
    optima = [(laws.power_interval(variant, s), float(DENSE.optimum(s.budget)[0])) for s in inside]
    found["optima"] = float(np.mean([of.low <= truth <= of.high for of, truth in optima]))
    return found


def multiplier_coverage(sweeps: int, count: int, seeds: int, noise: float) -> str:
    """Coverage of the band and of the mean's interval of btt against dense."""
    flops = np.geomspace(1e12, 1e24, 20_001)
    band, mean = [], []
    generator = np.random.default_rng(count)
    for k in range(sweeps):
        table = pd.concat(
            [
                synthetic.trunks(
                    law, variant=name, sizes=np.geomspace(2e6, 2.56e8, count).tolist(), seeds=range(seeds),
                    evaluations=25, run_noise=noise, row_noise=0.001, generator=generator,
                )
                for name, law in (("dense", DENSE), ("btt", BTT))
            ]
        ).drop(columns="seed")  # fmt: skip
        m = fitted(table, bootstrap=200, seed=k).multipliers["btt"]
        reach = [np.interp(-m.loss, -law.frontier(flops), np.log(flops)) for law in (DENSE, BTT)]
        truth = reach[0] - reach[1]
        band.append(np.mean((np.log(m.low) <= truth) & (truth <= np.log(m.high))))
        mean.append(np.log(m.mean_interval.low) <= truth.mean() <= np.log(m.mean_interval.high))
    return f"band {100 * np.mean(band):.0f}%  mean {100 * np.mean(mean):.0f}%"


def minimum(problems: int, starts: int = 12) -> None:
    """Random problems: how often does a multi-start find a lower objective, and how often a worse one?"""
    from tests.laws.test_parametric import multi_start, random_problem

    won, worst, seconds = 0, 0.0, 0.0
    lost: list[int] = []
    for k in range(problems):
        generator = np.random.default_rng(k)
        size, tokens, loss, objective = random_problem(generator)
        begin = time.perf_counter()
        here = parametric.fit(size, tokens, loss, objective).objective
        seconds += time.perf_counter() - begin
        gap = here / multi_start(size, tokens, loss, objective, starts, generator) - 1
        won, worst = won + (gap < -1e-6), max(worst, gap)
        lost += [k] if gap > 1e-6 else []
    print(f"{problems} problems, {starts} starts each, {1e3 * seconds / problems:.1f} ms a fit")
    print(f"  multi-start lower by more than 1e-6 in {len(lost)} {lost}, higher in {won}; worst gap {worst:.2g}")


if __name__ == "__main__":
    task = sys.argv[1] if len(sys.argv) > 1 else "speed"
    if task == "coverage":
        coverage(int(sys.argv[2]) if len(sys.argv) > 2 else 200)
    elif task == "minimum":
        minimum(int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    else:
        speed()
