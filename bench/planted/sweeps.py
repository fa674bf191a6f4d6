"""Sweeps drawn from planted laws, and what the fitter makes of one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from structlin.laws import synthetic
from structlin.laws.approaches.fit import fit_laws
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.choices import Choices
from structlin.laws.evaluations.points import choose
from structlin.laws.evaluations.source import from_table

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
