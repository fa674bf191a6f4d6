"""What does a search foretell that later runs can be held against? Losses of its last arms at the target and beyond.

    runs/searches/NAME.json    "forecast": the losses, and all of what follows
    forecasts/NAME.json        the same in the form of laws/forecasts.py: python fit_laws.py score=forecasts/NAME.json

The losses are those of the joint law of all that was measured. Their intervals join four errors: that of its
parameters; what the backtest saw between arms, and what the law of all but the last rung was off by for all arms
alike, both in proportion to the reach in log compute; and the luck of the run that will be measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from structlin.errors import UserError
from structlin.laws import forecasts
from structlin.laws.minimum.objective import Array
from structlin.search import jointly
from structlin.search.course import Course
from structlin.search.predictors import DRAWS

Entry = dict[str, Any]
BEYOND = 10.0
"""A search foretells the target, and so many times it."""


def joint_of(course: Course) -> jointly.Joint | None:
    """The law of all arms by all that was measured: of the last predictor, or the pooled one where that is none."""
    last = course.rungs[-1].forecast
    measured = course.measured
    if measured is None or last is None or len(measured.arms) < 2:
        return None
    if len(np.unique(np.round(np.log(measured.size), 3))) < 3:
        return None
    return jointly.fit(measured, last.predictor if last.predictor in jointly.KINDS else "pooled")


def foretold(course: Course, names: Sequence[str], confidence: float) -> Entry | None:
    """The forecast of a search that is over; None before, and where no law could be fitted.

    {"flops", "law", "arms": {name: {"loss", "low", "high"}}, "predictions": [...], "data": {...}}: ``arms`` at BEYOND
    times the target, ``predictions`` and ``data`` as laws/forecasts.py keeps them, at the target too.
    """
    joint = joint_of(course) if course.is_over else None
    if joint is None or course.measured is None:
        return None
    known = [number for number in course.rungs[-1].arms if number in joint.arms]
    flops = (course.search.target, BEYOND * course.search.target)
    found = {one: _losses(course, joint, one, known, confidence) for one in flops}
    predictions = [
        {"variant": course.arms[number].name, "flops": one, "loss": loss,
         "interval": {"loss": {"low": low, "high": high}}, "law": joint.kind, "reach": one / course.steps.top}
        for one in flops
        for number, (loss, low, high) in zip(known, found[one], strict=True)
    ]  # fmt: skip
    arms = {
        names[number]: dict(zip(("loss", "low", "high"), ends, strict=True))
        for number, ends in zip(known, found[flops[-1]], strict=True)
    }
    return {"flops": flops[-1], "law": joint.kind, "arms": arms, "predictions": predictions,
            "data": forecasts.data_of(_frame(course))}  # fmt: skip


def keep(found: Entry, name: str, folder: Path | None = None) -> Path | None:
    """Write the forecast of a search's record, once; None where it has none.

    One that stands is never written anew: a search that went on with more budget leaves another, NAME-2.
    """
    forecast = found["forecast"]
    if forecast is None:
        return None
    folder = forecasts.FOLDER if folder is None else folder
    for number in count(1):
        path = folder / (f"{name}.json" if number == 1 else f"{name}-{number}.json")
        if not path.exists():
            law = {"kind": forecast["law"], "search": name, "command": found["command"]}
            forecasts.write(path, forecast["data"], found["confidence"], law, forecast["predictions"])
            return path
        if _is_of(path, forecast["data"]["hash"]):
            return path
    raise AssertionError


def _is_of(path: Path, data: str) -> bool:
    try:
        return bool(forecasts.read(path).get("data", {}).get("hash") == data)
    except UserError:
        return False


def _losses(
    course: Course, joint: jointly.Joint, flops: float, known: Sequence[int], confidence: float
) -> list[tuple[float, float, float]]:
    """Loss at a compute and the ends of its interval, for each of the known arms."""
    places, generator = np.searchsorted(joint.arms, known), np.random.default_rng(0)
    draws = joint.draws(flops, DRAWS, generator)[:, places]
    spread = _spread(course, joint, flops)
    draws = draws + spread.common * generator.standard_normal((DRAWS, 1))
    draws = draws + spread.each * generator.standard_normal(draws.shape)
    tail = 0.5 - 0.5 * confidence
    low, high = np.exp(np.quantile(draws, [tail, 1 - tail], axis=0))
    value = np.exp(joint.log_loss(flops)[places])
    return [(float(value[k]), float(low[k]), float(high[k])) for k in range(len(known))]


@dataclass(frozen=True)
class _Spread:
    """Standard deviations of log loss beyond that of the law's parameters."""

    common: float
    """Of all arms together."""
    each: float


def _spread(course: Course, joint: jointly.Joint, flops: float) -> _Spread:
    rung, eta = course.rungs[-1].forecast, course.search.eta
    assert rung is not None
    steps, known = (max(math.log(one / rung.flops) / math.log(eta), 0.0) for one in (flops, course.search.target))
    scored = rung.scores.get(joint.kind)
    between = 0.0 if scored is None or not known else scored.misfit * steps / known
    return _Spread(steps * abs(_off(course, joint.kind)), math.hypot(between, joint.spread.run))


def _off(course: Course, kind: str) -> float:
    """Mean log error, over arms, of the law without the last rung at that rung; 0 where there is no such law."""
    assert course.measured is not None
    top = course.rungs[-1].flops
    truth, known = course.measured.frontier(top), course.measured.below(top / course.search.eta)
    arms = [arm for arm in truth if arm in known.arms]
    if len(known.arms) < 2 or not arms or len(np.unique(np.round(np.log(known.size), 3))) < 3:
        return 0.0
    joint = jointly.fit(known, kind)
    at: Array = joint.log_loss(top)[np.searchsorted(joint.arms, arms)]
    return float(np.mean(at - np.log([truth[arm] for arm in arms])))


def _frame(course: Course) -> pd.DataFrame:
    """What was measured, as laws name it."""
    seen = course.measured
    assert seen is not None
    names = [course.arms[number].name for number in seen.arm]
    return pd.DataFrame(
        {"variant": names, "run": seen.run, "N": seen.size, "D": seen.tokens, "C": seen.flops, "L": seen.loss}
    )
