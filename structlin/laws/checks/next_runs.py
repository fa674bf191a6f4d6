"""Which runs next? What a planned grid would teach, from a pilot fit, and the best cells for a FLOP budget.

A pilot is a fitted L(N, D) with its Fisher information: for rows of one run with relative noise s_row each and s_run
in common, J^T (s_row^2 I + s_run^2 1 1^T)^-1 J, J the derivatives of log L in (E, log A, log B, alpha, beta). The
expected interval of an exponent follows by the delta method; planned cells add their information. Cells are chosen
one at a time: the one that lowers the variance of the target most for its FLOPs, until the budget is spent.

    found = json.load(open("laws/laws.json"))
    pilot = pilot_of(found, "btt")
    cells = design(pilot, sizes=[1e6, 2e6, 4e6], tokens=[1e8, 2e8, 4e8], budget_flops=1e17)

No torch; planning calls this for ``grid=design``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from structlin.errors import UserError, suggest
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.quantiles import normal_quantile

TARGETS = ("size_exponent", "compute_exponent", "alpha", "beta", "E", "frontier_loss")
_LAW = ("E", "A", "B", "alpha", "beta")
# Smallest noise believed: a pilot that fits its own rows exactly would claim to know everything.
_MIN_RUN_NOISE, _MIN_ROW_NOISE = 1e-3, 3e-4


@dataclass(frozen=True)
class Pilot:
    """What is known before the next runs."""

    law: ParametricLaw
    """The fitted law."""
    information: Array
    """Fisher information of (E, log A, log B, alpha, beta), with A and B at the centre, (5, 5)."""
    centre: tuple[float, float]
    """log N and log D at which A and B are taken."""
    run_noise: float
    """Standard deviation of log loss between runs."""
    row_noise: float
    """Standard deviation of log loss between evaluations of a run."""
    flops_per_nd: float
    """FLOPs per unit of N D: 6 in the training convention."""


@dataclass(frozen=True)
class Cell:
    """One planned run."""

    size: float
    """N."""
    tokens: float
    """D."""
    flops: float
    """Its cost."""
    interval_before: float
    """Half-width of the target's interval without it."""
    interval_after: float
    """Half-width of the target's interval with it and those before it."""


def _jacobian(law: ParametricLaw, centre: tuple[float, float], size: Array, tokens: Array) -> Array:
    """d log L / d (E, log A, log B, alpha, beta) at cells (n,): (n, 5)."""
    # A law with an exponent at its bound has its optimum beyond all floats; its derivatives come out as NaN.
    with np.errstate(all="ignore"):
        x, y = np.log(size) - centre[0], np.log(tokens) - centre[1]
        of_n, of_d = law.A * size**-law.alpha, law.B * tokens**-law.beta
        loss = law.E + of_n + of_d
        return np.asarray(np.stack([np.ones_like(x), of_n, of_d, -x * of_n, -y * of_d], axis=1) / loss[:, None])


def _information(jacobian: Array, run: np.ndarray, run_noise: float, row_noise: float) -> Array:
    """J^T V^-1 J with one shared error per run (Sherman-Morrison): (5, 5)."""
    counts = np.bincount(run)
    sums = np.stack([np.bincount(run, weights=column) for column in jacobian.T], axis=1)
    shrink = run_noise**2 / (row_noise**2 + counts * run_noise**2)
    total: Array = (jacobian.T @ jacobian - (sums * shrink[:, None]).T @ sums) / row_noise**2
    return total


def pilots(laws: Laws) -> dict[str, Any]:
    """variant -> what ``pilot_of`` needs, for laws.json."""
    out: dict[str, Any] = {}
    for variant, found in laws.parametrics.items():
        frame, index = laws.points.of(variant), laws.draws[variant].index
        # Designs are those of the additive law, whichever form was chosen: its Fisher information has five parameters.
        fit = found.additive
        residuals = fit.residuals
        counts = np.bincount(index)
        means = np.bincount(index, weights=residuals) / counts
        free_rows, free_runs = max(len(index) - len(counts), 1), max(len(counts) - 3, 1)
        row_noise = float(np.sqrt(np.sum((residuals - means[index]) ** 2) / free_rows))
        run_noise = float(np.sqrt(np.sum(means**2) / free_runs))
        if len(index) == len(counts):
            row_noise = _MIN_ROW_NOISE
        row_noise, run_noise = max(row_noise, _MIN_ROW_NOISE), max(run_noise, _MIN_RUN_NOISE)
        size, tokens = frame["N"].to_numpy(float), laws.tokens(variant)
        jacobian = _jacobian(fit.law, fit.centre, size, tokens)
        information = _information(jacobian, index, run_noise, row_noise)
        pilot = Pilot(
            fit.law, information, fit.centre, run_noise, row_noise,
            float(np.median(frame["C"].to_numpy(float) / (size * tokens))),
        )  # fmt: skip
        out[variant] = {
            "information": information.tolist(), "centre": list(pilot.centre), "run_noise": run_noise,
            "row_noise": row_noise, "flops_per_nd": pilot.flops_per_nd, "expected_interval": expected(pilot),
            "law": {name: float(getattr(fit.law, name)) for name in _LAW},
        }  # fmt: skip
    return out


def pilot_of(found: Mapping[str, Any], variant: str) -> Pilot:
    """The pilot of a variant in a read laws.json. Raises UserError where there is none."""
    known = found.get("design", {})
    if variant not in known:
        raise UserError(
            f"laws.json has no pilot for '{variant}': fit at least {3} sizes first; {suggest(variant, known)}"
        )
    about = known[variant]
    law = about.get("law") or found["parametric"][variant]
    return Pilot(
        ParametricLaw(*(float(law[name]) for name in _LAW)),
        np.array(about["information"], dtype=float),
        (float(about["centre"][0]), float(about["centre"][1])),
        float(about["run_noise"]),
        float(about["row_noise"]),
        float(about["flops_per_nd"]),
    )


def _gradient(pilot: Pilot, target: str, flops: float) -> Array:
    """Derivative of a target in (E, log A, log B, alpha, beta), (5,)."""
    law = pilot.law
    total = law.alpha + law.beta
    simple = {
        "alpha": [0, 0, 0, 1, 0],
        "beta": [0, 0, 0, 0, 1],
        "E": [1, 0, 0, 0, 0],
        "size_exponent": [0, 0, 0, -law.beta / total**2, law.alpha / total**2],
        "compute_exponent": [0, 0, 0, law.beta**2 / total**2, law.alpha**2 / total**2],
    }
    if target in simple:
        return np.array(simple[target], dtype=float)
    if target != "frontier_loss":
        raise UserError(f"target '{target}' is not known; {suggest(target, TARGETS)}")
    # At the optimum the loss is stationary in N, so its derivative is that at fixed (N, D).
    size, tokens = law.optimum(flops, pilot.flops_per_nd)
    return np.asarray(_jacobian(law, pilot.centre, np.atleast_1d(size), np.atleast_1d(tokens))[0])


def _half_width(information: Array, gradient: Array, confidence: float) -> float:
    """Half of the interval of a linear target; infinite where the information leaves it open."""
    if not (np.isfinite(information).all() and np.isfinite(gradient).all()):
        return float("inf")
    scale = np.sqrt(np.maximum(np.diag(information), 1e-300))
    scaled = information / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(scaled)
    along = vectors.T @ (gradient / scale)
    # An eigenvalue at rounding level is a direction the cells say nothing about.
    open_ = values <= 1e-12 * values.max()
    if np.any(open_ & (np.abs(along) > 1e-9 * np.linalg.norm(along))):
        return float("inf")
    variance = float(np.sum(along[~open_] ** 2 / values[~open_]))
    return float(normal_quantile(0.5 + confidence / 2) * np.sqrt(variance))


def expected(
    pilot: Pilot,
    size: Sequence[float] = (),
    tokens: Sequence[float] = (),
    *,
    evaluations: int = 1,
    confidence: float = 0.9,
) -> dict[str, float]:
    """Half-widths of the targets' intervals after runs at (size, tokens), each evaluated that often up to its end.

    Evaluations are spread evenly in log D over the last decade of a run.
    """
    information = pilot.information + sum(
        (_cell(pilot, n, d, evaluations) for n, d in zip(size, tokens, strict=True)), np.zeros((5, 5))
    )
    reach = max([float(n * d) for n, d in zip(size, tokens, strict=True)], default=np.exp(sum(pilot.centre)))
    flops = pilot.flops_per_nd * reach
    return {target: _half_width(information, _gradient(pilot, target, flops), confidence) for target in TARGETS}


def _cell(pilot: Pilot, size: float, tokens: float, evaluations: int) -> Array:
    """Information of one run."""
    seen = tokens * np.logspace(-1, 0, evaluations) if evaluations > 1 else np.array([tokens])
    jacobian = _jacobian(pilot.law, pilot.centre, np.full(len(seen), float(size)), seen)
    return _information(jacobian, np.zeros(len(seen), dtype=int), pilot.run_noise, pilot.row_noise)


def design(
    pilot: Pilot,
    sizes: Sequence[float],
    tokens: Sequence[float],
    *,
    budget_flops: float,
    target: str = "frontier_loss",
    evaluations: int = 1,
    most: int = 12,
    confidence: float = 0.9,
) -> list[Cell]:
    """The best next runs among candidate pairs (sizes[i], tokens[i]) with a total cost of at most ``budget_flops``.

    Each step takes the affordable candidate that lowers the log variance of the target most per FLOP; a candidate is
    taken at most once. Raises UserError when no candidate is affordable.
    """
    if not budget_flops > 0:
        raise UserError(f"budget {budget_flops} is not a positive number of FLOPs")
    cost = [pilot.flops_per_nd * n * d for n, d in zip(sizes, tokens, strict=True)]
    if not cost or min(cost) > budget_flops:
        raise UserError(
            f"no candidate run costs at most {budget_flops:.3g} FLOPs; the cheapest {min(cost, default=0):.3g}"
        )
    gradient = _gradient(pilot, target, max(c for c in cost if c <= budget_flops))
    gains = [_cell(pilot, n, d, evaluations) for n, d in zip(sizes, tokens, strict=True)]
    information, left = pilot.information.copy(), float(budget_flops)
    waiting = list(range(len(cost)))
    chosen: list[Cell] = []
    while len(chosen) < most:
        now = _half_width(information, gradient, confidence)
        best, score, after = None, 0.0, now
        for i in waiting:
            if cost[i] > left:
                continue
            width = _half_width(information + gains[i], gradient, confidence)
            gain = (np.log(now) - np.log(width) if np.isfinite(now) else -np.log(width) + 1e3) / cost[i]
            if gain > score and np.isfinite(width):
                best, score, after = i, gain, width
        if best is None:
            break
        chosen.append(Cell(float(sizes[best]), float(tokens[best]), cost[best], now, after))
        information, left = information + gains[best], left - cost[best]
        waiting.remove(best)
    return chosen
