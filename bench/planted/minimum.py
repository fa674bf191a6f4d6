"""Does the fitter find the global minimum of its objective?"""

from __future__ import annotations

import time

import numpy as np

from bench.planted.sweeps import DENSE
from structlin.laws import synthetic
from structlin.laws.approaches import parametric
from structlin.laws.minimum.objective import Objective
from tests.laws.approaches.test_parametric import multi_start, random_problem


def minimum(problems: int, starts: int = 12) -> None:
    """Random problems: how often does a multi-start find a lower objective, and how often a worse one?"""
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
    generator = np.random.default_rng(0)
    table = synthetic.grid(DENSE, rows=245, noise=0.003, generator=generator)
    size, tokens, loss = (table[name].to_numpy() for name in ("params", "tokens", "loss"))
    here = parametric.fit(size, tokens, loss).objective
    there = multi_start(size, tokens, loss, Objective(), starts, generator, method="Nelder-Mead")
    print(f"  ours {here:.12g}, the best of {starts} {there:.12g}, ours / theirs - 1 = {here / there - 1:.2g}")
