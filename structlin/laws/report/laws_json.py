"""What stands in laws.json? Every number of the fits in full precision, with every choice that led to it.

    {"choices", "frontier": {variant}, "isoflop": {variant}, "parametric": {variant}, "multipliers": {variant},
     "form": {variant}, "forms": {variant: {form}}, "verdict": {variant}, "predictions": [...], "residuals": {variant},
     "joint", "backtest", "agreement", "sensitivity", "resources", "design", "warnings": [...]}

A number that does not exist (no optimum inside the grid) or is withheld is null, and so is a withheld
interval. Floats are Python's shortest exact form.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from structlin import __version__
from structlin.host.files import write_atomically
from structlin.laws.approaches.isoflop import Isoflop, PowerLaw
from structlin.laws.approaches.laws import BETWEEN, Laws, Parametric
from structlin.laws.approaches.multiplier import MEANS, Multiplier
from structlin.laws.approaches.parametric import EXTRA
from structlin.laws.predictions import predict
from structlin.laws.sampling.bootstrap import Interval
from structlin.laws.verdict import verdicts

LAWS_FORMAT = 1


def record(laws: Laws) -> dict[str, Any]:
    """All results as plain Python."""
    found: dict[str, Any] = {
        "choices": choices(laws),
        "frontier": {v: frontier(laws, v) for v in laws.frontiers},
        "isoflop": {v: isoflop(laws, v, fit) for v, fit in laws.isoflops.items()},
        "parametric": {v: parametric(laws, v, fit) for v, fit in laws.parametrics.items()},
        "multipliers": {v: multiplier(m) for v, m in laws.multipliers.items()},
        "form": {v: fit.fit.form for v, fit in laws.parametrics.items()},
        "forms": {v: fit.choice.record() for v, fit in laws.parametrics.items()},
        "verdict": verdicts(laws),
        "predictions": predict(laws, laws.choices.predict, laws.choices.predict_loss),
        "withheld": {v: sorted(parts) for v, parts in laws.withheld.items()},
    }
    found.update(laws.checked.record())
    found["data"] = {v: ranges(laws, v) for v in laws.points.variants}
    found["residuals"] = {v: residuals(laws, v) for v in laws.parametrics}
    found["warnings"] = [caution.record() for caution in laws.cautions]
    return found


def choices(laws: Laws) -> dict[str, Any]:
    """What the user chose, what was decided from the data, and what each fit rests on."""
    return {
        **laws.choices.record(),
        "laws_format": LAWS_FORMAT,
        "version": __version__,
        "data": laws.points.choices,
        "baseline_used": laws.baseline,
        "frontier_fit": "squares of log loss, E >= 0, global minimum over a grid of exponents",
        "resampling": "runs, exponential weights and moves by their mean residual, paired by size and seed",
        "widening": {v: {fit: laws.factor(v, fit) for fit in BETWEEN} for v in laws.points.variants},
    }


def ranges(laws: Laws, variant: str) -> dict[str, Any]:
    """What was measured of a variant."""
    frame = laws.points.of(variant)
    columns = {"flops": "C", "loss": "L", "params": "N", "tokens": "D"}
    found = {name: [float(frame[c].min()), float(frame[c].max())] for name, c in columns.items() if c in frame}
    return {**found, "runs": int(frame["run"].nunique()), "evaluations": len(frame)}


def residuals(laws: Laws, variant: str) -> dict[str, list[Any]]:
    """Every row that L(N, D) was fitted to, and log(predicted / measured) there."""
    frame = laws.points.of(variant)
    columns = {"run": "run", "params": "N", "tokens": "D", "flops": "C", "loss": "L"}
    found = {name: frame[column].tolist() for name, column in columns.items()}
    return {**found, "residual": laws.parametrics[variant].fit.residuals.tolist()}


def frontier(laws: Laws, variant: str) -> dict[str, Any]:
    """L = E + A C^-a of one variant."""
    law = laws.frontiers[variant]
    frame = laws.points.of(variant)
    return {
        "E": None if laws.withholds(variant, "floor") else law.E,
        "A": law.A,
        "a": law.a,
        "corrected": laws.corrected(variant),
        "uncorrected": laws.uncorrected.get(variant),
        "simulated": len(law.errors),
        "interval": {name: ends.record() for name, ends in laws.frontier_intervals(variant).items()},
        "objective": law.objective,
        "tolerance": law.tolerance,
        "n": len(law.members),
        "runs": len(laws.draws[variant].runs),
        "evaluations": len(frame),
        "flops_range": list(law.span),
        "loss_range": list(law.losses),
        "points": [
            {"run": str(frame["run"][i]), "flops": float(frame["C"][i]), "loss": float(frame["L"][i])}
            for i in law.members
        ],
    }


def _power_law(laws: Laws, variant: str, law: PowerLaw | None) -> dict[str, Any] | None:
    if law is None or laws.withholds(variant, "optima"):
        return None
    return {
        "coefficient": law.coefficient,
        "exponent": law.exponent,
        "interval": {"exponent": laws.power_interval(variant, law).record()},
    }


def isoflop(laws: Laws, variant: str, found: Isoflop) -> dict[str, Any]:
    """Optima per budget and their power laws."""
    budgets = []
    for s in found.slices:
        known = s.edge is None and np.isfinite(s.optimum) and not laws.withholds(variant, "optima")
        budgets.append(
            {
                "budget": s.budget,
                "optimal_size": s.optimum if known else None,
                "optimal_tokens": s.at(s.optimum, s.tokens) if known else None,
                "optimal_width": s.at(s.optimum, s.width) if known and np.isfinite(s.width).all() else None,
                "akima_size": s.akima if known and np.isfinite(s.akima) else None,
                "interval": {"optimal_size": laws.power_interval(variant, s).record()} if known else None,
                "edge": s.edge,
                "best_size": float(s.size[s.best]),
                "best_width": float(s.width[s.best]),
                "best_tokens": float(s.tokens[s.best]),
                "best_loss": float(s.loss[s.best]),
                "models": len(s.size),
            }
        )
    return {
        "budgets": budgets,
        "size": _power_law(laws, variant, found.size),
        "tokens": _power_law(laws, variant, found.tokens),
        "width": _power_law(laws, variant, found.width),
        "akima_size": _power_law(laws, variant, found.akima),
    }


def parametric(laws: Laws, variant: str, found: Parametric) -> dict[str, Any]:
    """L(N, D) of one variant with its certificate."""
    fit, law = found.fit, found.fit.law
    names = ["E", "A", "B", "alpha", "beta", "size_exponent", "tokens_exponent", "compute_exponent"]
    if fit.form in EXTRA:
        names.append(EXTRA[fit.form])
    values: dict[str, float | None] = {name: float(getattr(law, name)) for name in names}
    if laws.withholds(variant, "floor"):
        values["E"] = None
    return {
        **values,
        "form": fit.form,
        "repeat": found.repeat,
        "weighted_by_seeds": variant in laws.scales,
        "objective": fit.objective,
        "objective_kind": laws.choices.objective,
        "delta": laws.choices.delta,
        "n": len(fit.residuals),
        "runs": len(laws.draws[variant].runs),
        "replicates": len(found.samples["E"]),
        "interval": {name: laws.parametric_interval(variant, name).record() for name in names}
        | ({"repeat": found.repeat_interval.record()} if found.repeat_interval else {}),
        "gradient_norm": fit.gradient_norm,
        "converged": fit.converged,
        "condition": fit.condition,
        "bound_distance": fit.bound_distance,
        "basins": list(fit.basins),
        "residual_std": float(np.std(fit.residuals)),
    }


def multiplier(found: Multiplier) -> dict[str, Any]:
    """One compute multiplier."""
    value, low, high = found.at_end
    return {
        "baseline": found.baseline,
        "procedure": found.procedure,
        "mean_over": MEANS[found.procedure],
        "mean_flops_range": [float(found.flops[0]), float(found.flops[-1])],
        "mean": found.mean,
        "std": found.std,
        "observations": found.observations,
        "interval": {"mean": found.mean_interval.record(), "at_end": Interval(low, high).record()},
        "at_end": value,
        "curve": [
            {"loss": a, "flops": b, "value": c, "low": d, "high": e, "better": f}
            for a, b, c, d, e, f in zip(
                *(x.tolist() for x in (found.loss, found.flops, found.value, found.low, found.high, found.better)),
                strict=True,
            )
        ],
        "crossing_flops": found.crossing,
        "crossing_interval": found.crossing_interval.record() if found.crossing_interval else None,
        "crossing_share": found.crossing_share,
        "better": float(found.better[-1]),
        "flops_range": [float(found.flops[0]), float(found.flops[-1])],
        "extrapolated": {
            "flops": found.beyond[0],
            "value": found.beyond[1],
            "interval": found.beyond[2].record(),
        },
    }


def plain(value: Any) -> Any:
    """numpy to Python, and numbers JSON does not know (NaN, infinity) to null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(found: dict[str, Any], path: Path) -> None:
    """Write laws.json."""
    write_atomically(path, (json.dumps(plain(found), indent=1, allow_nan=False) + "\n").encode())
