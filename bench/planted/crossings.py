"""Two variants whose multiplier is one, constant, grows or crosses one: what is said of them?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.planted.sweeps import BTT, DENSE, fitted
from structlin.laws import synthetic
from structlin.laws.approaches.parametric import ParametricLaw

GROWING = ParametricLaw(DENSE.E, 2.2 * DENSE.A, DENSE.B, DENSE.alpha + 0.045, DENSE.beta)
CROSSING = ParametricLaw(DENSE.E, 4.1 * DENSE.A, DENSE.B, DENSE.alpha + 0.08, DENSE.beta)


def crossings(sweeps: int) -> None:
    """False crossings of equal variants, and how often planted multipliers at the end and crossings are held."""
    print(f"| planted, n = {sweeps} | crossing printed | held | multiplier at the lowest loss | its mean |")
    print("|---|---|---|---|---|")
    for name, law in (("equal", DENSE), ("constant", BTT), ("growing", GROWING), ("crossing", CROSSING)):
        print(f"| {name} | {' | '.join(_crossings_of(law, sweeps))} |", flush=True)


def _crossings_of(law: ParametricLaw, sweeps: int) -> list[str]:
    """The columns of one planted multiplier."""
    generator = np.random.default_rng(7)
    said, ends, at, means = 0, [], [], []
    reach = np.geomspace(1e13, 1e22, 20_001)
    losses = [one.frontier(reach) for one in (DENSE, law)]
    for k in range(sweeps):
        table = pd.concat(
            [
                synthetic.trunks(one, variant=variant, sizes=np.geomspace(1e6, 2.56e8, 8).tolist(), evaluations=20,
                                 run_noise=0.003, row_noise=0.001, generator=generator)
                for variant, one in (("dense", DENSE), ("x", law))
            ]
        )  # fmt: skip
        m = fitted(table.drop(columns="seed"), bootstrap=200, seed=k).multipliers["x"]
        there = [np.interp(-m.loss, -loss, np.log(reach)) for loss in losses]
        truth = np.exp(there[0] - there[1])
        ends.append(m.low[-1] <= truth[-1] <= m.high[-1])
        means.append(m.mean_interval.low <= np.trapezoid(truth) / (len(truth) - 1) <= m.mean_interval.high)
        if m.crossing is not None and m.crossing_interval is not None:
            said += 1
            meet = np.flatnonzero(np.diff(np.sign(losses[0] - losses[1])))
            if len(meet):
                at.append(m.crossing_interval.low <= reach[meet[0]] <= m.crossing_interval.high)
    held = f"{100 * np.mean(at):.0f}%" if at else "-"
    return [f"{said}", held, f"{100 * np.mean(ends):.0f}%", f"{100 * np.mean(means):.0f}%"]
