"""How often do 90% intervals hold the planted value?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from bench.planted.sweeps import BTT, DENSE, DESIGNS, HELD_OUT, TRUNKS, Design, fitted
from structlin.laws import synthetic
from structlin.laws.approaches import parametric
from structlin.laws.approaches.laws import BETWEEN, Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.minimum.objective import Objective
from structlin.laws.sampling.bootstrap import Interval, draw, interval, widening


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


PARTS: dict[str, Callable[[int], None]] = {
    "parametric": parametric_coverage,
    "approaches": approaches,
    "held_out": held_out,
    "multipliers": multipliers,
}


def coverage(sweeps: int, part: str | None = None) -> None:
    """How often 90% intervals hold the planted value, for several designs; of all parts, or of one."""
    for name, measure in PARTS.items():
        if part in (None, name):
            print(f"{name}, {sweeps} sweeps each", flush=True)
            measure(sweeps)
