"""What will a model of more compute reach? Loss, size, tokens, width and multiplier at a compute or for a loss.

The compute-optimal loss is that of L(N, D) in the form that foretold best, or of the frontier where there is no such
law. Its interval joins three errors: that of the parameters over resampled runs, what the backtest saw, which grows
with how far the prediction reaches in units of how far the backtest did, and the luck of the run that will be measured.
Where no law could be fitted below the top decade nothing says how far off a prediction is, and it has no interval.

A prediction is {variant, flops, loss, params, tokens, width, interval: {loss: {low, high}, ...}, multiplier, law,
reach}, null where it is not known; ``reach`` is the compute over the largest measured, ``multiplier``
C_baseline(L) / C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from structlin.errors import UserError, suggest
from structlin.laws.approaches import forms, frontier, hull
from structlin.laws.approaches.laws import Laws
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import NO_INTERVAL, Interval, interval
from structlin.laws.sampling.quantiles import normal_quantile

Entry = dict[str, Any]
# From a mean absolute error to a standard deviation, and the least share of the backtest's error that any claim has.
_TO_SPREAD, _LEAST = 1.25, 0.5


@dataclass(frozen=True)
class _Curve:
    """The compute-optimal loss of a variant: L = E + K C^-a, and its replicates (b,)."""

    law: str
    values: tuple[float, float, float]
    replicates: tuple[Array, Array, Array]
    factor: float

    def loss(self, flops: float) -> float:
        """L at a compute."""
        return float(_loss(self.values, flops))

    def flops(self, loss: float) -> float:
        """C for a loss; infinite at or below E."""
        return float(_flops(self.values, loss))


def _loss(values: tuple[Any, Any, Any], flops: Any) -> Any:
    floor, log_k, a = values
    with np.errstate(over="ignore"):
        return floor + np.exp(log_k - a * np.log(flops))


def _flops(values: tuple[Any, Any, Any], loss: Any) -> Any:
    floor, log_k, a = values
    with np.errstate(all="ignore"):
        answer = np.exp((log_k - np.log(loss - floor)) / a)
    return np.where(loss > floor, answer, np.inf)


def _per(laws: Laws, variant: str) -> float:
    """FLOPs per N D of a variant's rows."""
    frame = laws.points.of(variant)
    return float(np.median(frame["C"] / (frame["N"] * frame["D"])))


def _curve(laws: Laws, variant: str) -> _Curve | None:
    """L(N, D) along its optimum where it has one and N and D are told apart, else the frontier's law."""
    three, one = laws.parametrics.get(variant), laws.frontiers.get(variant)
    if three is not None and three.fit.has_no_optimum:
        three = None
    apart = three is not None and not {"few_sizes", "tokens_proportional"} & {
        caution.name for caution in laws.cautions if caution.variant == variant
    }
    if three is not None and (apart or one is None):
        per = _per(laws, variant)
        at = 1e18
        found = []
        for law in (three.fit.law, three.laws):
            with np.errstate(all="ignore"):
                slope = np.asarray(law.compute_exponent, float)
                constant = np.log(law.frontier(at, per) - law.E) + slope * np.log(at)
            found.append((np.asarray(law.E, float), constant, slope))
        (floor, constant, slope), replicates = found
        if np.isfinite([floor, constant, slope]).all() and slope > 0:
            return _Curve("parametric", (float(floor), float(constant), float(slope)), replicates, three.factor)
    if one is None:
        return None
    theta = one.replicates
    values = (one.E, float(one.theta[1] + one.theta[2] * one.centre), one.a)
    if not one.a > 0:
        return None
    replicates = (theta[:, 0], theta[:, 1] + theta[:, 2] * one.centre, theta[:, 2])
    return _Curve("frontier", values, replicates, laws.factor(variant, "frontier"))


def predict(
    laws: Laws,
    flops: Sequence[float] = (),
    losses: Sequence[float] = (),
    variants: Sequence[str] | None = None,
) -> list[Entry]:
    """Predictions of every variant at computes (FLOPs) and for losses (nats). UserError for values that are none."""
    known = laws.points.variants
    for variant in variants or ():
        if variant not in known:
            raise UserError(f"there is no variant '{variant}'; {suggest(variant, known)}")
    for name, values in (("flops", flops), ("loss", losses)):
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
                raise UserError(f"{name} = {value!r}: a prediction needs a positive, finite number")
    curves = {variant: _curve(laws, variant) for variant in known}
    wanted = [("flops", float(value)) for value in flops] + [("loss", float(value)) for value in losses]
    return [_one(laws, curves, variant, *what) for what in wanted for variant in variants or known]


def _one(laws: Laws, curves: dict[str, _Curve | None], variant: str, given: str, value: float) -> Entry:
    curve = curves[variant]
    entry: Entry = {
        "variant": variant, "flops": None, "loss": None, "params": None, "tokens": None, "width": None,
        "interval": None, "multiplier": None, "law": None, "reach": None,
    }  # fmt: skip
    entry[given] = value
    if curve is None:
        return entry
    flops = value if given == "flops" else curve.flops(value)
    if not np.isfinite(flops):
        return entry | {"law": curve.law}
    top = float(laws.points.of(variant)["C"].max())
    ends: dict[str, Interval] = {}
    loss = curve.loss(flops) if given == "flops" else value
    entry |= {"flops": flops, "loss": loss, "law": curve.law, "reach": flops / top}
    beyond = _beyond(laws, variant, flops / top, curve.law)
    ends["loss"] = _ends(laws, loss, _loss(curve.replicates, flops), curve.factor, beyond, log=True)
    if given == "loss":
        spread = beyond / max(curve.values[2] * (1.0 - curve.values[0] / loss), 1e-9)
        ends["flops"] = _ends(laws, flops, _flops(curve.replicates, loss), curve.factor, spread, log=True)
    _optimum(laws, variant, flops, entry, ends)
    base = curves.get(laws.baseline or "")
    if base is not None and laws.baseline is not None:
        entry["multiplier"] = _multiplier(laws, (curve, base), variant, flops, ends)
    silent = {name: _is_silent(laws, variant) for name in ends}
    if "multiplier" in ends and laws.baseline is not None:
        silent["multiplier"] |= _is_silent(laws, laws.baseline)
    entry["interval"] = {name: None if silent[name] else one.record() for name, one in ends.items()}
    return entry


def _is_silent(laws: Laws, variant: str) -> bool:
    """Whether intervals of a variant are not said."""
    return laws.withholds(variant, "multiplier") or len(laws.draws[variant].runs) < 3


def _beyond(laws: Laws, variant: str, reach: float, law: str) -> float:
    """Half of the interval, in log loss, of what the parameters do not know at ``reach`` beyond the data.

    The backtest's error and the noise of one run; NaN where neither L(N, D) nor the frontier was held against a future.
    """
    found, frame = laws.parametrics.get(variant), laws.points.of(variant)
    flops = frame["C"].to_numpy(float)
    cut = forms.cuts_of(flops)[0]
    held = None if found is None or law == "frontier" else found.choice.held[found.choice.form].error
    if held is None:
        held = _frontier_error(laws, variant, cut)
    share = max(_LEAST, np.log(max(reach, 1.0)) / max(float(np.log(flops.max() / cut)), 1e-9))
    noise = float(np.std(laws.effects(variant)))
    return float(normal_quantile(0.5 + 0.5 * laws.choices.confidence) * np.hypot(_TO_SPREAD * held * share, noise))


def _frontier_error(laws: Laws, variant: str, cut: float) -> float:
    """Mean absolute log error above a compute of the frontier's law below it; NaN where one of the two is missing."""
    law, frame, choices = laws.frontiers.get(variant), laws.points.of(variant), laws.choices
    flops, loss = frame["C"].to_numpy(float), frame["L"].to_numpy(float)
    past = flops <= cut
    if law is None or not past.any() or not (flops[law.members] > cut).any():
        return float("nan")
    offset = choices.frontier_offset
    rows = hull.members(
        flops[past], loss[past], kind=choices.frontier, tolerance=law.tolerance, window=choices.window,
        offset=offset or 0.0,
    )  # fmt: skip
    if not frontier.enough(flops[past], rows):
        return float("nan")
    early = frontier.fit(flops[past], loss[past], rows, offset=offset, tolerance=law.tolerance)
    future = law.members[flops[law.members] > cut]
    return float(np.mean(np.abs(np.log(early.loss(flops[future]) / loss[future]))))


def _ends(laws: Laws, value: float, samples: Array, factor: float, beyond: float, *, log: bool = False) -> Interval:
    """Percentiles of replicates, widened by an error that they do not know (in logarithms)."""
    ends = interval(np.asarray(samples), value, laws.choices.confidence, factor, log=log)
    if not (np.isfinite(ends.low) and ends.low > 0 and value > 0 and np.isfinite(beyond)):
        return NO_INTERVAL
    low = np.hypot(np.log(value / ends.low), beyond) if ends.low < value else beyond
    high = np.hypot(np.log(max(ends.high, value) / value), beyond)
    return Interval(float(value * np.exp(-low)), float(value * np.exp(min(high, 700.0))))


def _optimum(laws: Laws, variant: str, flops: float, entry: Entry, ends: dict[str, Interval]) -> None:
    """Size, tokens and width at a compute, where L(N, D) tells N and D apart."""
    three = laws.parametrics.get(variant)
    if three is None or entry["law"] != "parametric":
        return
    per = _per(laws, variant)
    size, tokens = (float(value) for value in three.fit.law.optimum(flops, per))
    entry |= {"params": size, "tokens": tokens}
    sizes, many = three.laws.optimum(flops, per)
    stated = not laws.withholds(variant, "parametric")
    for name, value, samples in (("params", size, sizes), ("tokens", tokens, many)):
        ends[name] = (
            interval(samples, value, laws.choices.confidence, three.factor, log=True) if stated else NO_INTERVAL
        )
    slope = _width_law(laws, variant)
    if slope is not None:
        entry["width"] = float(np.exp(slope[1] + slope[0] * np.log(size)))
        low, high = ((slope[1] + slope[0] * np.log(end)) for end in (ends["params"].low, ends["params"].high))
        ends["width"] = Interval(float(np.exp(low)), float(np.exp(high)))


def _width_law(laws: Laws, variant: str) -> tuple[float, float] | None:
    """(slope, constant) of log width in log N through the sizes that were trained; None where widths are not known."""
    frame = laws.points.of(variant)
    width, size = frame["width"].to_numpy(float), frame["N"].to_numpy(float)
    known = np.isfinite(width) & (width > 0)
    if len(np.unique(size[known])) < 2:
        return None
    slope, constant = np.polyfit(np.log(size[known]), np.log(width[known]), 1)
    return float(slope), float(constant)


def _multiplier(
    laws: Laws, curves: tuple[_Curve, _Curve], variant: str, flops: float, ends: dict[str, Interval]
) -> float | None:
    """C_baseline at the predicted loss over C, by both laws."""
    curve, base = curves
    if variant == laws.baseline:
        return 1.0
    value = base.flops(curve.loss(flops)) / flops
    if not np.isfinite(value):
        return None
    count = min(len(curve.replicates[0]), len(base.replicates[0]))
    mine, theirs = (tuple(part[:count] for part in one.replicates) for one in (curve, base))
    with np.errstate(all="ignore"):
        samples = _flops(theirs, _loss(mine, flops)) / flops  # type: ignore[arg-type]
    ends["multiplier"] = interval(samples, value, laws.choices.confidence, max(curve.factor, base.factor), log=True)
    return value


def at(laws: Laws, params: float, tokens: float, variants: Sequence[str] | None = None) -> list[Entry]:
    """The loss of a model of ``params`` trained on ``tokens``, by L(N, D) of every variant that has one."""
    for name, value in (("params", params), ("tokens", tokens)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
            raise UserError(f"{name} = {value!r}: a prediction needs a positive, finite number")
    found = []
    for variant in variants or laws.points.variants:
        three = laws.parametrics.get(variant)
        if three is None:
            continue
        loss = float(three.fit.law.loss(params, tokens))
        per = _per(laws, variant)
        flops = per * params * tokens
        reach = flops / float(laws.points.of(variant)["C"].max())
        samples = three.laws.loss(params, tokens)
        beyond = _beyond(laws, variant, reach, "parametric")
        ends = _ends(laws, loss, samples, three.factor, beyond, log=True)
        found.append(
            {"variant": variant, "flops": flops, "loss": loss, "params": params, "tokens": tokens, "width": None,
             "interval": {"loss": None if _is_silent(laws, variant) else ends.record()}, "multiplier": None,
             "law": "parametric", "reach": reach}
        )  # fmt: skip
    return found
