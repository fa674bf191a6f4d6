"""What would a search have found in runs that are all there? Rungs replayed on a table, rank and regret at its top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from structlin.search.arms import AXES
from structlin.search.measurements import Measured
from structlin.search.predictors import Forecast, forecast
from structlin.search.promotion import chosen, promote
from structlin.search.report import CONFIDENCE
from structlin.search.rungs import Ladder, counts_of

_ENOUGH = 0.9


@dataclass(frozen=True)
class Replayed:
    """A search on runs of which all is known."""

    steps: Ladder
    target: float
    rungs: tuple[Forecast, ...]
    measured: tuple[dict[int, float], ...]
    """Measured frontier of the arms of each rung."""
    truth: dict[int, float]
    """The same of all arms at the target."""
    chosen: int
    share: float
    """Compute of what the rungs used over that of all runs up to the last rung."""
    share_of_target: float
    """The same over all runs up to the target."""

    @property
    def rank(self) -> int:
        """Place of the chosen arm at the target; 1 is the best."""
        return sorted(self.truth, key=lambda arm: self.truth[arm]).index(self.chosen) + 1

    @property
    def regret(self) -> float:
        """Its loss over that of the best, less one."""
        return self.truth[self.chosen] / min(self.truth.values()) - 1

    def correlations(self) -> list[float]:
        """Spearman's correlation of what each rung foretold with the truth, over the arms of the rung."""
        return [_spearman(one.log_loss, np.array([self.truth[int(arm)] for arm in one.arms])) for one in self.rungs]

    def said(self, names: Sequence[str]) -> str:
        """One line."""
        orders = " ".join("    -" if np.isnan(one) else f"{one:5.2f}" for one in self.correlations())
        used = " ".join(one.predictor for one in self.rungs)
        return (
            f"{names[self.chosen]:<28} rank {self.rank} of {len(self.truth)}, regret {100 * self.regret:.2f}%, share "
            f"{100 * self.share:.0f}% ({100 * self.share_of_target:.0f}% of all at the target), order {orders} ({used})"
        )


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3:
        return float("nan")
    ranks = [np.argsort(np.argsort(one)).astype(float) for one in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def of_table(frame: pd.DataFrame) -> tuple[Measured, list[str]]:
    """The constant-rate evaluations after warm-up of this project's own table, and the names of its variants.

    What lies above the loss of a bigram model counts too, other than in laws: at a low rung some arms have no more.
    """
    kept = frame[(frame["schedule"] == "constant") & ~frame["in_warmup"].astype(bool) & np.isfinite(frame["val_loss"])]
    arm, names = pd.factorize(kept["variant"], sort=True)
    columns = ("macs_per_token", "tokens", "training_flops", "val_loss")
    numbers = [kept[name].to_numpy(float) for name in columns]
    return Measured(arm, pd.factorize(kept["run_id"], sort=True)[0], *numbers), list(map(str, names))


def top_of(measured: Measured) -> float:
    """The largest compute that nearly all arms reached."""
    tops = sorted(float(measured.flops[measured.arm == arm].max()) for arm in measured.arms)
    return tops[int((1 - _ENOUGH) * len(tops))]


def replayed(measured: Measured, eta: float, rungs: int, level: float, only: str = "") -> Replayed:
    """The search with the table's top as target and ``rungs`` rungs below it, an ``eta``-th apart."""
    target = top_of(measured)
    truth = measured.frontier(target)
    measured = measured.of(np.array(sorted(truth)))
    flops = tuple(target / eta ** (rungs - k) for k in range(rungs))
    steps = Ladder(counts_of(len(truth), eta, rungs), flops)
    arms, found, frontiers, ends = list(truth), [], [], dict.fromkeys(truth, 0.0)
    for k, one in enumerate(flops):
        ends.update(dict.fromkeys(arms, one))
        seen = measured.where(measured.flops <= 1.02 * np.array([ends[arm] for arm in measured.arm]))
        foretold = forecast(seen, one, target, eta, seed=k, only=only)
        found.append(foretold)
        frontiers.append(seen.frontier(one))
        if k + 1 < rungs:
            arms = list(promote(foretold, steps.counts[k + 1], level).stay)
    spent = sum(_spent(measured, arm, end) for arm, end in ends.items())
    share = spent / sum(_spent(measured, arm, flops[-1]) for arm in truth)
    whole = spent / sum(_spent(measured, arm, target) for arm in truth)
    return Replayed(steps, target, tuple(found), tuple(frontiers), truth, chosen(found[-1]), share, whole)


def _spent(measured: Measured, arm: int, flops: float) -> float:
    """Compute of all runs of an arm up to a compute each."""
    mine = measured.arm == arm
    ends = pd.Series(measured.flops[mine]).groupby(measured.run[mine]).max()
    return float(np.minimum(ends, flops).sum())


def record(
    found: Replayed, names: Sequence[str], places: Sequence[tuple[float, ...]], everything: float
) -> dict[str, Any]:
    """A replay as a search's record (report.py), as far as its pages ask: ``places`` are AXES of each arm."""
    rungs: list[dict[str, Any]] = []
    for k, one in enumerate(found.rungs):
        (low, high), best, ratios = one.interval(CONFIDENCE), one.best, one.ratios(CONFIDENCE)
        arms = [
            {"name": names[int(arm)], "measured": found.measured[k][int(arm)], "best": float(best[at]),
             "predicted": float(np.exp(one.log_loss[at])), "low": float(low[at]), "high": float(high[at]),
             "ratio": [float(values[at]) for values in ratios]}
            for at, arm in enumerate(one.arms)
        ]  # fmt: skip
        rungs.append({"rung": k, "flops": one.flops, "done": True, "predictor": one.predictor, "arms": arms})
    pairs = zip(names, places, strict=True)
    return {
        "target": found.target, "confidence": CONFIDENCE, "spent": found.share * everything,
        "everything": everything, "rungs": rungs,
        "winner": next(one for one in rungs[-1]["arms"] if one["name"] == names[found.chosen]),
        "arms": [{"name": name, **dict(zip(AXES, place, strict=True))} for name, place in pairs],
    }  # fmt: skip


def everything_of(measured: Measured, flops: float) -> float:
    """Compute of all runs up to a compute each."""
    return sum(_spent(measured, int(arm), flops) for arm in measured.arms)
