"""How far do frontiers and isoFLOP optima lie from the truth? Sweeps of the same design, drawn from L(N, D), say it.

A lower hull lies above the true frontier between the sizes that were trained and beyond them, and below it where it
picks lucky runs; a parabola through a wide grid misses the optimum without any noise. Resampling runs repeats such a
bias instead of showing it. So sweeps with the sizes, tokens and noise of the data are drawn from the fitted L(N, D),
whose frontier and optima are known, and go through the same hull, parabolas and fits: a bootstrap of a model (Davison
and Hinkley 1997, section 6.2.4) with runs as clusters.

L(N, D) is itself a fit. Every simulated sweep is therefore treated as the data are: L(N, D) is fitted to it anew, the
bias of the method is read off at that refit, and its noise is estimated from its own residuals. With T an estimate,
b(law) = T(rows of the law without noise) - truth(law), and s the scale of the residuals between runs,

    error = b(law) + s / s* (T(sweep) - b(refit) - truth(law))

is what the estimate is taken to be wrong by: the bias at the fitted law, and the error that is left when a bias is
taken off at a law that is only fitted, in units of the scale that the sweep itself would have shown (a studentized
bootstrap, section 2.4 there). Few runs need no further widening. ``bootstrap.corrected`` makes the interval.

Shapes: n rows, s simulated sweeps, m models of a slice; a frontier's theta is (E, log A', a) with log C centred.
Batches hold 2 s + 1 tables: the sweeps, their refits without noise, and the law without noise.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from structlin.laws.approaches import isoflop, parametric
from structlin.laws.approaches.forms import thinned
from structlin.laws.approaches.frontier import MIN_POINTS, FrontierLaw, enough, fit, membership, refit
from structlin.laws.approaches.hull import lower_hull, members
from structlin.laws.approaches.isoflop import Isoflop, PowerLaw, Slice
from structlin.laws.approaches.parametric import ParametricFit, ParametricLaw
from structlin.laws.choices import Choices
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import Draws

_SIMULATED = 200
# Rows times sweeps that refits may take; more rows get fewer sweeps. About 0.2 s on one core.
_WORK = 300_000
# Evaluations of a run that its refits see: the luck of runs decides them, not how often it is read.
_EVALUATIONS = 12
# What L(N, D) learns from differences between runs, where rows within runs tell it the rest (B and beta).
_BETWEEN = 3
# From so many runs on their mean residuals are resampled as they are.
_EMPIRICAL = 16
# Sweeps that judge whether a correction foretells; decades beyond the data at which it is held against hull and law.
_JUDGES, _BEYOND = 60, 10.0
# A corrected loss may lie so far beyond hull and L(N, D), in logarithms, and a corrected exponent, as a factor.
_LOSS_SLACK, _EXPONENT_SLACK = 0.005, 1.5
# Decrease of the objective that ends a refit: parameters are then within 3% of their standard error of the minimum.
_REFITTED = 1e-3
# Points of the spline among which a simulated Akima optimum is looked for.
_AKIMA_POINTS = 101


@dataclass(frozen=True)
class Sweeps:
    """Sweeps like the data, drawn from a law, with the laws that are fitted to them."""

    laws: ParametricLaw
    """The refits, then the law itself: a batch with fields (s + 1, 1), of sizes n = N^p, d = D^q and C = kappa n d."""
    kappa: float
    """FLOPs per n d."""
    powers: tuple[float, float]
    """(p, q): (1, 1) in the conventions of this project."""
    log_loss: Array
    """Log loss of every row in every sweep, in every refit and in the law, (2 s + 1, n)."""
    stretch: Array
    """Scale of the residuals between runs over the scale that each sweep shows, (s,)."""

    def optima(self, flops: Array) -> Array:
        """log N of the true optimum of each law at each compute (k,): (s + 1, k)."""
        with np.errstate(all="ignore"):
            return np.asarray(np.log(self.laws.optimum(flops, self.kappa)[0]) / self.powers[0])

    def errors(self, found: Array, truth: Array) -> Array:
        """Errors (s, ...) of estimates ``found`` (2 s + 1, ...); ``truth`` (s + 1, ...) are the true values."""
        s = len(self.stretch)
        drawn, at_refit, at_law = found[:s], found[s : 2 * s] - truth[:s], found[-1] - truth[-1]
        stretch = self.stretch.reshape(-1, *[1] * (found.ndim - 1))
        # The bias at the law, then what noise adds: each sweep is corrected at its refit, as the data are at theirs,
        # and the rest is scaled to the noise of the data.
        return np.asarray(at_law + stretch * (drawn - at_refit - truth[-1]))


def draw_sweeps(
    frame: pd.DataFrame,
    found: ParametricFit,
    draws: Draws,
    choices: Choices,
    *,
    scales: Array | None = None,
    most: int = _SIMULATED,
) -> Sweeps | None:
    """Sweeps of the design of one variant; None where L(N, D) says nothing of a frontier or of the noise of its runs.

    ``scales`` (g,) is the noise of each run over the mean; ``most`` the number of sweeps.

    Log loss of a row is that of ``found``, plus the luck of its run (normal, of one scale for all runs: few residuals
    of a robust fit, some of them zero, say little of each), plus its own residual with a random sign (the wild
    bootstrap: Wu 1986). The law is ``found`` fitted to as few evaluations of a run as its refits see.
    """
    size, tokens, flops, loss = (frame[name].to_numpy(float) for name in ("N", "D", "C", "L"))
    runs, rows = len(draws.runs), len(loss)
    degrees = runs - (_BETWEEN if rows >= 3 * runs else len(found.theta))
    if degrees < 1:
        return None
    seen = thinned(draws.index, flops, _EVALUATIONS)
    noise = np.ones(runs) if scales is None else scales
    weights = noise[draws.index] ** (-1.0 if choices.loss_function.robust else -2.0)
    means = (draws.index[:, None] == np.arange(runs)) / np.bincount(draws.index) / noise

    def fitted(losses: Array, tolerance: float) -> Array:
        return parametric.refit(
            found, size, tokens, losses, choices.loss_function, np.broadcast_to(weights, losses.shape), choices.pinned,
            rows=seen, tolerance=tolerance, max_iterations=30,
        )  # fmt: skip

    # The base is refitted to the rows that the refits see: else their difference would count as error of the method.
    here = fitted(loss[None], 1e-8)
    base = np.log(_batch(here, found).loss(size, tokens)[0])
    residual = np.log(loss) - base
    luck = residual @ means
    # A mean a run was taken out of the residuals, which makes them too small by the root of rows / (rows - runs).
    own = (residual - (luck * noise)[draws.index]) * np.sqrt(rows / max(rows - runs, 1))
    count = min(int(np.clip(_WORK // len(seen), _SIMULATED // 2, _SIMULATED)), most)
    generator = np.random.default_rng(choices.seed)
    moves = noise * _luck(luck, degrees, generator, count)
    drawn = base + moves[:, draws.index] + own * generator.choice([-1.0, 1.0], size=(count, rows))
    laws = _batch(np.concatenate([fitted(np.exp(drawn), _REFITTED), here]), found)
    with np.errstate(all="ignore"):
        bases = np.log(laws.loss(size, tokens))
    kappa, p, q = _convention(size, tokens, flops)
    # In n = N^p and d = D^q the terms have the exponents alpha / p and beta / q, and C = kappa n d: the closed form of
    # an optimum then holds whatever FLOPs and N count.
    laws = replace(laws, alpha=laws.alpha / p, beta=laws.beta / q, kappa=laws.kappa / p)
    # A refit whose frontier does not fall has no truth that its estimates could be compared with.
    good = np.isfinite(bases).all(axis=1) & _falls(laws, flops, kappa)
    if not good[-1] or good.mean() < 0.5:
        return None
    kept, bases = drawn[good[:-1]], bases[good]
    # The same divisor stands in both scales and cancels.
    again = np.sum(((kept - bases[:-1]) @ means) ** 2, axis=1)
    stretch = np.sqrt(np.sum(luck**2) / np.maximum(again, 1e-300))
    laws = ParametricLaw(*(getattr(laws, field.name)[good] for field in fields(laws)))
    return Sweeps(laws, kappa, (p, q), np.concatenate([kept, bases]), stretch)


def _luck(luck: Array, degrees: int, generator: np.random.Generator, count: int) -> Array:
    """Luck of the runs of ``count`` sweeps, (count, g), from their mean residuals (g,) on ``degrees`` of freedom.

    Many runs are resampled with their signs: a bad run lies above the hull, where a normal number of the same scale
    would lie below it as often. Few residuals of a robust fit say little of each: a normal number of their scale.
    """
    if len(luck) < _EMPIRICAL:
        return np.asarray(np.sqrt(np.sum(luck**2) / degrees) * generator.standard_normal((count, len(luck))))
    scaled = (luck - np.median(luck)) * np.sqrt(len(luck) / degrees)
    return np.asarray(generator.choice(scaled, size=(count, len(luck))))


def _falls(laws: ParametricLaw, flops: Array, kappa: float) -> np.ndarray:
    """Which laws of a batch have a frontier that falls over the computes of the data, (b,)."""
    with np.errstate(all="ignore"):
        ends = laws.frontier(np.array([flops.min(), flops.max()]), kappa)
    return np.asarray(np.isfinite(ends).all(axis=1) & (ends[:, 0] > ends[:, 1]))


def _batch(theta: Array, found: ParametricFit) -> ParametricLaw:
    """The laws of theta (b, p) as one, with columns (b, 1) for fields."""
    named = parametric.samples_of(theta, found.centre, found.form)
    columns: list[Any] = [named[field.name][:, None] for field in fields(ParametricLaw)]
    return ParametricLaw(*columns)


def _convention(size: Array, tokens: Array, flops: Array) -> tuple[float, float, float]:
    """kappa, p, q of C = kappa N^p D^q; p = q = 1 where C / (N D) is one number, or where no power law holds."""
    x, y, z = np.log(size), np.log(tokens), np.log(flops)
    ratio = z - x - y
    if ratio.std() > 0.01:
        constant, p, q = np.linalg.lstsq(np.column_stack([np.ones_like(x), x, y]), z, rcond=None)[0].tolist()
        if 0.3 < p < 3.0 and 0.3 < q < 3.0:
            return float(np.exp(constant)), p, q
    return float(np.exp(ratio.mean())), 1.0, 1.0


def frontier_errors(law: FrontierLaw, flops: Array, size: Array, sweeps: Sweeps, choices: Choices) -> FrontierLaw:
    """The law with the errors of the frontiers of all sweeps, and of the growth of N along them."""
    x, y = np.log(flops), sweeps.log_loss
    low = lower_hull(x, y[-1])
    above = y[-1] - np.interp(x, x[low], y[-1][low])
    # Only rows that some sweep can bring to the hull: the rest would slow every hull down.
    reach = np.max(np.abs(y - y[-1]))
    keep = np.flatnonzero(above <= law.tolerance + 2.0 * reach)
    drawn = np.exp(y[:, keep])
    member = membership(flops[keep], drawn, law.tolerance, choices)
    true = _true_frontiers(law, sweeps, choices.frontier_offset)
    start = np.repeat(true[-1:], len(drawn), axis=0)
    found = refit(
        law.centre, flops[keep], drawn, member, start, choices.frontier_offset, tolerance=1e-5, max_iterations=30
    )
    growth = isoflop.slopes(x[keep], np.where(member > 0, np.log(size[keep]), np.nan).T)
    growths = np.ravel(sweeps.laws.size_exponent) / sweeps.powers[0]
    errors, size_errors = sweeps.errors(found, true), sweeps.errors(growth, growths)
    return replace(law, errors=errors, size_errors=size_errors, ideal=(found[-1], true[-1]))


def implausible(law: FrontierLaw, sweeps: Sweeps) -> str:
    """Why the corrected law is not believed: it leaves both the hull's law and L(N, D); empty where it does not."""
    better, known = law.corrected, sweeps.laws
    exponents = law.a, float(np.ravel(known.compute_exponent)[-1])
    if not min(exponents) / _EXPONENT_SLACK <= better["a"] <= max(exponents) * _EXPONENT_SLACK:
        return f"a would be {better['a']:.3g}; the hull has {exponents[0]:.3g} and L(N, D) {exponents[1]:.3g}"
    flops = np.array([_BEYOND * law.span[1]])
    ends = float(law.loss(flops)[0]), float(known.frontier(flops, sweeps.kappa)[-1, 0])
    loss = better["E"] + better["A"] * float(flops[0]) ** -better["a"]
    if not min(ends) * (1 - _LOSS_SLACK) <= loss <= max(ends) * (1 + _LOSS_SLACK):
        return f"at {flops[0]:.2g} FLOPs it says {loss:.4g}, the hull {ends[0]:.4g} and L(N, D) {ends[1]:.4g}"
    return ""


def foretold(
    law: FrontierLaw, frame: pd.DataFrame, early: ParametricFit, cut: float, choices: Choices
) -> tuple[float, float] | None:
    """Mean absolute log error above ``cut`` of the hull's law below it and of that law corrected; None without one."""
    flops, loss = frame["C"].to_numpy(float), frame["L"].to_numpy(float)
    past, future = frame[flops <= cut].reset_index(drop=True), law.members[flops[law.members] > cut]
    if not len(future) or len(past) < MIN_POINTS:
        return None
    c, y = past["C"].to_numpy(float), past["L"].to_numpy(float)
    offset = choices.frontier_offset
    rows = members(c, y, kind=choices.frontier, tolerance=law.tolerance, window=choices.window, offset=offset or 0.0)
    if not enough(c, rows):
        return None
    runs, index = np.unique(past["run"].to_numpy().astype(str), return_inverse=True)
    draws = Draws(tuple(runs.tolist()), np.ones((1, len(runs))), index)
    sweeps = draw_sweeps(past, early, draws, choices, most=_JUDGES)
    if sweeps is None:
        return None
    hull = fit(c, y, rows, offset=offset, tolerance=law.tolerance)
    better = frontier_errors(hull, c, past["N"].to_numpy(float), sweeps, choices).corrected
    corrected = better["E"] + better["A"] * flops[future] ** -better["a"]
    return tuple(  # type: ignore[return-value]
        float(np.mean(np.abs(np.log(said / loss[future])))) for said in (hull.loss(flops[future]), corrected)
    )


def _true_frontiers(law: FrontierLaw, sweeps: Sweeps, offset: float | None) -> Array:
    """theta (s + 1, 3) of the frontiers of the laws in the form of ``law``: exact, or best fits with E pinned."""
    known = sweeps.laws
    c = np.geomspace(law.span[0], law.span[1], 41)
    best = known.frontier(c, sweeps.kappa)
    if offset is not None:
        start = np.repeat(law.theta[None], len(best), axis=0)
        return refit(law.centre, c, best, np.ones_like(best), start, offset)
    slope = known.compute_exponent
    with np.errstate(divide="ignore"):
        constant = np.log(best[:, :1] - known.E) + slope * (np.log(c[0]) - law.centre)
    return np.hstack([known.E, constant, slope])


def isoflop_errors(found: Isoflop, sweeps: Sweeps) -> Isoflop:
    """Optima and power laws, each with the errors that simulated sweeps make in it."""
    budgets = np.array([s.budget for s in found.slices])
    true = sweeps.optima(budgets).T
    losses = [_slice_losses(s, sweeps.log_loss) for s in found.slices]
    parabola = np.stack([_parabola_optima(s, loss) for s, loss in zip(found.slices, losses, strict=True)])
    akima = np.stack([_akima_optima(s, loss) for s, loss in zip(found.slices, losses, strict=True)])
    p, q = sweeps.powers
    exponents = np.ravel(sweeps.laws.size_exponent)
    # The budgets that entered the power laws of the data; sweeps must be fitted through the same ones.
    known = np.array([s.edge is None and np.isfinite(s.optimum) for s in found.slices])
    spline = np.array([np.isfinite(s.akima) for s in found.slices])

    def of(power: PowerLaw | None, logs: Array, here: np.ndarray, truth: Array) -> PowerLaw | None:
        slopes = isoflop.slopes(np.log(budgets[here]), logs[here])
        return power and replace(power, errors=sweeps.errors(slopes, truth))

    tokens = np.stack([s.log_at(x, s.tokens) for s, x in zip(found.slices, parabola, strict=True)])
    width = np.stack([s.log_at(x, s.width) for s, x in zip(found.slices, parabola, strict=True)])
    # L(N, D) knows no widths: the truth is read off the same table of widths, at the true N.
    true_width = np.stack([s.log_at(x, s.width) for s, x in zip(found.slices, true, strict=True)])
    of_width = isoflop.slopes(np.log(budgets[known]), true_width[known]) if found.width else exponents
    return Isoflop(
        slices=tuple(
            replace(s, errors=sweeps.errors(x, t)) for s, x, t in zip(found.slices, parabola, true, strict=True)
        ),
        size=of(found.size, parabola, known, exponents / p),
        tokens=of(found.tokens, tokens, known, (1.0 - exponents) / q),
        width=of(found.width, width, known, of_width),
        akima=of(found.akima, akima, spline, exponents / p),
    )


def _slice_losses(s: Slice, log_loss: Array) -> Array:
    """Loss of every model of a slice in every sweep, mean over its runs: (s, m)."""
    first, second, share, model = s.readings
    read = np.exp(log_loss[:, first] * (1.0 - share) + log_loss[:, second] * share)
    belongs = (model[:, None] == np.arange(len(s.size))).astype(float)
    return np.asarray(read @ (belongs / belongs.sum(axis=0)))


def _parabola_optima(s: Slice, loss: Array) -> Array:
    """log N at the lowest point of every parabola, NaN outside the grid: (s, m) -> (s,)."""
    centre = np.log(s.size).mean()
    x = np.log(s.size) - centre
    return np.asarray(isoflop.vertex(x, isoflop.parabolas(x, loss, np.ones((1, len(x))))) + centre)


def _akima_optima(s: Slice, loss: Array) -> Array:
    """log N at the lowest point of every spline, NaN where that is the first or last model: (s, m) -> (s,)."""
    x = np.log(s.size)
    fine = np.linspace(x[0], x[-1], _AKIMA_POINTS)
    best, edge = np.argmin(loss, axis=1), (0, len(x) - 1)
    return np.where(np.isin(best, edge), np.nan, fine[np.argmin(isoflop.akima_curve(x, loss, fine), axis=1)])
