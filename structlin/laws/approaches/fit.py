"""What do the points say? All fits of one table, in order, with the cautions that belong to them.

    points -> frontier (1) -> isoFLOP (2) -> parametric (3) -> multipliers

``fit_laws`` never fails on thin data: what cannot be fitted is left out and a caution says why.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from structlin.laws.approaches import (
    bias,
    forms,
    frontier,
    hull,
    isoflop,
    misfit,
    multiplier,
    parametric,
    repeats,
    seeds,
)
from structlin.laws.approaches.forms import Choice
from structlin.laws.approaches.laws import LAW, THIN, Laws, Parametric
from structlin.laws.approaches.parametric import ParametricFit
from structlin.laws.choices import Choices
from structlin.laws.evaluations.points import Points
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import NO_INTERVAL, draw

# Rows times replicates of one parametric bootstrap; more rows get fewer replicates. About 0.5 s on one core.
_WORK = 800_000
MIN_REPLICATES = 100
# Decrease of the objective that ends a replicate: 5e-4 of its standard error from the minimum, measured.
_REPLICATE = 1e-5
MIN_PARAMETRIC_ROWS = 6
# Below so many decades of compute, or runs, a floor, an optimum and a corrected exponent say more than was measured.
MIN_DECADES, MIN_RUNS = 2.0, 5
# Share of log D's variance that N leaves, below which alpha and beta are one number.
PROPORTIONAL = 0.02


def fit_laws(points: Points, choices: Choices) -> Laws:
    """All fits of the points."""
    laws = Laws(points, choices, draw(points.frame, choices.bootstrap, choices.seed))
    laws.cautions.extend(points.cautions)
    for variant in points.variants:
        _thin_data(laws, variant)
        if {"N", "D"} <= set(points.frame.columns):
            _fit_parametric(laws, variant)
            _fit_isoflop(laws, variant)
        _fit_frontier(laws, variant)
    _fit_multipliers(laws)
    return laws


def _thin_data(laws: Laws, variant: str) -> None:
    """Less than two decades of compute or few runs: multipliers alone, no E, no optima, no corrected exponents."""
    flops, runs = laws.points.of(variant)["C"].to_numpy(float), len(laws.draws[variant].runs)
    decades = float(np.log10(flops.max() / flops.min()))
    if decades < MIN_DECADES - 0.01:
        laws.warn("short_range", f"{decades:.1f} decades of compute: no E, no optima, no corrected exponents", variant)
        laws.withhold(variant, *THIN)
    if runs < MIN_RUNS:
        laws.warn("few_runs", _few(runs), variant)
        laws.withhold(variant, *THIN)


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
    else:
        laws.withhold(variant, "frontier", "correction")
    laws.frontiers[variant] = law
    _judge_correction(laws, variant)
    _frontier_warnings(laws, variant)


def _judge_correction(laws: Laws, variant: str) -> None:
    """Drop a correction that leaves both the hull and L(N, D), or that foretold the top decade worse than the hull."""
    if laws.withholds(variant, "correction") or variant not in laws.sweeps:
        return
    law = laws.frontiers[variant]
    why = bias.implausible(law, laws.sweeps[variant])
    if why:
        # Where the centre of the interval is not believed, its ends are not either.
        laws.withhold(variant, "frontier")
        laws.warn("frontier_bias", f"no corrected exponents: {why}", variant)
    else:
        choice, early = laws.parametrics[variant].choice, laws.parametrics[variant].choice.early
        if early is not None:
            errors = bias.foretold(law, laws.points.of(variant), early, choice.cuts[0], laws.choices)
            if errors is not None and errors[1] > errors[0]:
                why = f"below {choice.cuts[0]:.2g} FLOPs it foretold the rest to {100 * errors[1]:.2g}%"
                why += f", the hull to {100 * errors[0]:.2g}%"
    if why:
        laws.uncorrected[variant] = why
        laws.withhold(variant, "correction")


def _frontier_warnings(laws: Laws, variant: str) -> None:
    """Few runs, E at its bound, and a hull that is biased by more than its interval."""
    law = laws.frontiers[variant]
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
    for name, power in (("parabolas", found.size), ("splines", found.akima)):
        ends = laws.power_interval(variant, power) if power is not None else NO_INTERVAL
        if power is not None and (power.exponent < ends.low or power.exponent > ends.high):
            text = f"the size exponent of the {name}, {power.exponent:.3g}, lies outside its own interval"
            laws.warn("isoflop_bias", f"{text} [{ends.low:.3g}, {ends.high:.3g}], which L(N, D) corrects", variant)
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
    if "uneven" in frame and (other := int(frame["uneven"].sum())):
        text = f"{other} of {len(frame)} rows took other training FLOPs than 6 N D; L(N, D) is left out"
        laws.warn("uneven_compute", text, variant)
        return
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
    draws = laws.draws[variant]
    if said := repeats.unfitted(frame):
        laws.warn("repeated_data", f"{said}: repeated data is no fresh data; L(N, D) left out", variant)
        return
    repetition = repeats.fit(frame, objective, pinned, draws, choices.confidence)
    repeat, ends = (repetition.value, repetition.interval) if repetition else (None, None)
    tokens = repeats.effective(frame, repeat)
    choice = _choose(laws, variant, tokens)
    fitted = choice.fits[choice.form]
    count = int(np.clip(_WORK // len(frame), MIN_REPLICATES, choices.bootstrap))
    rows = draws.rows[:count] * laws.row_weights(variant)
    if repetition:
        samples = repeats.samples(frame, fitted, objective, rows, pinned, repetition, _REPLICATE)
    else:
        theta = parametric.refit(fitted, size, tokens, loss, objective, rows, pinned, tolerance=_REPLICATE)
        samples = parametric.samples_of(theta, fitted.centre, fitted.form)
    several = len(frame) >= 3 * len(draws.runs)
    factors = (laws.factor(variant, "parametric"), laws.factor(variant, "within" if several else "parametric"))
    laws.parametrics[variant] = Parametric(fitted, samples, *factors, choice, repeat, ends)
    _judge_design(laws, variant, sizes)
    if repeat is None and not laws.withholds(variant, "correction"):
        sweeps = bias.draw_sweeps(frame, fitted, draws, choices, scales=laws.scales.get(variant))
        if sweeps is not None:
            laws.sweeps[variant] = sweeps
    if not fitted.converged:
        laws.warn("not_converged", f"L(N, D): gradient norm {fitted.gradient_norm:.2g} at the best point", variant)
    at_bound = [name for name in fitted.at_bounds if not (name == "E" and pinned is not None)]
    if at_bound:
        laws.warn("bound", f"L(N, D): {', '.join(at_bound)} ended at a bound", variant)
    if fitted.condition > 1e4:
        laws.warn("ill_conditioned", f"L(N, D): condition number {fitted.condition:.2g}", variant)


def _choose(laws: Laws, variant: str, tokens: Array) -> Choice:
    """The form of L(N, D), on rows weighted by the noise of their size where seeds of several sizes measured it."""
    frame, choices, draws = laws.points.of(variant), laws.choices, laws.draws[variant]
    size, loss, flops = (frame[name].to_numpy(float) for name in ("N", "L", "C"))

    def chosen() -> Choice:
        return forms.choose(
            size, tokens, loss, flops, draws.index, choices.loss_function,
            asked=choices.form, pinned=choices.pinned, weights=laws.row_weights(variant),
        )  # fmt: skip

    found = chosen()
    scales = seeds.scales(found.fits[found.form].residuals, size, draws.index)
    if scales is None:
        return found
    laws.scales[variant] = scales
    return chosen()


def _judge_design(laws: Laws, variant: str, sizes: int) -> None:
    """Withhold the intervals that these sizes and tokens cannot carry, or that a trend of the residuals belies."""
    frame, found = laws.points.of(variant), laws.parametrics[variant]
    size, tokens, index = frame["N"].to_numpy(float), laws.tokens(variant), laws.draws[variant].index
    x, y = np.log(size), np.log(tokens)
    # Where N or D does not vary at all, alpha and beta cannot be told apart either: 0.
    left = 1.0 - np.corrcoef(x, y)[0, 1] ** 2 if x.std() > 1e-9 and y.std() > 1e-9 else 0.0
    if left < PROPORTIONAL:
        laws.warn("tokens_proportional", f"N explains {100 * (1 - left):.1f}% of the variance of log D", variant)
        laws.withhold(variant, *LAW)
    if sizes <= misfit.MOST_SIZES:
        laws.warn("few_sizes", f"{sizes} sizes leave no freedom in E + A / N^alpha: no intervals", variant)
        laws.withhold(variant, *LAW)
    if laws.points.choices.get("rows_as_runs") and misfit.shares_luck(found.fit.residuals, size):
        text = "rows of one size agree more than chance lets them; name the run: columns='{run: ...}'"
        laws.warn("rows_share_runs", text, variant)
        laws.withhold(variant, *LAW, "multiplier")
    for fit in _believed(found, laws.choices.form):
        trends = misfit.trends(fit, size, tokens, index, laws.scales.get(variant))
        if trends:
            said = ", ".join(f"{axis} (p = {chance:.1g})" for axis, chance in trends.items())
            laws.warn("misfit", f"residuals of L(N, D), {fit.form}, have a trend in {said}", variant)
            laws.withhold(variant, *LAW)
            break
    if variant not in laws.scales and (noise := misfit.uneven(laws.effects(variant), _sizes_of(size, index))):
        laws.warn("uneven_noise", f"noise of runs and their size: rank correlation {noise:.2f}", variant)
        laws.withhold(variant, *LAW)


def _believed(found: Parametric, asked: str) -> list[ParametricFit]:
    """The fits whose misfit counts: also the additive one where the chosen form foretold hardly better.

    Large models that are mistuned bend the additive law, and a form with one more parameter bends with them.
    """
    excused = found.fit.form == "additive" or asked != "auto" or found.choice.share <= forms.CLEARLY
    return [found.fit] if excused else [found.fit, found.additive]


def _sizes_of(size: Array, index: np.ndarray) -> Array:
    """Size of every run, (g,)."""
    return np.asarray(np.bincount(index, weights=size) / np.bincount(index))


def _fit_multipliers(laws: Laws) -> None:
    """Every variant against the baseline, in FLOPs."""
    variants = list(laws.frontiers)
    if len(laws.points.variants) < 2:
        return
    baseline = laws.choices.baseline_among(laws.points.variants)
    if baseline not in laws.points.variants:
        names = ", ".join(laws.points.variants)
        laws.warn("no_baseline", f"no runs of '{baseline}'; multipliers need a baseline: baseline=... of {names}")
        return
    if baseline not in laws.frontiers:
        laws.warn("no_baseline", f"the baseline '{baseline}' has too few points for a frontier")
        return
    laws.baseline = baseline
    base = laws.frontiers[laws.baseline]
    for variant in variants:
        if variant == laws.baseline:
            continue
        law, frame = laws.frontiers[variant], laws.points.of(variant)
        observed = (frame["C"].to_numpy()[law.members], frame["L"].to_numpy()[law.members])
        factor = max(laws.factor(variant, "multiplier"), laws.factor(laws.baseline, "multiplier"))
        found = multiplier.compare(
            variant, law, observed, laws.baseline, base,
            confidence=laws.choices.confidence, factor=factor, procedure=laws.choices.procedure,
        )  # fmt: skip
        if found is not None and any(laws.withholds(one, "multiplier") for one in (variant, laws.baseline)):
            found = multiplier.without_intervals(found)
        if found is None:
            laws.warn("no_overlap", f"its losses do not overlap with those of {laws.baseline}", variant)
        else:
            laws.multipliers[variant] = found
