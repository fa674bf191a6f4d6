"""Do the approaches agree? One table of what 1, 2 and 3 say on the same data, and warnings from reading them together.

    size exponent     a in N_opt ~ C^a: frontier runs (1), parabolas and Akima (2), beta / (alpha + beta) (3)
    loss exponent     a in L - E ~ C^-a: frontier law (1), alpha beta / (alpha + beta) (3)
    optimal size      N at the largest budget with an optimum inside its grid

Approaches whose intervals do not meet are named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structlin.laws.approaches.isoflop import CENTRE, WIDE_RATIO
from structlin.laws.approaches.laws import Laws
from structlin.laws.minimum.objective import Array
from structlin.laws.sampling.bootstrap import corrected, interval

Entry = dict[str, Any]


def agreement(laws: Laws) -> dict[str, list[Entry]]:
    """variant -> rows {quantity, approach, value, interval}; adds ``disagreement`` cautions."""
    table = {v: [*_size(laws, v), *_loss(laws, v), *_optimum(laws, v)] for v in laws.points.variants}
    for variant, rows in table.items():
        for quantity in dict.fromkeys(row["quantity"] for row in rows):
            _compare(laws, variant, quantity, [row for row in rows if row["quantity"] == quantity])
    return table


def _row(
    laws: Laws, quantity: str, approach: str, value: float, samples: Array, factor: float, log: bool = False
) -> Entry:
    ends = interval(samples, value, laws.choices.confidence, factor, log=log)
    return {"quantity": quantity, "approach": approach, "value": value, "interval": ends.record()}


def _parametric_row(
    laws: Laws, variant: str, quantity: str, value: float, samples: Array, *, log: bool = False
) -> Entry:
    """What L(N, D) says; without an interval where its intervals are withheld."""
    row = _row(laws, quantity, "3 parametric", value, samples, laws.parametrics[variant].factor, log)
    return row | {"interval": None} if laws.withholds(variant, "parametric") else row


def _size(laws: Laws, variant: str) -> list[Entry]:
    """Exponents of the optimal size."""
    rows = []
    law = laws.frontiers.get(variant)
    frame = laws.points.of(variant)
    if law is not None and "N" in frame:
        x, y = np.log(frame["C"].to_numpy(float)[law.members]), np.log(frame["N"].to_numpy(float)[law.members])
        if len(np.unique(np.round(y, 6))) >= 3:
            slope = float(np.polyfit(x, y, 1)[0])
            if laws.withholds(variant, "frontier"):
                rows.append({"quantity": "size exponent", "approach": "1 frontier", "value": slope, "interval": None})
            elif len(law.size_errors):
                ends = corrected(slope, law.size_errors, laws.choices.confidence).record()
                rows.append({"quantity": "size exponent", "approach": "1 frontier", "value": slope, "interval": ends})
            else:
                samples = _slopes(x, y, laws.draws[variant].rows[:, law.members])
                factor = laws.factor(variant, "frontier")
                rows.append(_row(laws, "size exponent", "1 frontier", slope, samples, factor))
    found = laws.isoflops.get(variant)
    if found is not None and not laws.withholds(variant, "optima"):
        for name, power in (("2 parabola", found.size), ("2 Akima", found.akima)):
            if power is not None:
                ends = laws.power_interval(variant, power).record()
                rows.append({"quantity": "size exponent", "approach": name, "value": power.exponent, "interval": ends})
    three = laws.parametrics.get(variant)
    if three is not None:
        value = three.fit.law.size_exponent
        rows.append(_parametric_row(laws, variant, "size exponent", value, three.samples["size_exponent"]))
    return rows


def _slopes(x: Array, y: Array, weights: Array) -> Array:
    """Weighted straight-line slopes: weights (b, n) -> (b,)."""
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    dx = x - mean_x[:, None]
    slopes: Array = (weights * dx * (y - mean_y[:, None])).sum(axis=1) / (weights * dx * dx).sum(axis=1)
    return slopes


def _loss(laws: Laws, variant: str) -> list[Entry]:
    """Exponents of the frontier loss."""
    rows = []
    law, three = laws.frontiers.get(variant), laws.parametrics.get(variant)
    if law is not None:
        ends = laws.frontier_intervals(variant)["a"].record()
        rows.append({"quantity": "loss exponent", "approach": "1 frontier", "value": law.a, "interval": ends})
    if three is not None:
        value = three.fit.law.compute_exponent
        rows.append(_parametric_row(laws, variant, "loss exponent", value, three.samples["compute_exponent"]))
    return rows


def _optimum(laws: Laws, variant: str) -> list[Entry]:
    """N_opt at the largest budget whose optimum lies inside its grid."""
    found, three = laws.isoflops.get(variant), laws.parametrics.get(variant)
    inside = [s for s in found.slices if s.edge is None and np.isfinite(s.optimum)] if found else []
    if not inside or laws.withholds(variant, "optima"):
        return []
    s = inside[-1]
    quantity = f"optimal size at {s.budget:.2e} FLOPs"
    ends = laws.power_interval(variant, s).record()
    rows: list[Entry] = [{"quantity": quantity, "approach": "2 parabola", "value": s.optimum, "interval": ends}]
    if three is not None:
        # FLOPs per N D of this variant: 6 by convention, or what its own rows say.
        frame = laws.points.of(variant)
        per = float(np.median(frame["C"] / (frame["N"] * frame["D"])))
        samples = three.laws.optimum(s.budget, per)[0]
        value = float(three.fit.law.optimum(s.budget, per)[0])
        rows.append(_parametric_row(laws, variant, quantity, value, samples, log=True))
    return rows


def _compare(laws: Laws, variant: str, quantity: str, rows: list[Entry]) -> None:
    """A caution where two intervals of one quantity do not meet."""
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            if a["interval"] is None or b["interval"] is None:
                continue
            low, high = (
                max(a["interval"]["low"], b["interval"]["low"]),
                min(a["interval"]["high"], b["interval"]["high"]),
            )
            if low > high:
                text = f"{quantity}: {a['value']:.3g} by approach {a['approach']}, {b['value']:.3g} by {b['approach']}"
                laws.warn("disagreement", text, variant)


def check_design(laws: Laws) -> None:
    """Cautions about the shape of the data: N and D tied together, wide or off-centre grids, floors that differ."""
    for variant in laws.points.variants:
        if variant in laws.isoflops and not laws.withholds(variant, "optima"):
            _grids(laws, variant)
    stated = [v for v in laws.parametrics if not laws.withholds(v, "parametric")]
    floors = {v: laws.parametrics[v].fit.law.E for v in stated}
    if len(floors) > 1:
        ends = {v: laws.parametric_interval(v, "E") for v in stated}
        # The highest lower end against the lowest upper end: if these two meet, all intervals do pairwise.
        low, high = max(ends, key=lambda v: ends[v].low), min(ends, key=lambda v: ends[v].high)
        if ends[low].low > ends[high].high:
            text = (
                f"E is {floors[low]:.3g} for {low}, {floors[high]:.3g} for {high}; one corpus has one floor: see joint"
            )
            laws.warn("spread_of_offset", text)


def _grids(laws: Laws, variant: str) -> None:
    """Wide and off-centre isoFLOP grids of a variant."""
    inside = [s for s in laws.isoflops[variant].slices if s.edge is None and np.isfinite(s.optimum)]
    wide = [s for s in inside if s.size[-1] / s.size[0] > WIDE_RATIO]
    if wide:
        ratio = max(s.size[-1] / s.size[0] for s in wide)
        text = f"{len(wide)} of {len(inside)} grids span up to {ratio:.0f}x in size, more than {WIDE_RATIO:.0f}x"
        laws.warn("wide_grid", text, variant)
    off = []
    for s in inside:
        low, high = np.log(s.size[0]), np.log(s.size[-1])
        if abs((np.log(s.optimum) - low) / (high - low) - 0.5) > CENTRE:
            off.append(s)
    if off:
        laws.warn(
            "off_centre_grid", f"{len(off)} of {len(inside)} optima lie in the outer quarter of their sizes", variant
        )
