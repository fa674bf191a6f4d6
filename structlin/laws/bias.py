"""How far do frontiers and isoFLOP optima lie from the truth? Sweeps of the same design, drawn from L(N, D), say it.

A lower hull lies above the true frontier between the sizes that were trained and beyond them, and below it where it
picks lucky runs; a parabola through a wide grid misses the optimum without any noise. Resampling runs repeats such a
bias instead of showing it. So sweeps with the sizes, tokens and noise of the data are drawn from the fitted L(N, D),
whose frontier and optima are known, and go through the same hull, parabolas and fits: a bootstrap of the residuals of
a model (Davison and Hinkley 1997, section 6.2.4) with runs as clusters. What they differ by from the truth they were
drawn from are the errors of the method on this design; ``bootstrap.corrected`` turns them into an interval.

Shapes: n rows, s simulated sweeps, m models of a slice; a frontier's theta is (E, log A', a) with log C centred.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from structlin.laws import isoflop
from structlin.laws.bootstrap import Draws
from structlin.laws.choices import Choices
from structlin.laws.frontier import FrontierLaw, fit, membership, refit
from structlin.laws.hull import lower_hull
from structlin.laws.isoflop import Isoflop, PowerLaw, Slice
from structlin.laws.objective import Array
from structlin.laws.parametric import ParametricLaw

_SIMULATED = 200
# What L(N, D) learns from differences between runs: their residuals are too small by these degrees of freedom.
_BETWEEN = 3
# Points of the spline among which a simulated Akima optimum is looked for.
_AKIMA_POINTS = 201


@dataclass(frozen=True)
class Sweeps:
    """Sweeps like the data, drawn from a law, and that law's own frontier and optima."""

    law: ParametricLaw
    """L(n, d) of the sizes n = N^p and d = D^q, for which C = kappa n d."""
    kappa: float
    """FLOPs per n d."""
    powers: tuple[float, float]
    """(p, q): (1, 1) in the conventions of this project."""
    base: Array
    """Log loss of every row without noise, (n,)."""
    log_loss: Array
    """Log loss of every row in every sweep, (s, n)."""

    def optimum(self, flops: Array | float) -> Array:
        """log N of the true optimum at a compute."""
        with np.errstate(all="ignore"):
            return np.asarray(np.log(self.law.optimum(flops, self.kappa)[0]) / self.powers[0])


def draw_sweeps(frame: pd.DataFrame, found: ParametricLaw, draws: Draws, choices: Choices) -> Sweeps | None:
    """Sweeps of the design of one variant; None where L(N, D) says nothing of a frontier.

    Log loss of a row is that of ``found``, plus its run's mean residual times a standard normal number, plus its own
    residual with a random sign: the wild bootstrap (Wu 1986; by clusters: Cameron, Gelbach and Miller 2008). Run
    residuals are scaled for the parameters that runs determine.
    """
    size, tokens, flops, loss = (frame[name].to_numpy(float) for name in ("N", "D", "C", "L"))
    kappa, p, q = _convention(size, tokens, flops)
    base = np.log(found.loss(size, tokens))
    law = replace(found, alpha=found.alpha / p, beta=found.beta / q)
    with np.errstate(all="ignore"):
        ends = law.frontier(np.array([flops.min(), flops.max()]), kappa)
    if not (np.isfinite(base).all() and np.isfinite(ends).all() and ends[0] > ends[1]):
        return None
    residual, runs = np.log(loss) - base, len(draws.runs)
    luck = np.bincount(draws.index, weights=residual, minlength=runs) / np.bincount(draws.index, minlength=runs)
    own = residual - luck[draws.index]
    luck *= np.sqrt(runs / max(runs - _BETWEEN, 1))
    generator = np.random.default_rng(choices.seed)
    moves = generator.standard_normal((_SIMULATED, runs)) * luck
    signs = generator.choice([-1.0, 1.0], size=(_SIMULATED, len(base)))
    drawn = base + moves[:, draws.index] + own * signs
    return Sweeps(law, kappa, (p, q), base, drawn)


def _convention(size: Array, tokens: Array, flops: Array) -> tuple[float, float, float]:
    """kappa, p, q of C = kappa N^p D^q; p = q = 1 where C / (N D) is one number, or where no power law holds."""
    x, y, z = np.log(size), np.log(tokens), np.log(flops)
    ratio = z - x - y
    if ratio.std() > 0.01:
        constant, p, q = np.linalg.lstsq(np.column_stack([np.ones_like(x), x, y]), z, rcond=None)[0].tolist()
        if 0.3 < p < 3.0 and 0.3 < q < 3.0:
            return float(np.exp(constant)), p, q
    return float(np.exp(ratio.mean())), 1.0, 1.0


def frontier_errors(law: FrontierLaw, flops: Array, sweeps: Sweeps, choices: Choices) -> FrontierLaw:
    """The law with the errors of the frontiers of all sweeps."""
    x = np.log(flops)
    low = lower_hull(x, sweeps.base)
    above = sweeps.base - np.interp(x, x[low], sweeps.base[low])
    # Only rows that some sweep can bring to the hull: the rest would slow every hull down.
    reach = np.max(np.abs(sweeps.log_loss - sweeps.base))
    keep = np.flatnonzero(above <= law.tolerance + 2.0 * reach)
    drawn = np.exp(sweeps.log_loss[:, keep])
    true = _true_frontier(law, sweeps, choices.frontier_offset)
    member = membership(flops[keep], drawn, law.tolerance, choices)
    start = np.repeat(true[None], len(drawn), axis=0)
    return replace(law, errors=refit(law.centre, flops[keep], drawn, member, start, choices.frontier_offset) - true)


def _true_frontier(law: FrontierLaw, sweeps: Sweeps, offset: float | None) -> Array:
    """theta (3,) of the frontier of L(N, D) in the form of ``law``: exact, or its best fit with E pinned."""
    c = np.geomspace(law.span[0], law.span[1], 41)
    best = sweeps.law.frontier(c, sweeps.kappa)
    if offset is not None:
        pinned = fit(c, best, np.arange(len(c)), offset=offset)
        return np.array([pinned.E, np.log(pinned.A) - pinned.a * law.centre, pinned.a])
    slope = sweeps.law.compute_exponent
    return np.array([sweeps.law.E, np.log(best[0] - sweeps.law.E) + slope * (np.log(c[0]) - law.centre), slope])


def isoflop_errors(found: Isoflop, sweeps: Sweeps) -> Isoflop:
    """Optima and power laws with the errors of those of all sweeps."""
    budgets = np.array([s.budget for s in found.slices])
    true = sweeps.optimum(budgets)
    losses = [_slice_losses(s, sweeps.log_loss) for s in found.slices]
    parabola = np.stack([_parabola_optima(s, loss) for s, loss in zip(found.slices, losses, strict=True)])
    akima = np.stack([_akima_optima(s, loss) for s, loss in zip(found.slices, losses, strict=True)])
    p, q = sweeps.powers
    exponent = sweeps.law.size_exponent
    known = np.array([s.edge is None and np.isfinite(s.optimum) for s in found.slices])
    spline = np.array([np.isfinite(s.akima) for s in found.slices])

    def of(power: PowerLaw | None, logs: Array, here: np.ndarray, truth: float) -> PowerLaw | None:
        return power and replace(power, errors=isoflop.slopes(np.log(budgets[here]), logs[here]) - truth)

    tokens = np.stack([s.log_at(x, s.tokens) for s, x in zip(found.slices, parabola, strict=True)])
    width = np.stack([s.log_at(x, s.width) for s, x in zip(found.slices, parabola, strict=True)])
    true_width = np.array([s.log_at(x, s.width) for s, x in zip(found.slices, true, strict=True)])
    of_width = isoflop.slopes(np.log(budgets[known]), true_width[known, None])[0] if found.width else 0.0
    return Isoflop(
        slices=tuple(replace(s, errors=x - t) for s, x, t in zip(found.slices, parabola, true, strict=True)),
        size=of(found.size, parabola, known, exponent / p),
        tokens=of(found.tokens, tokens, known, (1.0 - exponent) / q),
        width=of(found.width, width, known, float(of_width)),
        akima=of(found.akima, akima, spline, exponent / p),
    )


def _slice_losses(s: Slice, log_loss: Array) -> Array:
    """Loss of every model of a slice in every sweep, mean over its runs: (s, m)."""
    first, second, share, model = s.readings
    read = np.exp(log_loss[:, first] * (1.0 - share) + log_loss[:, second] * share)
    belongs = (model[:, None] == np.arange(len(s.size))).astype(float)
    return np.asarray(read @ (belongs / belongs.sum(axis=0)))


def _parabola_optima(s: Slice, loss: Array) -> Array:
    """log N at the lowest point of every parabola, NaN outside the grid: (s, m) -> (s,)."""
    x = np.log(s.size)
    return isoflop.vertex(x - x.mean(), isoflop.parabolas(x - x.mean(), loss, np.ones((1, len(x))))) + x.mean()


def _akima_optima(s: Slice, loss: Array) -> Array:
    """log N at the lowest point of every spline, NaN where that is the first or last model: (s, m) -> (s,)."""
    x = np.log(s.size)
    fine = np.linspace(x[0], x[-1], _AKIMA_POINTS)
    best, edge = np.argmin(loss, axis=1), (0, len(x) - 1)
    return np.where(np.isin(best, edge), np.nan, fine[np.argmin(isoflop.akima_curve(x, loss, fine), axis=1)])
