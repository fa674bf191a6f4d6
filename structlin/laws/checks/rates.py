"""Which learning rate and batch are best for a size and tokens? Optima of every group, and a law through them.

Runs of one variant, size and tokens that differ in rate (or batch) alone form a group; a parabola in the logarithm
gives its optimum where the lowest loss is not at an end. Through the optima goes x = K N^n D^d, in the powers that
vary, with Student intervals over groups. Source of the shape: arXiv 2401.02954, section 3.1.

Shapes: g groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from structlin.laws.approaches.isoflop import parabolas, vertex
from structlin.laws.approaches.laws import Laws
from structlin.laws.evaluations.quantities import words
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.quantiles import student_quantile

Entry = dict[str, Any]
TUNED = {"learning_rate": "learning rate", "batch_tokens": "batch"}
"""Column -> what it is called in laws.json and tables."""
# Values that a parabola needs, and how near in tokens (in logarithms) runs of one group end.
MIN_VALUES, _SAME_TOKENS = 3, 0.02
# Columns besides size, tokens and seed that a group has one value of.
_ALIKE = ("rate_rule", "schedule", "optimizer", "data", "task", "theta")


def rates(laws: Laws) -> dict[str, dict[str, Entry]]:
    """variant -> learning rate and batch -> {size, tokens, constant, interval, optima}; those that a sweep varies."""
    frame = laws.points.tuned
    found: dict[str, dict[str, Entry]] = {}
    if frame.empty or not {"N", "D"} <= set(frame.columns):
        return found
    for variant, part in frame.groupby("variant", sort=False):
        for column, name in TUNED.items():
            if column in part and part[column].nunique() >= MIN_VALUES:
                optima = list(optima_of(part, column))
                if optima:
                    found.setdefault(str(variant), {})[name] = law_of(optima, laws.choices.confidence)
    return found


def optima_of(frame: pd.DataFrame, column: str) -> Iterator[Entry]:
    """The optimum of every size and tokens: {params, tokens, value, edge, values, loss, width}; value None at an edge.

    The mean over seeds counts, of the last evaluation of every run; columns N, D, L, run, and the tuned one.
    """
    last = frame.loc[frame.groupby("run")["D"].idxmax()]
    last = last[np.isfinite(last["L"]) & (last[column] > 0)]
    others = [name for name in TUNED if name != column and name in last and last[name].nunique() > 1]
    keys = [last["N"].map("{:.6g}".format), (np.log(last["D"]) / _SAME_TOKENS).round()]
    keys += [words(last[name]) for name in (*_ALIKE, *others) if name in last and last[name].nunique() > 1]
    for _, group in last.groupby(keys, sort=False):
        losses = group.groupby(column)["L"].mean().sort_index()
        if len(losses) < MIN_VALUES:
            continue
        x, y = np.log(losses.index.to_numpy(float)), losses.to_numpy(float)
        best = int(np.argmin(y))
        edge = "lowest" if best == 0 else "highest" if best == len(y) - 1 else None
        value = None if edge else _optimum(x, y, best)
        width = group["width"].iloc[0] if "width" in group else np.nan
        yield {
            "params": float(group["N"].mean()), "tokens": float(group["D"].mean()), "width": float(width),
            "value": value, "edge": edge, "values": np.exp(x).tolist(), "loss": y.tolist(),
        }  # fmt: skip


def _optimum(x: Array, y: Array, best: int) -> float:
    """Where a parabola through the best value and two on either side has its lowest point; the best without one."""
    near = slice(max(0, best - 2), best + 3)
    u, v = x[near] - x[best], np.log(y[near])
    lowest = float(vertex(u, parabolas(u, v[None], np.ones((1, len(u)))))[0])
    return float(np.exp(x[best] + lowest)) if np.isfinite(lowest) else float(np.exp(x[best]))


def _in_step(x: Array, y: Array) -> bool:
    """Whether two logarithms lie on one line."""
    return bool(abs(np.corrcoef(x, y)[0, 1]) > 0.99)


def law_of(optima: list[Entry], confidence: float) -> Entry:
    """x = K N^n D^d through the optima inside their values; a power that does not vary, or has too few, is null."""
    known = [one for one in optima if one["value"] is not None]
    empty: Entry = {"size": None, "tokens": None, "constant": None, "interval": {"size": None, "tokens": None}}
    if len(known) < 2:
        return {**empty, "optima": optima}
    columns = {key: np.log([one[name] for one in known]) for key, name in (("size", "params"), ("tokens", "tokens"))}
    varying = [key for key, x in columns.items() if np.ptp(x) > 0.1]
    # Two powers need optima that do not lie on one line.
    if len(varying) == 2 and (len(known) < 4 or _in_step(columns["size"], columns["tokens"])):
        varying = varying[:1]
    design = np.column_stack([np.ones(len(known)), *(columns[key] for key in varying)])
    y = np.log([one["value"] for one in known])
    answer, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    degrees = len(y) - int(rank)
    spread = float(np.sum((y - design @ answer) ** 2)) / max(degrees, 1)
    errors = np.sqrt(np.maximum(np.diag(np.linalg.pinv(design.T @ design)) * spread, 0.0))
    law = {**empty, "constant": float(np.exp(answer[0])), "optima": optima, "interval": dict(empty["interval"])}
    for k, key in enumerate(varying, start=1):
        law[key] = float(answer[k])
        if degrees:
            reach = student_quantile(degrees, 0.5 + 0.5 * confidence) * float(errors[k])
            law["interval"][key] = {"low": float(answer[k]) - reach, "high": float(answer[k]) + reach}
    return law
