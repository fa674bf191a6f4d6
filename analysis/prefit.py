"""How are the laws of many studies fitted in less time? Side by side, a process a core: they take nearly all of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd

from structlin.laws.approaches.laws import Laws
from structlin.laws.choices import Choices
from structlin.laws.run import enrich

from .catalogue import FIGURES
from .make import Maker


def prefit(maker: Maker, names: Sequence[str], *, enriched: bool = False) -> None:
    """Fit the laws that figures of these names need, ``enriched`` by all checks; the same numbers as one by one."""
    wanted: dict[tuple[str, str], pd.DataFrame] = {}
    for figure in (FIGURES[name] for name in names):
        if not figure.laws or maker.own is not None:
            continue
        for study in (figure.study, *figure.others):
            kept = maker.kept(study) if study else None
            if kept is not None:
                wanted.setdefault((study, maker.baseline(figure, kept.runs)), kept.runs)
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2 or len(wanted) < 2:
        return
    # The largest first, so that none is begun when the others end.
    order = sorted(wanted, key=lambda key: -len(wanted[key]))
    tasks = [(maker.choices, key[1], wanted[key], enriched) for key in order]
    with ProcessPoolExecutor(min(cores, len(tasks)), mp_context=get_context("spawn")) as pool:
        for key, laws in zip(order, pool.map(_fitted, tasks), strict=True):
            maker.remember(*key, laws)


def _fitted(task: tuple[Choices, str, pd.DataFrame, bool]) -> Laws:
    """The laws of a table against a baseline, in a process of its own."""
    choices, baseline, runs, enriched = task
    laws = Maker(choices).laws("own", runs, baseline)
    return enrich(laws) if enriched else laws
