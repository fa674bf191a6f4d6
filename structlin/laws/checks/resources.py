"""Is a structure still better by the clock, its parameters, its memory, in decoding? Multipliers in five resources.

The papers rank low rank oppositely by FLOPs and by parameters, so the same multiplier is computed with another
resource where FLOPs stand: seconds of one worker (tokens over measured tokens per second), parameters, the bytes
of training: 16 a parameter (weight, gradient, two moments) and kept activations, and milliseconds a token in decoding
one text. A resource that does not grow along a run (all but FLOPs and seconds) has a frontier of the best loss each
size reached in this sweep, which depends on how long it was trained. A mean that is uniform in log C is here uniform
in the logarithm of the resource.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structlin.laws.approaches import frontier, hull, multiplier
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.multiplier import Multiplier

RESOURCES = {
    "C": "FLOPs",
    "seconds": "wall-clock",
    "params": "parameters",
    "memory": "memory",
    "decode": "decoding",
}
UNITS = {
    "C": "FLOPs",
    "seconds": "seconds of one worker",
    "params": "parameters",
    "memory": "bytes of training",
    "decode": "ms a token of decoding",
}
_REPLICATES = 200


def multipliers_of(laws: Laws, column: str) -> dict[str, Multiplier]:
    """Multiplier of every variant against the baseline with ``column`` as the resource; empty where it is not known."""
    frame = laws.points.frame
    if laws.baseline is None or column not in frame or not np.isfinite(frame[column].astype(float)).any():
        return {}
    fits = {}
    for variant in laws.points.variants:
        part = laws.points.of(variant)
        known = np.isfinite(part[column].to_numpy(float)) & (part[column].to_numpy(float) > 0)
        if not known.all():
            continue
        resource, loss = part[column].to_numpy(float), part["L"].to_numpy()
        tolerance = frontier.tolerance_for(resource, loss, laws.choices)
        rows = hull.members(resource, loss, tolerance=tolerance, offset=laws.choices.frontier_offset or 0.0)
        if not frontier.enough(resource, rows):
            continue
        law = frontier.fit(resource, loss, rows, offset=laws.choices.frontier_offset, tolerance=tolerance)
        count = min(_REPLICATES, laws.choices.bootstrap)
        draws, effects = laws.draws[variant], laws.effects(variant)
        fits[variant] = (
            frontier.resample(law, resource, loss, draws, effects, laws.choices, count),
            (resource[rows], loss[rows]),
        )
    if laws.baseline not in fits:
        return {}
    found = {}
    for variant, (law, observed) in fits.items():
        if variant == laws.baseline:
            continue
        factor = max(laws.factor(variant, "multiplier"), laws.factor(laws.baseline, "multiplier"))
        one = multiplier.compare(
            variant, law, observed, laws.baseline, fits[laws.baseline][0],
            confidence=laws.choices.confidence, factor=factor, procedure=laws.choices.procedure,
        )  # fmt: skip
        if one is not None:
            found[variant] = one
    return found


def resources(laws: Laws) -> dict[str, Any]:
    """variant -> resource -> mean, std, interval and number of observations; null where it was not measured."""
    if not laws.multipliers:
        return {}
    by_resource = {column: laws.multipliers if column == "C" else multipliers_of(laws, column) for column in RESOURCES}
    out: dict[str, Any] = {}
    for variant in laws.multipliers:
        out[variant] = {}
        for column, name in RESOURCES.items():
            m = by_resource[column].get(variant)
            out[variant][name] = None if m is None else {
                "mean": m.mean, "std": m.std, "observations": m.observations,
                "interval": {"mean": m.mean_interval.record()}, "unit": UNITS[column],
            }  # fmt: skip
    return out
