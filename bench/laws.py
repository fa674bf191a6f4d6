"""How fast is the fitter, how often do its intervals hold the truth, and does it find the global minimum?

    python -m bench.laws                          speed, about a minute
    python -m bench.laws coverage 200             coverage of the 90% intervals over synthetic sweeps
    python -m bench.laws coverage 200 held_out    one part: parametric, approaches, held_out or multipliers
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from structlin.laws import synthetic  # noqa: E402
from structlin.laws.approaches import parametric  # noqa: E402
from structlin.laws.approaches.fit import BETWEEN, Laws, fit_laws  # noqa: E402
from structlin.laws.approaches.parametric import ParametricLaw  # noqa: E402
from structlin.laws.choices import Choices  # noqa: E402
from structlin.laws.evaluations.points import choose  # noqa: E402
from structlin.laws.evaluations.source import from_table  # noqa: E402
from structlin.laws.minimum.objective import Objective  # noqa: E402
from structlin.laws.sampling.bootstrap import Interval, draw, interval, widening  # noqa: E402

DENSE = synthetic.CHINCHILLA
BTT = ParametricLaw(DENSE.E, 0.7 * DENSE.A, DENSE.B, DENSE.alpha, DENSE.beta)
# Laws of other exponents: the optimal size grows more slowly, and faster, than that of DENSE.
STEEP = ParametricLaw(1.5, 3000.0, 800.0, 0.5, 0.3)
FLAT = ParametricLaw(2.2, 60.0, 8000.0, 0.22, 0.42)
# Trunks as (sizes, seeds).
TRUNKS = ((5, 1), (5, 2), (8, 1), (12, 1), (20, 1))


@dataclass(frozen=True)
class Design:
    """Synthetic sweeps of one kind."""

    sizes: int = 0
    """Trunks of so many sizes; 0 for finished runs, five sizes at each budget."""
    seeds: int = 1
    """Trunks of each size."""
    noise: float = 0.005
    """Standard deviation of log loss between runs; between rows of a run it is 0.4 of that."""
    law: ParametricLaw = DENSE
    """What is planted."""
    budgets: int = 5
    """Budgets of finished runs."""

    def __str__(self) -> str:
        what = f"{self.sizes} x {self.seeds} trunks" if self.sizes else f"{5 * self.budgets} finished runs"
        return f"{what}, {100 * self.noise:.1f}%, size exponent {self.law.size_exponent:.2f}"

    def table(self, generator: np.random.Generator) -> pd.DataFrame:
        """One sweep."""
        if not self.sizes:
            budgets = np.geomspace(1e16, 1e18, self.budgets).tolist()
            return synthetic.isoflop(self.law, budgets=budgets, noise=self.noise, generator=generator)
        return synthetic.trunks(
            self.law, sizes=np.geomspace(1e6, 2.56e8, self.sizes).tolist(), seeds=range(self.seeds), evaluations=25,
            run_noise=self.noise, row_noise=0.4 * self.noise, generator=generator,
        ).drop(columns="seed")  # fmt: skip


# What the intervals of approaches 1 and 2 were chosen on, and other sweeps, looked at once they were.
DESIGNS = (*(Design(sizes, seeds) for sizes, seeds in TRUNKS), Design(noise=0.003))
HELD_OUT = (
    Design(6), Design(10), Design(5, noise=0.003), Design(8, noise=0.003), Design(8, noise=0.01),
    Design(12, noise=0.01),
    Design(8, law=STEEP), Design(8, law=FLAT), Design(12, law=STEEP), Design(12, law=FLAT),
    Design(noise=0.003, budgets=4), Design(noise=0.01), Design(noise=0.003, law=STEEP), Design(noise=0.003, law=FLAT),
    Design(4),
)  # fmt: skip


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


def coverage(sweeps: int, part: str | None) -> None:
    """How often 90% intervals hold the planted value, for several designs."""
    parts = {
        "parametric": parametric_coverage,
        "approaches": approaches,
        "held_out": held_out,
        "multipliers": multipliers,
    }
    for name, measure in parts.items():
        if part in (None, name):
            print(f"{name}, {sweeps} sweeps each", flush=True)
            measure(sweeps)


def parametric_coverage(sweeps: int) -> None:
    """Approach 3 on trunks; noise 0.5% a run, 0.2% a row."""
    names = ("E", "A", "B", "alpha", "beta", "size_exponent", "compute_exponent")
    for count, seeds in TRUNKS:
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
        print(f"  {count * seeds:3d} runs: {shown}", flush=True)


def multipliers(sweeps: int) -> None:
    """Compute multipliers of btt against dense."""
    for count, seeds, noise in ((5, 1, 0.003), (5, 2, 0.003), (8, 1, 0.003), (8, 1, 0.01), (12, 1, 0.005)):
        shown = multiplier_coverage(sweeps, count, seeds, noise)
        print(f"  {count * seeds:3d} runs, noise {100 * noise:.1f}%: {shown}", flush=True)


def approaches(sweeps: int) -> None:
    """Approaches 1 and 2 on the designs of docs/laws.md."""
    for design in DESIGNS:
        print(f"  {design}: {approach_coverage(sweeps, design)}", flush=True)


def held_out(sweeps: int) -> None:
    """Approaches 1 and 2 on other sizes, noise, exponents and budgets."""
    for design in HELD_OUT:
        print(f"  {design}: {approach_coverage(sweeps, design)}", flush=True)


def approach_coverage(sweeps: int, design: Design) -> str:
    """Coverage of the intervals of approaches 1 and 2 on one design, and how many of them could not be stated."""
    held: dict[str, list[float]] = {}
    generator = np.random.default_rng(design.sizes)
    for k in range(sweeps):
        laws = fitted(design.table(generator), bootstrap=50, seed=k)
        for name, values in held_by(laws, "dense", design.law).items():
            held.setdefault(name, []).extend(values)
    missing = {name: np.mean(np.isnan(values)) for name, values in held.items()}
    return "  ".join(
        f"{name} {100 * np.nanmean(values):.0f}%" + f" ({100 * missing[name]:.0f}% without)" * bool(missing[name])
        for name, values in held.items()
    )


def held_by(laws: Laws, variant: str, planted: ParametricLaw) -> dict[str, list[float]]:
    """Which intervals of approaches 1 and 2 hold the planted values: 1, 0, or NaN where none was stated."""
    exponent = planted.compute_exponent
    constant = float((planted.frontier(1e18) - planted.E) * 1e18**exponent)
    found: dict[str, list[float]] = {}

    def note(name: str, ends: Interval, truth: float) -> None:
        stated = np.isfinite(ends.low) and np.isfinite(ends.high)
        found.setdefault(name, []).append(float(ends.low <= truth <= ends.high) if stated else np.nan)

    if variant in laws.frontiers:
        ends = laws.frontier_intervals(variant)
        for name, truth in (("E", planted.E), ("A", constant), ("a", exponent)):
            note(name, ends[name], truth)
    two, size = laws.isoflops[variant], planted.size_exponent
    # Width is the root of N in synthetic sweeps.
    powers = {
        "N exponent": (two.size, size), "Akima": (two.akima, size),
        "D exponent": (two.tokens, 1.0 - size), "width exponent": (two.width, 0.5 * size),
    }  # fmt: skip
    for name, (power, truth) in powers.items():
        if power is not None:
            note(name, laws.power_interval(variant, power), truth)
    for s in two.slices:
        if s.edge is None and np.isfinite(s.optimum):
            note("N of a budget", laws.power_interval(variant, s), float(planted.optimum(s.budget)[0]))
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
        # Equal steps in log C, so trapezoids are the mean over log C.
        planted = np.trapezoid(np.exp(truth)) / (len(truth) - 1)
        mean.append(m.mean_interval.low <= planted <= m.mean_interval.high)
    return f"band {100 * np.mean(band):.0f}%  mean {100 * np.mean(mean):.0f}%"


def minimum(problems: int, starts: int = 12) -> None:
    """Random problems: how often does a multi-start find a lower objective, and how often a worse one?"""
    from tests.laws.approaches.test_parametric import multi_start, random_problem

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


def polish(starts: int) -> None:
    """245 rows, log-Huber of 1e-3, summed: the lowest objective of Nelder-Mead from random starts, and ours."""
    from tests.laws.approaches.test_parametric import multi_start

    generator = np.random.default_rng(0)
    table = synthetic.grid(DENSE, rows=245, noise=0.003, generator=generator)
    size, tokens, loss = (table[name].to_numpy() for name in ("params", "tokens", "loss"))
    here = parametric.fit(size, tokens, loss).objective
    there = multi_start(size, tokens, loss, Objective(), starts, generator, method="Nelder-Mead")
    print(f"  ours {here:.12g}, the best of {starts} {there:.12g}, ours / theirs - 1 = {here / there - 1:.2g}")


if __name__ == "__main__":
    task = sys.argv[1] if len(sys.argv) > 1 else "speed"
    number = int(sys.argv[2]) if len(sys.argv) > 2 else None
    if task == "coverage":
        coverage(number or 200, sys.argv[3] if len(sys.argv) > 3 else None)
    elif task == "minimum":
        minimum(number or 1000)
    elif task == "polish":
        polish(number or 1000)
    else:
        speed()
