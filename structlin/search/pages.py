"""What does a search look like? Charts of its record: losses by rung, P(best), and losses over the taxonomy."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import colour_of, marker_of
from structlin.search import report
from structlin.search.arms import AXES

Entry = dict[str, Any]
_LABELS = {
    "omega": "ω: FLOPs per parameter\ngrow as d^ω",
    "psi": "ψ: rank grows as d^ψ",
    "nu": "ν: FLOPs grow as d^(1+ν)",
}


def drawing(found: Entry, unit: str = "nats") -> Drawing:
    """The figure of a record."""
    done = [rung for rung in found["rungs"] if rung["done"]]
    names = list(dict.fromkeys(one["name"] for rung in done for one in rung["arms"]))
    look = {name: (colour_of(names, name), marker_of(names, name)) for name in names}
    panels = [_losses(done, names, look, unit), _best(done, names, look)]
    panels += [_axis(found, done[0], axis, look) for axis in AXES if done]
    predictors = ", ".join(f"rung {rung['rung']} by {rung['predictor']}" for rung in done)
    winner = found["winner"]
    chosen = "" if winner is None else f" Chosen: {winner['name']}, P(best) = {winner['best']:.2f}."
    share = f"{found['spent']:.3g} training FLOPs, {100 * found['spent'] / found['everything']:.0f}%"
    caption = (
        f"Predicted loss at {found['target']:.3g} training FLOPs with {100 * found['confidence']:.0f}% intervals, as "
        "each rung foretold it (faint: measured there); P(best); and what the first rung foretold over omega, psi and "
        "nu, relative to the mean of its arms (grey: proposed by the surrogate). "
        f"{predictors or 'No rung is decided yet'}. {share} of everything at the top.{chosen}"
    )
    return Drawing(
        "search", "Search over structures", caption, tuple(panels), columns=2, shared_legend=True,
        called={name: name for name in names},
    )  # fmt: skip


Look = dict[str, tuple[str, str]]


def _losses(done: list[Entry], names: list[str], look: Look, unit: str) -> Panel:
    series = []
    for name in names:
        rows = [(r["flops"], one) for r in done for one in r["arms"] if one["name"] == name and "predicted" in one]
        if not rows:
            continue
        x, y, low, high, seen = (
            np.array(
                [values[k] for values in ((f, o["predicted"], o["low"], o["high"], o["measured"]) for f, o in rows)]
            )
            for k in range(5)
        )
        series.append(Series(name, name, x, y, "joined", *look[name], low, high))
        series.append(Series("", name, x, seen, "faint", *look[name]))
    return Panel(
        "as each rung foretold", "training FLOPs of a run at the rung", f"loss at the target [{unit}]", tuple(series)
    )


def _best(done: list[Entry], names: list[str], look: Look) -> Panel:
    series = []
    for name in names:
        rows = [(r["flops"], one["best"]) for r in done for one in r["arms"] if one["name"] == name and "best" in one]
        if rows:
            x, y = np.array(rows, float).T
            series.append(Series(name, name, x, y, "joined", *look[name]))
    return Panel("P(best)", "training FLOPs of a run at the rung", "P(best at the target)", tuple(series), y_log=False)


def _axis(found: Entry, first: Entry, axis: str, look: Look) -> Panel:
    """All arms of the first rung over an axis of the taxonomy, and what the surrogate proposed by them."""
    places = {arm["name"]: float(arm[axis]) for arm in found["arms"]}
    series = []
    for one in first["arms"]:
        if "ratio" in one:
            x, (value, low, high) = np.array([places[one["name"]]]), (np.array([end]) for end in one["ratio"])
            series.append(Series(one["name"], one["name"], x, value, "points", *look[one["name"]], low, high))
    predicted = [one["predicted"] for one in first["arms"] if "predicted" in one]
    middle = float(np.exp(np.mean(np.log(predicted))))
    for new in first.get("proposals", ()):
        value = np.array([new["expected_loss"] / middle])
        ends = value * np.exp(-new["spread"]), value * np.exp(new["spread"])
        mark = Series("proposed", "proposed", np.array([float(new[axis])]), value, "points", "#777777", "*", *ends)
        series.append(mark if not any(one.label == "proposed" for one in series) else replace(mark, label=""))
    return Panel(f"rung 0 over {axis}", _LABELS[axis], "loss over the arms' mean", tuple(series),
                 x_log=False, y_log=False, level=1.0, spread=0.008)  # fmt: skip


def page(found: Entry) -> str:
    """One offline page: what was found, the charts, and a table of each rung."""
    from structlin.drawing.charts import boxes, charts
    from structlin.drawing.sheet import sheet, table

    one = drawing(found)
    tables = "".join(
        table(f"Rung {rung['rung']}: {rung['flops']:.3g} FLOPs a run", _note(rung), COLUMNS, _rows(rung))
        + _proposed(rung)
        for rung in reversed(found["rungs"])
        if rung["done"]
    )
    summary = " ".join(report.said(found | {"rungs": []})) or one.caption
    return sheet(title=one.title, summary=summary, charts=charts(one), toggles=boxes([one]), before="", after=tables)


COLUMNS = ("arm", "measured", "at the target", "low", "high", "P(best)", "after")


def _rows(rung: Entry) -> list[list[str]]:
    keys = ("measured", "predicted", "low", "high", "best")
    return [[one["name"], *(_number(one.get(key)) for key in keys), one["after"]] for one in rung["arms"]]


def _note(rung: Entry) -> str:
    errors = ", ".join(f"{name} {100 * score['error']:.2g}%" for name, score in rung["scores"].items())
    return (
        f"Decided by {rung['predictor']}; expected error between arms at the target: {errors or 'not tested'}. "
        f"{rung['training_flops']:.3g} training FLOPs."
    )


def _proposed(rung: Entry) -> str:
    lines = "".join(f"<li>{escape(report.proposal_said(one))}</li>" for one in rung["proposals"])
    return f"<p>Proposed:</p><ul>{lines}</ul>" if lines else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
