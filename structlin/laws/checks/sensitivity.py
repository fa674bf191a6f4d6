"""How much do the numbers hang on our choices? The same fits under other conventions, objectives, floors and runs.

One row per change: what N counts, what FLOPs count (own runs), delta and objective, E pinned, one run left out; for
the mean multipliers the tolerance of the hull, the other procedure, and the frontier. A
number that moves more under a convention than its interval is wide is a number about the convention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from structlin.laws.approaches import frontier, hull, parametric
from structlin.laws.approaches.frontier import FrontierLaw
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.multiplier import MEANS, average
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.choices import TOLERANCES
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.sampling.bootstrap import interval

_MAX_ROWS = 400
# Of the hull, in log loss; without more where they give few points.
_TOLERANCES = (0.0, 0.002, 0.005, 0.01, 0.02)
_COLUMNS = ("alpha", "beta", "size_exponent", "compute_exponent", "E")


def sensitivity(laws: Laws) -> dict[str, list[dict[str, Any]]]:
    """variant -> rows {change, E, alpha, beta, size and compute exponent}, and ``multipliers``; may add cautions."""
    table = {variant: _parametric(laws, variant) for variant in laws.parametrics}
    rows = _multipliers(laws)
    if rows:
        table["multipliers"] = rows
    return table


def _values(law: ParametricLaw) -> dict[str, float]:
    return {name: float(getattr(law, name)) for name in _COLUMNS}


def _sizes(frame: pd.DataFrame) -> dict[str, Array]:
    """Other meanings of N that the table holds."""
    out: dict[str, Array] = {}
    if "params_total" in frame:
        out["N = parameters, all"] = frame["params_total"].to_numpy(float)
    # Without experts all parameters are active: the row would say the same twice.
    if {"params_active", "params_total"} <= set(frame) and (frame["params_active"] != frame["params_total"]).any():
        out["N = parameters, active"] = frame["params_active"].to_numpy(float)
    if {"params_total", "params_embedding", "params_head"} <= set(frame.columns):
        inner = frame["params_total"] - frame["params_embedding"] - frame["params_head"]
        out["N = parameters without embedding and head"] = inner.to_numpy(float)
    if "macs_head" in frame:
        out["N = MACs without head"] = (frame["N"] - frame["macs_head"]).to_numpy(float)
    if "macs_attention" in frame:
        out["N = MACs, causal half of attention"] = (frame["N"] - 0.5 * frame["macs_attention"]).to_numpy(float)
    # Of a small model nearly all may be head or embedding; N has to have a logarithm in every row.
    return {name: n for name, n in out.items() if (n > 0).all()}


def _parametric(laws: Laws, variant: str) -> list[dict[str, Any]]:
    """All changes of one variant's L(N, D)."""
    frame, choices = laws.points.of(variant), laws.choices
    keep = np.unique(np.linspace(0, len(frame) - 1, min(len(frame), _MAX_ROWS)).astype(int))
    frame = frame.iloc[keep]
    size, loss = (frame[name].to_numpy(float) for name in ("N", "L"))
    tokens, row_weights = laws.tokens(variant)[keep], laws.row_weights(variant)[keep]
    base, objective, law = laws.parametrics[variant], choices.loss_function, laws.parametrics[variant].fit.law
    rows: list[dict[str, Any]] = [{"change": "as fitted", **_values(law)}]

    def add(change: str, n: Array = size, how: Objective = objective, pinned: float | None = choices.pinned) -> None:
        if pinned is None or pinned < loss.min():
            # Another count of N is nearly a multiple: around their means the two laws are alike.
            near = replace(base.fit, centre=(float(np.log(n).mean()), base.fit.centre[1]))
            fitted = parametric.fit(
                n, tokens, loss, how, weights=row_weights, form=base.fit.form, pinned=pinned, near=near
            )
            rows.append({"change": change, **_values(fitted.law)})

    for name, other in _sizes(frame).items():
        add(name, other)
    for delta in (1e-4, 1e-2, 1e-1):
        if objective.robust and delta != objective.delta:
            add(f"delta = {delta:g}", how=objective.with_delta(delta))
    add("squares of log loss", how=Objective("log_squares"))
    for factor in (0.0, 0.9, 1.1):
        add(f"E pinned at {factor * law.E:.3g}", pinned=factor * law.E)
    rows += _leave_out(laws, variant, keep, base.samples)
    return rows


def _leave_out(laws: Laws, variant: str, keep: np.ndarray, samples: dict[str, Array]) -> list[dict[str, Any]]:
    """The run whose absence moves the size exponent most, and a caution where that is more than half the interval."""
    draws, frame = laws.draws[variant], laws.points.of(variant).iloc[keep]
    count = len(draws.runs)
    if not 3 <= count <= 400:
        return []
    size, loss, tokens = frame["N"].to_numpy(float), frame["L"].to_numpy(float), laws.tokens(variant)[keep]
    fitted = laws.parametrics[variant].fit
    axes_fit = (
        fitted
        if len(keep) == len(fitted.residuals)
        else parametric.fit(size, tokens, loss, laws.choices.loss_function, form=fitted.form, near=fitted)
    )
    weights = (draws.index[keep][None, :] != np.arange(count)[:, None]) * laws.row_weights(variant)[keep]
    theta = parametric.refit(axes_fit, size, tokens, loss, laws.choices.loss_function, weights, laws.choices.pinned)
    moved = parametric.samples_of(theta, axes_fit.centre, axes_fit.form)
    here = axes_fit.law.size_exponent
    worst = int(np.argmax(np.abs(moved["size_exponent"] - here)))
    values = {name: float(moved[name][worst]) for name in _COLUMNS}
    row: dict[str, Any] = {"change": f"without run {draws.runs[worst]}", **values}
    ends = interval(samples["size_exponent"], here, laws.choices.confidence, laws.parametrics[variant].factor)
    shift = abs(values["size_exponent"] - here)
    if shift > 0.5 * (ends.high - ends.low) > 0:
        text = f"without run {draws.runs[worst]} the size exponent is {row['size_exponent']:.3f} instead of {here:.3f}"
        laws.warn("leverage", text, variant)
    return [row]


def _multipliers(laws: Laws) -> list[dict[str, Any]]:
    """Mean multiplier of every variant by other procedures and frontiers and, for own runs, other FLOPs."""
    if not laws.multipliers:
        return []
    rows: list[dict[str, Any]] = [{"change": "as fitted", **{v: m.mean for v, m in laws.multipliers.items()}}]
    frame = laws.points.frame
    changes: dict[str, dict[str, Any]] = {f"tolerance {t:g}": {"tolerance": t} for t in _TOLERANCES}
    for name in MEANS:
        if name != laws.choices.procedure:
            changes[f"procedure={name}, tolerance {TOLERANCES[name]:g}"] = {
                "procedure": name,
                "tolerance": TOLERANCES[name],
            }
    changes["smoothed frontier"] = {"kind": "window"}
    changes["E = 0 in the frontier"] = {"offset": 0.0}
    if "macs_head" in frame:
        changes["FLOPs without head"] = {"flops": "macs_head", "share": 1.0}
    if "macs_attention" in frame:
        changes["FLOPs, causal half of attention"] = {"flops": "macs_attention", "share": 0.5}
    for name, change in changes.items():
        rows.append({"change": name, **_means(laws, **change)})
    return rows


def _means(laws: Laws, *, procedure: str = "", **change: Any) -> dict[str, float | None]:
    """Mean multiplier of every variant, by the procedure or the chosen one, with the frontiers of a change."""
    fits = {variant: found for variant in laws.frontiers if (found := _frontier(laws, variant, **change))}
    base = fits.get(laws.baseline or "")
    out: dict[str, float | None] = {}
    for variant in laws.multipliers:
        if base is None or variant not in fits:
            out[variant] = None
            continue
        mean, _ = average(*fits[variant], base[0], procedure or laws.choices.procedure)
        out[variant] = mean if np.isfinite(mean) else None
    return out


def _frontier(
    laws: Laws,
    variant: str,
    *,
    kind: str = "",
    tolerance: float | None = None,
    offset: float | None = None,
    flops: str = "",
    share: float = 0.0,
) -> tuple[FrontierLaw, tuple[Array, Array]] | None:
    """The law of one variant and the (C, L) of its members with another frontier; None where they are too few.

    ``flops`` names a column of forward MACs per token, of which ``share`` is taken off the compute.
    """
    part, choices = laws.points.of(variant), laws.choices
    c, y = part["C"].to_numpy(float), part["L"].to_numpy(float)
    if flops:
        per_mac = 6.0 if choices.convention == "training" else 1.0
        c = c - per_mac * share * part[flops].to_numpy(float) * part["D"].to_numpy(float)
    pinned = choices.frontier_offset if offset is None else offset
    near = laws.frontiers[variant].tolerance if tolerance is None else tolerance
    rows = hull.members(
        c, y, kind=kind or choices.frontier, tolerance=near, window=choices.window, offset=pinned or 0.0
    )
    if not frontier.enough(c, rows):
        return None
    return frontier.fit(c, y, rows, offset=pinned), (c[rows], y[rows])
