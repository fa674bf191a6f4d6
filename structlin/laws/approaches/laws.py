"""What is known after the fits: the laws of every variant, their intervals, and what the data do not let us say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from structlin.laws.approaches import repeats
from structlin.laws.approaches.bias import Sweeps
from structlin.laws.approaches.forms import Choice
from structlin.laws.approaches.frontier import FrontierLaw
from structlin.laws.approaches.isoflop import Isoflop, PowerLaw, Slice
from structlin.laws.approaches.multiplier import Multiplier
from structlin.laws.approaches.parametric import ParametricFit, ParametricLaw
from structlin.laws.caution import Caution
from structlin.laws.checked import Checked
from structlin.laws.choices import Choices
from structlin.laws.evaluations.points import Points
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import NO_INTERVAL, Draws, Interval, interval, widening

# What a fit learns from differences between runs (for the widening of its intervals): measured on synthetic sweeps,
# where these give the stated coverage; beta and the shape in C come from within the runs. See docs/laws.md.
BETWEEN = {"frontier": 1, "parametric": 3, "within": 0, "squares": 5, "isoflop": 2, "multiplier": 2}
# What may be withheld: intervals of L(N, D), of the frontier and of the optima; the correction; E; all of approach 2;
# intervals of the multipliers.
LAW = ("parametric", "frontier", "isoflop", "correction")
THIN = (*LAW, "floor", "optima")


@dataclass(frozen=True)
class Parametric:
    """A parametric fit with its replicates."""

    fit: ParametricFit
    """The law and its certificate."""
    samples: dict[str, Array]
    """Replicates of each parameter, (b,)."""
    factor: float
    """Widening of its intervals for the number of runs."""
    tokens_factor: float
    """The same for B and beta, which several evaluations of one run already tell."""
    choice: Choice
    """Every form, and why this one."""
    repeat: float | None = None
    """Epochs after which repeated tokens are worth 1/e of fresh ones (arXiv 2305.16264); None without repetition."""
    repeat_interval: Interval | None = None
    """Interval of that number."""

    def factor_of(self, name: str) -> float:
        """Widening of the interval of a parameter."""
        return self.tokens_factor if name in ("B", "beta") else self.factor

    @property
    def laws(self) -> ParametricLaw:
        """All replicates as one batch: a law whose fields are (b,)."""
        columns: list[Any] = [self.samples[one.name] for one in fields(ParametricLaw)]
        return ParametricLaw(*columns)

    @property
    def additive(self) -> ParametricFit:
        """The additive law of the same rows, whichever form was chosen."""
        return self.choice.fits["additive"]


@dataclass
class Laws:
    """Everything fitted to one set of points."""

    points: Points
    """What was fitted."""
    choices: Choices
    """How."""
    draws: dict[str, Draws]
    """Run weights of every variant."""
    frontiers: dict[str, FrontierLaw] = field(default_factory=dict)
    """Approach 1 by variant."""
    sweeps: dict[str, Sweeps] = field(default_factory=dict)
    """Sweeps drawn from L(N, D) by variant, for the errors of approaches 1 and 2."""
    isoflops: dict[str, Isoflop] = field(default_factory=dict)
    """Approach 2 by variant."""
    parametrics: dict[str, Parametric] = field(default_factory=dict)
    """Approach 3 by variant."""
    multipliers: dict[str, Multiplier] = field(default_factory=dict)
    """Against the baseline, by variant, in FLOPs."""
    baseline: str | None = None
    """The variant multipliers compare with; None when there is nothing to compare."""
    cautions: list[Caution] = field(default_factory=list)
    """Warnings, in the order they came up."""
    checked: Checked = field(default_factory=Checked)
    """What the laws say about each other."""
    withheld: dict[str, set[str]] = field(default_factory=dict)
    """What is not said of a variant, of THIN and ``multiplier``, because the data do not carry it."""
    uncorrected: dict[str, str] = field(default_factory=dict)
    """Why the correction of a frontier is not believed, by variant."""
    scales: dict[str, Array] = field(default_factory=dict)
    """Noise of each run over the mean noise, (g,), where seeds of several sizes measured it."""

    def __repr__(self) -> str:
        fits: dict[str, list[str]] = {
            "frontier": list(self.frontiers),
            "isoFLOP": list(self.isoflops),
            "L(N, D)": list(self.parametrics),
            "multiplier": list(self.multipliers),
        }
        found = "; ".join(f"{name}: {', '.join(of)}" for name, of in fits.items() if of) or "nothing could be fitted"
        rows, runs = len(self.points.frame), self.points.frame["run"].nunique()
        return f"Laws({rows} evaluations of {runs} runs; {found}; {len(self.cautions)} cautions)"

    def predict(
        self,
        flops: float | Sequence[float] | None = None,
        *,
        loss: float | Sequence[float] | None = None,
        params: float | None = None,
        tokens: float | None = None,
        variant: str | None = None,
    ) -> list[dict[str, Any]]:
        """Predictions at computes (FLOPs), for losses (nats), or of one model size and number of tokens.

        A list of {variant, flops, loss, params, tokens, width, interval, multiplier, ...} as in laws.json, one a
        variant and value. ValueError in one line for a value that is no positive number or an unknown variant.
        """
        from structlin.laws import answers

        return answers.predict(self, flops, loss, params, tokens, variant)

    def compare(self, variant: str, baseline: str | None = None) -> dict[str, Any]:
        """The multiplier of a variant against the baseline, with its curve, interval and verdict, as in laws.json."""
        from structlin.laws import answers

        return answers.compare(self, variant, baseline)

    def verdict(self, variant: str | None = None) -> Any:
        """One sentence on a variant; without a name all of them, by variant."""
        from structlin.laws import answers

        return answers.verdict(self, variant)

    def to_frame(self) -> pd.DataFrame:
        """One row a variant: range, frontier, L(N, D), form, multiplier, verdict; NaN where withheld."""
        from structlin.laws import answers

        return answers.to_frame(self)

    def plot(self, path: str | None = None) -> Any:
        """The frontiers as a matplotlib Figure, also written to ``path`` (.png, .pdf or .svg) where one is given."""
        from structlin.laws import answers

        return answers.plot(self, path)

    def warn(self, name: str, text: str, variant: str | None = None) -> None:
        """Add a caution."""
        self.cautions.append(Caution(name, text, variant))

    def withhold(self, variant: str, *parts: str) -> None:
        """Say no more about these parts of a variant."""
        self.withheld.setdefault(variant, set()).update(parts)

    def withholds(self, variant: str, part: str) -> bool:
        """Whether a part of a variant is not said."""
        return part in self.withheld.get(variant, ())

    def tokens(self, variant: str) -> Array:
        """D of every row as L(N, D) takes it: repeated tokens at what they are worth, (n,)."""
        frame, found = self.points.of(variant), self.parametrics.get(variant)
        return repeats.effective(frame, found.repeat if found else None)

    def row_weights(self, variant: str) -> Array:
        """Weights of the rows in L(N, D): the inverse of the measured noise of their size, (n,)."""
        draws = self.draws[variant]
        if variant not in self.scales:
            return np.ones(len(draws.index))
        power = 1.0 if self.choices.loss_function.robust else 2.0
        return np.asarray(self.scales[variant][draws.index] ** -power)

    def factor(self, variant: str, fit: str) -> float:
        """Widening of the intervals of a fit (a key of BETWEEN) for the runs of a variant."""
        between = BETWEEN["squares" if fit == "parametric" and not self.choices.loss_function.robust else fit]
        return widening(len(self.draws[variant].runs), between, self.choices.confidence)

    def frontier_intervals(self, variant: str) -> dict[str, Interval]:
        """Intervals of E, A and a of a variant's frontier law; NaN where they are withheld."""
        if self.withholds(variant, "frontier"):
            return dict.fromkeys(("E", "A", "a"), NO_INTERVAL)
        return self.frontiers[variant].intervals(self.choices.confidence, self.factor(variant, "frontier"))

    def power_interval(self, variant: str, found: PowerLaw | Slice) -> Interval:
        """Interval of an exponent of approach 2, or of the optimum of one of its slices; NaN where withheld."""
        if self.withholds(variant, "isoflop"):
            return NO_INTERVAL
        return found.interval(self.choices.confidence, self.factor(variant, "isoflop"))

    def parametric_interval(self, variant: str, name: str) -> Interval:
        """Interval of a parameter or exponent of L(N, D); NaN where it is withheld."""
        if self.withholds(variant, "parametric"):
            return NO_INTERVAL
        found = self.parametrics[variant]
        log = name in ("A", "B")
        value = float(getattr(found.fit.law, name))
        ends = interval(found.samples[name], value, self.choices.confidence, found.factor_of(name), log=log)
        return ends if log or name == "kappa" else Interval(max(ends.low, 0.0), max(ends.high, 0.0))

    def corrected(self, variant: str) -> dict[str, float] | None:
        """E, A and a of the frontier with their bias taken off; None where nothing better than the hull is known."""
        law = self.frontiers[variant]
        return None if self.withholds(variant, "correction") or not len(law.errors) else law.corrected

    def effects(self, variant: str) -> Array:
        """Mean log residual of each run from L(N, D), (g,): its luck; zeros where that law could not be fitted."""
        draws, found = self.draws[variant], self.parametrics.get(variant)
        if found is None:
            return np.zeros(len(draws.runs))
        sums = np.bincount(draws.index, weights=-found.fit.residuals, minlength=len(draws.runs))
        return np.asarray(sums / np.bincount(draws.index, minlength=len(draws.runs)))
