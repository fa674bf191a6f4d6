"""What do experts buy? One law over active and total size, beside the fits of every variant.

    L = E + A (T / N)^-zeta N^-alpha g^-eta + B / D^beta        N active, T total size, g granularity

fitted to all mixtures of one family and the plain model of the same family together, in squares of log loss. At equal
loss and tokens a mixture does the work of a model N (T / N)^(zeta / alpha) of active size: the multiplier, over the
number of experts. In the spirit of the routing laws (Clark et al. 2022, arXiv 2202.01169, section 5) and of
fine-grained mixtures (arXiv 2402.07871, eq. 9).

Shapes: n rows, b draws of the runs.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from structlin.laws.approaches import parametric
from structlin.laws.approaches.forms import thinned
from structlin.laws.approaches.laws import Laws
from structlin.laws.minimum.anchored import Axes
from structlin.laws.minimum.forms import SumOfPowers
from structlin.laws.minimum.objective import Array, Objective
from structlin.laws.minimum.solver import minimise
from structlin.laws.sampling.bootstrap import draw, interval, widening

Entry = dict[str, Any]
_SQUARES = Objective("log_squares")
_EVALUATIONS, _REPLICATES, _BETWEEN, _ROWS = 12, 200, 4, 12
_FACTS = {"experts": ("experts", "config.moe.num_experts"), "top_k": ("top_k", "config.moe.top_k")}


def mixtures(laws: Laws) -> Entry:
    """The joint law of each family of mixtures; empty where no table tells active from total size.

    family -> {E, A, B, alpha, beta, zeta, eta, interval, condition, multipliers: [{variant, experts, top_k,
    granularity, ratio, multiplier, interval}]}.
    """
    frame = sizes(laws.points.frame)
    if frame is None:
        return {}
    found: Entry = {}
    for family, part in frame.groupby("family", sort=False):
        # One family needs a mixture, two ratios of the sizes, and rows for its six parameters.
        if part["ratio"].nunique() < 2 or len(part) < _ROWS or part["N"].map("{:.6g}".format).nunique() < 3:
            continue
        found[str(family)] = _family(laws, part.reset_index(drop=True))
    return found


def sizes(frame: pd.DataFrame) -> pd.DataFrame | None:
    """Rows with ratio T / N, granularity and family; None without mixtures or where their sizes are not known."""
    if not {"N", "D"} <= set(frame.columns):
        return None
    active = frame.get("params_active", frame["N"]).astype(float)
    total = frame.get("params_total", frame.get("total"))
    if total is None:
        return None
    ratio = total.astype(float) / active
    if not (ratio > 1.01).any() or ratio.isna().any():
        return None
    # Parameters that no expert has count alike for all: what is left of a plain model's ratio is 1.
    family = frame["variant"].astype(str).map(_family_of)
    granularity = frame["granularity"].astype(float) if "granularity" in frame else pd.Series(1.0, index=frame.index)
    known = {name: _fact(frame, columns) for name, columns in _FACTS.items()}
    return frame.assign(
        ratio=ratio.clip(lower=1.0).round(6), family=_with_plain(family, ratio),
        g=granularity.fillna(1.0).clip(lower=1.0), **known,
    )  # fmt: skip


def _fact(frame: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series:
    for name in columns:
        if name in frame:
            return pd.to_numeric(frame[name], errors="coerce")
    return pd.Series(np.nan, index=frame.index)


def _family_of(variant: str) -> str:
    """moe-btt8 and moe-btt16 -> moe-btt; btt+moe-ffn8 -> btt+moe-ffn."""
    return re.sub(r"\d+", "", variant)


def _with_plain(family: pd.Series, ratio: pd.Series) -> pd.Series:
    """The family, and for plain models that of the first mixture: there the ratio 1 is measured."""
    mixed = family[ratio > 1.01]
    names = list(dict.fromkeys(mixed))
    return family.where(ratio > 1.01, names[0] if len(names) == 1 else family)


def _model(part: pd.DataFrame, with_g: bool) -> tuple[SumOfPowers, Axes]:
    """The law; theta = (E, log A', log B', alpha, beta, zeta[, eta])."""
    axes = Axes.of(part["N"].to_numpy(float), part["D"].to_numpy(float))
    plain = axes.powers()
    extra = [-np.log(part["ratio"].to_numpy(float))] + ([-np.log(part["g"].to_numpy(float))] if with_g else [])
    more, zero = np.column_stack(extra), np.zeros((len(part), len(extra)))
    powers = (np.hstack([plain.powers[0], more]), np.hstack([plain.powers[1], zero]))
    lower = np.append(plain.lower, [-3.0] * len(extra))
    upper = np.append(plain.upper, [3.0] * len(extra))
    return SumOfPowers(np.hstack([plain.constant, zero]), powers, lower, upper), axes


def _family(laws: Laws, part: pd.DataFrame) -> Entry:
    """The law of one family with its multipliers."""
    draws = draw(part.assign(variant="family"), min(_REPLICATES, laws.choices.bootstrap), laws.choices.seed)["family"]
    keep = thinned(draws.index, part["C"].to_numpy(float), _EVALUATIONS)
    seen = part.iloc[keep].reset_index(drop=True)
    loss = seen["L"].to_numpy(float)
    with_g = seen["g"].nunique() > 1
    model, axes = _model(seen, with_g)
    first = parametric.fit(seen["N"].to_numpy(float), seen["D"].to_numpy(float), loss, _SQUARES).theta
    extra = 2 if with_g else 1
    begin = np.array([np.append(first, [zeta] * extra) for zeta in (0.0, 0.1, 0.3)])
    best = minimise(model, _SQUARES, loss, begin, tolerance=1e-10)
    theta = best.theta[int(np.argmin(best.value))]
    again = minimise(
        model, _SQUARES, loss, np.repeat(theta[None], len(draws.weights), axis=0),
        weights=draws.weights[:, draws.index[keep]], tolerance=1e-6, max_iterations=40,
    ).theta  # fmt: skip
    factor = widening(len(draws.runs), _BETWEEN, laws.choices.confidence)
    names = ["E", "log_A", "log_B", "alpha", "beta", "zeta", "eta"][: len(theta)]
    ends = {
        name: interval(again[:, k], float(theta[k]), laws.choices.confidence, factor).record()
        for k, name in enumerate(names) if not name.startswith("log")
    }  # fmt: skip
    law = parametric.law_of(theta[:5], (axes.centre[0], axes.centre[1]))
    return {
        "E": law.E, "A": law.A, "B": law.B, "alpha": law.alpha, "beta": law.beta, "zeta": float(theta[5]),
        "eta": float(theta[6]) if with_g else None, "interval": ends, "rows": len(seen), "runs": len(draws.runs),
        "residual_std": float(np.std(np.log(model.predict(theta[None])[0] / loss))),
        "multipliers": _multipliers(laws, part, theta, again, factor),
    }  # fmt: skip


def _multipliers(laws: Laws, part: pd.DataFrame, theta: Array, again: Array, factor: float) -> list[Entry]:
    """What active size a plain model would need for the same loss, over that of each mixture."""
    rows = []
    for variant, own in part.groupby("variant", sort=False):
        ratio, g = float(own["ratio"].median()), float(own["g"].median())
        if ratio <= 1.01:
            continue

        def log_multiplier(values: Array, ratio: float = ratio, g: float = g) -> Array:
            power = values[:, 5] * np.log(ratio) + (values[:, 6] * np.log(g) if values.shape[1] > 6 else 0.0)
            return np.asarray(power / values[:, 3])

        value = float(log_multiplier(theta[None])[0])
        ends = interval(log_multiplier(again), value, laws.choices.confidence, factor)
        known = np.isfinite(ends.low)
        rows.append(
            {"variant": str(variant), "experts": _one(own["experts"]), "top_k": _one(own["top_k"]), "granularity": g,
             "ratio": ratio, "multiplier": float(np.exp(value)),
             "interval": {"low": float(np.exp(ends.low)), "high": float(np.exp(ends.high))} if known else None}
        )  # fmt: skip
    return rows


def _one(values: pd.Series) -> float | None:
    """The median of a fact, None where it is not known."""
    known = values.dropna()
    return float(known.median()) if len(known) else None
