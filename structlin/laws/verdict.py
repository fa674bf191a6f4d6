"""What do the laws say, in one sentence a variant? The multiplier at the lowest loss measured, and how sure it is.

``verdicts`` stand on top of the terminal and of the report, in laws.json and in ``Laws.verdict``. What touches them,
few runs, a short range, a law that does not fit, a best size that no grid holds, stands in them.
"""

from __future__ import annotations

import numpy as np

from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.multiplier import Multiplier

# Cautions that change how a verdict is to be read, and the words for it.
TOUCHING = {
    "few_runs": "few runs",
    "short_range": "less than two decades of compute",
    "rows_share_runs": "rows that share runs, so no intervals",
    "one_curve": "one run is the whole frontier",
    "nested_ranks": "losses of nested ranks lie above those of runs trained at that rank alone",
    "misfit": "L(N, D) does not fit, so its intervals are withheld",
}


def verdicts(laws: Laws) -> dict[str, str]:
    """variant -> one sentence."""
    return {variant: _sentence(laws, variant) for variant in laws.points.variants}


def _sentence(laws: Laws, variant: str) -> str:
    found = laws.multipliers.get(variant)
    said = _against(laws, found) if found is not None else _alone(laws, variant)
    parts = [said, f"measured to {flops(float(laws.points.of(variant)['C'].max()))}"]
    if laws.points.choices.get("count_below", "none") != "none":
        levels = laws.points.choices.get("count_below_loss", [])
        level = f" ({_loss(laws, levels[0])})" if isinstance(levels, list) and levels else ""
        rule = str(laws.points.choices["count_below"])
        below = f"its corpus's {rule}s{level}" if rule in ("bigram", "unigram") else f"{rule} nats"
        parts.append(f"counted below {below}")
    names = {caution.name for caution in laws.cautions if caution.variant in (variant, None)}
    if found is not None:
        names |= {
            c.name for c in laws.cautions if c.variant == found.baseline and c.name in ("few_runs", "short_range")
        }
    parts += [f"caution: {words}" for name, words in TOUCHING.items() if name in names]
    parts += [f"caution: {words}" for words in _edges(laws, found)] if found is not None else []
    return "; ".join(parts)


def _edges(laws: Laws, found: Multiplier) -> list[str]:
    """Whose sizes are all too large, or all too small, at most of the larger half of budgets, and whom that flatters.

    A frontier without its best sizes lies above the true one. Small budgets say little of the lowest loss.
    """
    said = []
    for name, other in ((found.baseline, found.variant), (found.variant, found.baseline)):
        slices = laws.isoflops[name].slices if name in laws.isoflops else []
        edges = [one.edge for one in slices[len(slices) // 2 :]]
        for at in ("smallest", "largest"):
            if 2 * edges.count(at) > len(edges):
                where = f"the {at} of its grid at {edges.count(at)} of the {len(edges)} largest budgets"
                said.append(f"{name}'s best model is {where}, which flatters {other}")
    return said


def _loss(laws: Laws, value: float) -> str:
    """A loss with its unit: nats, but for regressions; an error where that was fitted."""
    task, metric = (
        str(laws.points.frame[key].iloc[0]) if key in laws.points.frame else "" for key in ("task", "metric")
    )
    if metric.endswith("error"):
        return f"an error of {value:.3g}"
    return f"a mean squared error of {value:.3g}" if task == "regression" else f"{value:.3g} nats"


def _against(laws: Laws, found: Multiplier) -> str:
    """``btt needs 0.78 of dense's compute at 1.73 nats [0.54, 0.93]; better with P = .99 from 1e+11 FLOPs on``."""
    value, low, high = found.at_end
    known = np.isfinite(low) and np.isfinite(high) and low > 0
    ends = f" [{1 / high:.2g}, {1 / low:.2g}]" if known else ""
    level = _loss(laws, float(found.loss[-1]))
    text = f"{found.variant} needs {1 / value:.2g} of {found.baseline}'s compute at {level}{ends}"
    return f"{text}; {_side(found)}"


def _side(found: Multiplier) -> str:
    """Better or worse, from where on and how surely; or not told apart."""
    if not np.isfinite(found.better).all() or not np.isfinite(found.mean_interval.low):
        return "how surely is not known"
    for word, share in (("better", found.better), ("worse", 1.0 - found.better)):
        sure = share >= found.confidence
        if sure[-1]:
            start = int(np.flatnonzero(~sure)[-1]) + 1 if not sure.all() else 0
            where = f" from {flops(float(found.flops[start]))} on" if start else " all along"
            return f"{word} with P {probability(float(share[start:].min()))}{where}"
    return f"not told apart from {found.baseline}, P(better) {probability(float(found.better[-1]))}"


def probability(value: float) -> str:
    """``= .93``, ``> .99``, ``< .01``."""
    if value > 0.994:
        return "> .99"
    return "< .01" if value < 0.006 else f"= {value:.2f}".replace("0.", ".")


def flops(value: float) -> str:
    """``1.2e+11 FLOPs``."""
    return f"{value:.2g} FLOPs"


def _alone(laws: Laws, variant: str) -> str:
    """What is known of a variant without a multiplier."""
    frame = laws.points.of(variant)
    best = int(frame["L"].to_numpy(float).argmin())
    text = f"{variant} reached {_loss(laws, float(frame['L'][best]))} at {flops(float(frame['C'][best]))}"
    if variant == laws.baseline:
        return f"{text}; the baseline"
    if laws.baseline is not None:
        return f"{text}; no multiplier: its frontier and {laws.baseline}'s share no losses, or it has too few points"
    law = laws.frontiers.get(variant)
    if law is None:
        return f"{text}; too few points for a frontier"
    ends = laws.frontier_intervals(variant)["a"]
    span = f" [{ends.low:.2g}, {ends.high:.2g}]" if np.isfinite(ends.low) else ""
    return f"{text}; its frontier falls as C^-{law.a:.2g}{span}"
