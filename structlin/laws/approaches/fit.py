"""What do the points say? All fits of one table, in order, with the cautions that belong to them.

    points -> frontier (1) -> isoFLOP (2) -> parametric (3) -> multipliers

``fit_laws`` never fails on thin data: what cannot be fitted is left out and a caution says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from structlin.laws.approaches import bias, frontier, hull, isoflop, multiplier, parametric
from structlin.laws.approaches.bias import Sweeps
from structlin.laws.approaches.frontier import FrontierLaw
from structlin.laws.approaches.isoflop import Isoflop, PowerLaw, Slice
from structlin.laws.approaches.multiplier import Multiplier
from structlin.laws.approaches.parametric import ParametricFit
from structlin.laws.caution import Caution
from structlin.laws.checked import Checked
from structlin.laws.choices import Choices
from structlin.laws.evaluations.points import Points
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import Draws, Interval, draw, widening

# What a fit learns from differences between runs (for the widening of its intervals): measured on synthetic sweeps,
# where these give the stated coverage; beta and the shape in C come from within the runs. See docs/laws.md.
BETWEEN = {"frontier": 1, "parametric": 3, "within": 0, "squares": 5, "isoflop": 2}
# Rows times replicates of one parametric bootstrap; more rows get fewer replicates. About 0.5 s on one core.
_WORK = 800_000
MIN_REPLICATES = 100
# Decrease of the objective that ends a replicate: 5e-4 of its standard error from the minimum, measured.
_REPLICATE = 1e-5
MIN_PARAMETRIC_ROWS = 6


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

    def factor_of(self, name: str) -> float:
        """Widening of the interval of a parameter."""
        return self.tokens_factor if name in ("B", "beta") else self.factor


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

    def warn(self, name: str, text: str, variant: str | None = None) -> None:
        """Add a caution."""
        self.cautions.append(Caution(name, text, variant))

    def factor(self, variant: str, fit: str) -> float:
        """Widening of the intervals of a fit (a key of BETWEEN) for the runs of a variant."""
        between = BETWEEN["squares" if fit == "parametric" and not self.choices.loss_function.robust else fit]
        return widening(len(self.draws[variant].runs), between, self.choices.confidence)

    def frontier_intervals(self, variant: str) -> dict[str, Interval]:
        """Intervals of E, A and a of a variant's frontier law."""
        return self.frontiers[variant].intervals(self.choices.confidence, self.factor(variant, "frontier"))

    def power_interval(self, variant: str, found: PowerLaw | Slice) -> Interval:
        """Interval of an exponent of approach 2, or of the optimum of one of its slices."""
        return found.interval(self.choices.confidence, self.factor(variant, "isoflop"))

    def effects(self, variant: str) -> Array:
        """Mean log residual of each run from L(N, D), (g,): its luck; zeros where that law could not be fitted."""
        draws, found = self.draws[variant], self.parametrics.get(variant)
        if found is None:
            return np.zeros(len(draws.runs))
        sums = np.bincount(draws.index, weights=-found.fit.residuals, minlength=len(draws.runs))
        return np.asarray(sums / np.bincount(draws.index, minlength=len(draws.runs)))


def fit_laws(points: Points, choices: Choices) -> Laws:
    """All fits of the points."""
    laws = Laws(points, choices, draw(points.frame, choices.bootstrap, choices.seed))
    laws.cautions.extend(points.cautions)
    for variant in points.variants:
        if {"N", "D"} <= set(points.frame.columns):
            _fit_parametric(laws, variant)
            _fit_isoflop(laws, variant)
        _fit_frontier(laws, variant)
    _fit_multipliers(laws)
    return laws


def _fit_frontier(laws: Laws, variant: str) -> None:
    """Approach 1 of one variant."""
    frame, choices = laws.points.of(variant), laws.choices
    flops, loss = frame["C"].to_numpy(), frame["L"].to_numpy()
    offset = choices.frontier_offset
    if offset is not None and offset >= loss.min():
        laws.warn("few_points", f"offset {offset} is not below the lowest loss {loss.min():.4g}; no frontier", variant)
        return
    tolerance = frontier.tolerance_for(flops, loss, choices)
    rows = hull.members(
        flops, loss, kind=choices.frontier, tolerance=tolerance, window=choices.window, offset=offset or 0.0
    )
    if not frontier.enough(flops, rows):
        laws.warn(
            "few_points", f"a frontier of {len(rows)} points; L = E + A C^-a needs {frontier.MIN_POINTS}", variant
        )
        return
    law = frontier.fit(flops, loss, rows, offset=offset, tolerance=tolerance)
    draws = laws.draws[variant]
    count = int(np.clip(_WORK // len(frame), MIN_REPLICATES, choices.bootstrap))
    law = frontier.resample(law, flops, loss, draws, laws.effects(variant), choices, count)
    law = replace(law, is_one_curve=len(set(draws.index[rows])) == 1)
    if variant in laws.sweeps:
        law = bias.frontier_errors(law, flops, frame["N"].to_numpy(float), laws.sweeps[variant], choices)
    laws.frontiers[variant] = law
    _frontier_warnings(laws, variant)


def _frontier_warnings(laws: Laws, variant: str) -> None:
    """Few runs, E at its bound, and a hull that is biased by more than its interval."""
    law, runs = laws.frontiers[variant], len(laws.draws[variant].runs)
    if runs < 5:
        laws.warn("few_runs", _few(runs), variant)
    if law.is_one_curve:
        laws.warn("one_curve", "its law describes how that run learns, not how losses fall with size", variant)
    if laws.choices.frontier_offset is None and law.E <= 1e-9:
        laws.warn("bound", "the frontier's E ended at 0: this range of compute shows no floor", variant)
    ends, better = laws.frontier_intervals(variant), law.corrected
    held = {name: ends[name].low <= getattr(law, name) <= ends[name].high for name in ("E", "a")}
    outside = [name for name in held if not held[name] and np.isfinite(ends[name].low)]
    if outside:
        text = ", ".join(f"{name} {getattr(law, name):.3g}, corrected {better[name]:.3g}" for name in outside)
        laws.warn("frontier_bias", text, variant)


def _few(runs: int) -> str:
    """What few runs mean for intervals."""
    if runs == 1:
        return "1 run: nothing says how much another would differ, so there are no intervals"
    return f"{runs} runs: intervals rest on few degrees of freedom"


def _fit_isoflop(laws: Laws, variant: str) -> None:
    """Approach 2 of one variant."""
    frame = laws.points.of(variant)
    if isoflop.models_of(frame).nunique() < isoflop.MIN_MODELS:
        count = isoflop.models_of(frame).nunique()
        laws.warn("one_width", f"{count} model size{'s' * (count > 1)}: no optimal size can be fitted", variant)
        return
    found = isoflop.fit(frame, laws.draws[variant], list(laws.choices.budgets) or None)
    if not found.slices:
        laws.warn("few_budgets", "no budget at which three model sizes can be compared", variant)
        return
    if variant in laws.sweeps:
        found = bias.isoflop_errors(found, laws.sweeps[variant])
    laws.isoflops[variant] = found
    edges = [(s.budget, s.edge) for s in found.slices if s.edge]
    if edges:
        text = ", ".join(f"{budget:.3g} ({edge})" for budget, edge in edges[:4]) + ", ..." * (len(edges) > 4)
        laws.warn(
            "edge_of_grid",
            f"best run at the edge of the sizes at {len(edges)} of {len(found.slices)} budgets: {text}",
            variant,
        )
    inside = len(found.slices) - len(edges)
    if inside < 5:
        laws.warn("few_budgets", f"{inside} budgets have an optimum inside their grid; five carry an exponent", variant)


def _fit_parametric(laws: Laws, variant: str) -> None:
    """Approach 3 of one variant."""
    frame, choices = laws.points.of(variant), laws.choices
    size, tokens, loss = (frame[name].to_numpy(dtype=float) for name in ("N", "D", "L"))
    sizes = len(np.unique(np.round(np.log(size), 4)))
    if len(frame) < MIN_PARAMETRIC_ROWS or sizes < 2 or np.ptp(np.log(tokens)) < 1e-3:
        laws.warn("few_points", f"{len(frame)} rows, {sizes} sizes: too little for L(N, D)", variant)
        return
    objective = choices.loss_function
    pinned = choices.pinned
    if pinned is not None and pinned >= loss.min():
        laws.warn("bound", f"E = {pinned} is not below the lowest loss {loss.min():.4g}; L(N, D) left out", variant)
        return
    fitted = parametric.fit(size, tokens, loss, objective, form=choices.form, pinned=pinned)
    draws = laws.draws[variant]
    count = int(np.clip(_WORK // len(frame), MIN_REPLICATES, choices.bootstrap))
    rows = draws.rows[:count]
    theta = parametric.refit(fitted, size, tokens, loss, objective, rows, pinned, tolerance=_REPLICATE)
    samples = parametric.samples_of(theta, fitted.centre)
    several = len(frame) >= 3 * len(draws.runs)
    factors = (laws.factor(variant, "parametric"), laws.factor(variant, "within" if several else "parametric"))
    laws.parametrics[variant] = Parametric(fitted, samples, *factors)
    sweeps = bias.draw_sweeps(frame, fitted, draws, choices)
    if sweeps is not None:
        laws.sweeps[variant] = sweeps
    if not fitted.converged:
        laws.warn("not_converged", f"L(N, D): gradient norm {fitted.gradient_norm:.2g} at the best point", variant)
    at_bound = [
        name for name, gap in fitted.bound_distance.items() if gap < 1e-6 and not (name == "E" and pinned is not None)
    ]
    if at_bound:
        laws.warn("bound", f"L(N, D): {', '.join(at_bound)} ended at a bound", variant)
    if fitted.condition > 1e4:
        laws.warn("ill_conditioned", f"L(N, D): condition number {fitted.condition:.2g}", variant)


def _fit_multipliers(laws: Laws) -> None:
    """Every variant against the baseline, in FLOPs."""
    variants = list(laws.frontiers)
    if len(laws.points.variants) < 2:
        return
    if laws.choices.baseline not in laws.points.variants:
        names = ", ".join(laws.points.variants)
        laws.warn(
            "no_baseline", f"no runs of '{laws.choices.baseline}'; multipliers need a baseline: baseline=... of {names}"
        )
        return
    if laws.choices.baseline not in laws.frontiers:
        laws.warn("no_baseline", f"the baseline '{laws.choices.baseline}' has too few points for a frontier")
        return
    laws.baseline = laws.choices.baseline
    base = laws.frontiers[laws.baseline]
    for variant in variants:
        if variant == laws.baseline:
            continue
        law, frame = laws.frontiers[variant], laws.points.of(variant)
        observed = (frame["C"].to_numpy()[law.members], frame["L"].to_numpy()[law.members])
        factor = max(laws.factor(variant, "frontier"), laws.factor(laws.baseline, "frontier"))
        found = multiplier.compare(
            variant, law, observed, laws.baseline, base,
            confidence=laws.choices.confidence, factor=factor, procedure=laws.choices.procedure,
        )  # fmt: skip
        if found is None:
            laws.warn("no_overlap", f"its losses do not overlap with those of {laws.baseline}", variant)
        else:
            laws.multipliers[variant] = found
