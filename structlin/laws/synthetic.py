"""What would a sweep under a known law look like? Tables with planted answers, for tests, coverage and benchmarks.

Noise has two parts: one number per run (seed, data order) and one per evaluation, both as relative errors of the
loss. Evaluations of one run share the first, so they are correlated, as real ones are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from structlin.laws.approaches.parametric import ParametricLaw

CHINCHILLA = ParametricLaw(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
"""The law of arXiv 2404.10102, table 1."""


def trunks(
    law: ParametricLaw,
    *,
    variant: str = "dense",
    sizes: Sequence[float] = (1e6, 4e6, 1.6e7, 6.4e7, 2.56e8),
    seeds: Sequence[int] = (0,),
    flops: tuple[float, float] = (1e16, 1e19),
    evaluations: int = 30,
    run_noise: float = 0.005,
    row_noise: float = 0.001,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Constant-rate runs, one per size and seed, each evaluated at log-spaced tokens between two computes.

    Columns: run, variant, seed, params, tokens, flops, loss, width. FLOPs are 6 N D.
    """
    frames = []
    for size in sizes:
        for seed in seeds:
            tokens = np.geomspace(flops[0] / (6 * size), flops[1] / (6 * size), evaluations)
            noise = np.full(evaluations, run_noise * generator.standard_normal())
            noise += row_noise * generator.standard_normal(evaluations)
            frame = pd.DataFrame({"tokens": tokens, "loss": law.loss(size, tokens) * np.exp(noise)})
            frame["run"] = f"{variant}-{size:.3g}-s{seed}"
            frame["seed"], frame["params"], frame["width"] = seed, size, round(np.sqrt(size))
            frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    table["variant"] = variant
    table["flops"] = 6.0 * table["params"] * table["tokens"]
    return table


def grid(
    law: ParametricLaw,
    *,
    variant: str = "all",
    rows: int = 240,
    sizes: tuple[float, float] = (5e7, 1.6e10),
    flops: tuple[float, float] = (1e18, 1e22),
    noise: float = 0.005,
    outliers: float = 0.0,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Finished runs at random sizes and computes, one row each; a share of ``outliers`` is ten times noisier."""
    size = np.exp(generator.uniform(np.log(sizes[0]), np.log(sizes[1]), rows))
    compute = np.exp(generator.uniform(np.log(flops[0]), np.log(flops[1]), rows))
    tokens = np.maximum(compute / (6 * size), 1e7)
    spread = noise * np.where(generator.random(rows) < outliers, 10.0, 1.0)
    loss = law.loss(size, tokens) * np.exp(spread * generator.standard_normal(rows))
    return pd.DataFrame(
        {"run": [f"{variant}-{i}" for i in range(rows)], "variant": variant, "params": size, "tokens": tokens,
         "flops": 6 * size * tokens, "loss": loss}
    )  # fmt: skip


def isoflop(
    law: ParametricLaw,
    *,
    variant: str = "dense",
    budgets: Sequence[float] = (1e16, 3e16, 1e17, 3e17, 1e18),
    ratios: Sequence[float] = (0.25, 0.5, 1.0, 2.0, 4.0),
    noise: float = 0.0,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """One finished run per budget and size, sizes at ratios of the true optimum of each budget."""
    frames = []
    for budget in budgets:
        best, _ = law.optimum(budget)
        size = float(best) * np.asarray(ratios)
        tokens = budget / (6 * size)
        loss = law.loss(size, tokens) * np.exp(noise * generator.standard_normal(len(size)))
        frames.append(pd.DataFrame({"params": size, "tokens": tokens, "loss": loss, "flops": budget}))
    table = pd.concat(frames, ignore_index=True)
    table["run"] = [f"{variant}-{i}" for i in range(len(table))]
    table["variant"], table["width"] = variant, np.round(np.sqrt(table["params"]))
    return table
