"""Which curves does the report show? Each chart as plain data: axes, and series with a variant, a style and points.

The page (web/report.js) knows nothing of laws: it draws what stands here, with one toggle per variant over all
charts, logarithmic or linear axes, and values under the pointer.

    {"id", "title", "note", "x": {"label", "log"}, "y": {"label", "log"},
     "level": a horizontal line, where better and worse divide,
     "series": [{"label", "variant", "colour", "style", "x": [...], "y": [...], "low"?, "high"?}]}

style: points | line | faint | dashed | band (with low and high).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from structlin.drawing.style import colour_of, ordered
from structlin.laws.approaches.fit import Laws
from structlin.laws.minimum.objective import Array
from structlin.laws.report.figures import flops_label

Chart = dict[str, Any]
# Runs and evaluations of one variant drawn on the page; a page of every evaluation would not open on a phone.
_MAX_RUNS, _MAX_POINTS = 60, 40


def _numbers(values: Array) -> list[float | None]:
    """Six significant digits: the page shows four, laws.json has them all."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float).tolist()]


def _series(label: str, variant: str, own: str, style: str, x: Array, y: Array, **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "variant": variant,
        "colour": own,
        "style": style,
        "x": _numbers(x),
        "y": _numbers(y),
        **more,
    }


def frontier(laws: Laws) -> Chart:
    """Loss against compute: runs, frontier points, laws."""
    series = []
    for variant in ordered(laws.points.variants):
        frame, own = laws.points.of(variant), colour_of(laws.points.variants, variant)
        runs = laws.points.runs_of(variant, _MAX_RUNS)
        if max(len(c) for _, c, _ in runs) == 1:
            keep = frame.iloc[:: -(-len(frame) // 1000)].sort_values("C")
            x, y = keep["C"].to_numpy(), keep["L"].to_numpy()
            series.append(_series(f"{variant}: runs", variant, own, "faint", x, y))
        else:
            for run, x, y in runs:
                some = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MAX_POINTS)).astype(int))
                series.append(_series(run, variant, own, "faint", x[some], y[some]))
        law = laws.frontiers.get(variant)
        if law is None:
            continue
        rows = laws.points.of(variant).iloc[law.members]
        series.append(
            _series(f"{variant}: frontier", variant, own, "points", rows["C"].to_numpy(), rows["L"].to_numpy())
        )
        fine = np.geomspace(law.span[0] / 1.5, law.span[1] * 4, 60)
        label = f"{variant}: {law.E:.3f} + {law.A:.3g} C^-{law.a:.3f}"
        series.append(_series(label, variant, own, "dashed", fine, law.loss(fine)))
    return {
        "id": "frontier", "title": "Frontier", "series": series,
        "note": "Runs faint, evaluations on the lower hull as dots, the law L = E + A C^-a dashed.",
        "x": {"label": flops_label(laws), "log": True}, "y": {"label": "loss, nats per token", "log": True},
    }  # fmt: skip


def multipliers(laws: Laws) -> Chart | None:
    """Multiplier over the baseline's compute, with bands."""
    if not laws.multipliers:
        return None
    series = []
    for variant in ordered(laws.multipliers):
        m, own = laws.multipliers[variant], colour_of(laws.points.variants, variant)
        band = {"low": _numbers(m.low), "high": _numbers(m.high)}
        series.append(_series(variant, variant, own, "band", m.flops, m.value, **band))
    return {
        "id": "multipliers", "level": 1.0, "title": f"Compute multiplier against {laws.baseline}", "series": series,
        "note": f"Above 1 a structure needs less compute than {laws.baseline} for the same loss. Bands: "
        f"{100 * laws.choices.confidence:.0f}% over resampled runs.",
        "x": {"label": f"{laws.baseline}: {flops_label(laws)}", "log": True},
        "y": {"label": "multiplier", "log": False},
    }  # fmt: skip


def isoflops(laws: Laws) -> list[Chart]:
    """Loss over model size for every budget, one chart per variant."""
    charts: list[Chart] = []
    for variant, found in laws.isoflops.items():
        series = []
        step = -(-len(found.slices) // 8)
        for k, s in enumerate(found.slices[::step]):
            own = _shade(k / max(len(found.slices[::step]) - 1, 1))
            series.append(_series(f"{s.budget:.2e} FLOPs", variant, own, "points", s.size, s.loss))
            x = np.linspace(np.log(s.size[0]), np.log(s.size[-1]), 90)
            y = np.polyval(s.parabola[::-1], x - np.log(s.size).mean())
            series.append(_series(f"{s.budget:.2e} parabola", variant, own, "line", np.exp(x), y))
        charts.append(
            {
                "id": f"isoflop-{len(charts)}", "title": f"IsoFLOP curves: {variant}", "series": series,
                "note": "Each colour is one budget, dark to light. A curve that still falls at its end has its optimum "
                "outside the sizes that were trained.",
                "x": {"label": "model size N", "log": True}, "y": {"label": "loss, nats per token", "log": False},
            }
        )  # fmt: skip
    return charts


def _shade(part: float) -> str:
    """A step from dark blue to yellow-green, even in lightness."""
    stops = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [190, 200, 30]], dtype=float)
    r, g, b = (np.interp(part * 4, range(5), stops[:, i]) for i in range(3))
    return f"#{int(r):02x}{int(g):02x}{int(b):02x}"


def residuals(laws: Laws) -> Chart | None:
    """Relative error of the parametric law at every row."""
    if not laws.parametrics:
        return None
    series = []
    for variant, found in laws.parametrics.items():
        frame, own = laws.points.of(variant), colour_of(laws.points.variants, variant)
        keep = np.unique(np.linspace(0, len(frame) - 1, 1500).astype(int))
        order = keep[np.argsort(frame["C"].to_numpy()[keep])]
        x, y = frame["C"].to_numpy()[order], 100 * found.fit.residuals[order]
        series.append(_series(variant, variant, own, "points", x, y))
    return {
        "id": "residuals", "level": 0.0, "title": "Residuals of L(N, D)", "series": series,
        "note": "A law that fits leaves no trend: points scatter evenly about zero.",
        "x": {"label": flops_label(laws), "log": True}, "y": {"label": "predicted / measured - 1, %", "log": False},
    }  # fmt: skip


def backtests(laws: Laws) -> Chart | None:
    """Error of the frontier law above each cut, over how far it had to reach."""
    series = []
    for variant, cuts in (laws.checked.backtest or {}).get("variants", {}).items():
        own = colour_of(laws.points.variants, variant)
        for fit, style in (("frontier", "line"), ("parametric", "dashed")):
            rows = [(row["reach"], 100 * row[fit]["error"]) for row in cuts if row[fit]]
            if rows:
                x, y = np.array(rows).T
                series.append(_series(f"{variant}: {fit}", variant, own, style, x[::-1], y[::-1]))
                series.append(_series(f"{variant}: {fit}", variant, own, "points", x[::-1], y[::-1]))
    if not series:
        return None
    return {
        "id": "backtest", "title": "Backtest", "series": series,
        "note": "Laws fitted below a compute cut, asked about everything above it. Frontier law solid, L(N, D) dashed.",
        "x": {"label": "largest compute / cut", "log": True},
        "y": {"label": "error of predicted loss, %", "log": False},
    }  # fmt: skip


def charts(laws: Laws) -> list[Chart]:
    """All charts of the report, in the order of the page."""
    found = [frontier(laws), multipliers(laws), *isoflops(laws), backtests(laws), residuals(laws)]
    return [chart for chart in found if chart is not None]
