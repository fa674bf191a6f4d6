"""What does a search look like? Charts of its record: losses by rung, P(best), and losses over the taxonomy.

The arms that went furthest have colours and names; all that left before are grey, and named in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
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


ALWAYS = ("dense", "btt")
MOST_TOLD = 8
"""Arms with a colour of their own, besides dense and btt."""
OTHERS, GREY = "others", "#9a9a9a"


def drawing(found: Entry, unit: str = "nats") -> Drawing:
    """The figure of a record."""
    done = [rung for rung in found["rungs"] if rung["done"]]
    names = _told_apart(done)
    look = {name: (colour_of(names, name), marker_of(names, name)) for name in names}
    panels = [_losses(done, look, unit), _best(done, look)]
    panels += [_axis(found, done[0], axis, look) for axis in AXES if done]
    return Drawing(
        "search", "Search over structures", _caption(found, done, names), tuple(panels), columns=2, shared_legend=True,
        called={name: name for name in (*names, OTHERS)},
    )  # fmt: skip


def _caption(found: Entry, done: list[Entry], told: list[str]) -> str:
    predictors = ", ".join(f"rung {rung['rung']} by {rung['predictor']}" for rung in done).capitalize()
    winner = found["winner"]
    chosen = "" if winner is None else f" Chosen: {winner['name']}, P(best) = {winner['best']:.2f}."
    share = f"{found['spent']:.3g} training FLOPs, {100 * found['spent'] / found['everything']:.0f}%"
    stars = any(rung.get("proposals") for rung in done[:1])
    grey = any(one["name"] not in told for rung in done for one in rung["arms"])
    return (
        f"Predicted loss at {found['target']:.3g} training FLOPs with {100 * found['confidence']:.0f}% intervals, as "
        "each rung foretold it (faint: measured there); P(best); and what the first rung foretold over omega, psi and "
        f"nu, relative to the mean of its arms{' (stars: proposed by the surrogate, as it expected them)' * stars}."
        f"{' Grey: arms that left early.' * grey} {predictors or 'No rung is decided yet'}. {share} of everything at "
        f"the top.{chosen}"
    )


def _told_apart(done: list[Entry]) -> list[str]:
    """The arms that went furthest, the best of them first, and those that everything is held against."""
    reached: dict[str, tuple[int, float]] = {}
    for rung in done:
        reached.update({one["name"]: (-rung["rung"], one.get("predicted", np.inf)) for one in rung["arms"]})
    order = sorted(reached, key=lambda name: reached[name])
    usual = [name for name in ALWAYS if name in reached]
    return [*usual, *[name for name in order if name not in usual][:MOST_TOLD]]


Look = dict[str, tuple[str, str]]
Ends = tuple[np.ndarray, np.ndarray]


def _ordered(names: Iterable[str], look: Look) -> list[str]:
    """Grey arms first: the others are drawn over them."""
    return sorted(dict.fromkeys(names), key=lambda name: name in look)


def _drawn(
    before: list[Series], look: Look, name: str, x: np.ndarray, y: np.ndarray, style: str, ends: Ends | None = None
) -> None:
    """Add an arm to a panel; all grey ones share one entry of the legend."""
    low, high = ends or (None, None)
    named = {one.label for one in before}
    if name in look:
        one = Series("" if name in named else name, name, x, y, style, *look[name], low, high, said=name)
    else:
        label = "" if OTHERS in named else OTHERS
        one = Series(label, OTHERS, x, y, "faint" if style == "joined" else style, GREY, ".", low, high, said=name)
    before.append(one)


def _losses(done: list[Entry], look: Look, unit: str) -> Panel:
    series: list[Series] = []
    for name in _ordered((one["name"] for rung in done for one in rung["arms"]), look):
        rows = [(r["flops"], one) for r in done for one in r["arms"] if one["name"] == name and "predicted" in one]
        if not rows:
            continue
        keys = ("predicted", "low", "high", "measured")
        x, values = np.array([flops for flops, _ in rows], float), np.array([[o[key] for key in keys] for _, o in rows])
        y, low, high, seen = values.T
        # An arm of one rung alone has no line: it is a point.
        _drawn(series, look, name, x, y, "joined" if name in look else "points", (low, high) if name in look else None)
        if name in look:
            _drawn(series, look, name, x, seen, "faint")
    return Panel(
        "as each rung foretold", "training FLOPs of a run at the rung", f"loss at the target [{unit}]", tuple(series)
    )


def _best(done: list[Entry], look: Look) -> Panel:
    series: list[Series] = []
    for name in _ordered((one["name"] for rung in done for one in rung["arms"]), look):
        rows = [(r["flops"], one["best"]) for r in done for one in r["arms"] if one["name"] == name and "best" in one]
        if rows:
            x, y = np.array(rows, float).T
            _drawn(series, look, name, x, y, "joined" if name in look else "points")
    return Panel("P(best)", "training FLOPs of a run at the rung", "P(best at the target)", tuple(series), y_log=False)


def _axis(found: Entry, first: Entry, axis: str, look: Look) -> Panel:
    """All arms of the first rung over an axis of the taxonomy, and what the surrogate proposed by them."""
    measured = {one["name"]: one for one in first["arms"] if "ratio" in one}
    places = {arm["name"]: float(arm[axis]) for arm in found["arms"]}
    series: list[Series] = []
    for name in _ordered(measured, look):
        value, low, high = (np.array([end]) for end in measured[name]["ratio"])
        _drawn(series, look, name, np.array([places[name]]), value, "points", (low, high))
    middle = float(np.exp(np.mean(np.log([one["predicted"] for one in measured.values()]))))
    for new in first.get("proposals", ()):
        value, spread = np.array([new["expected_loss"] / middle]), np.exp(new["spread"])
        colour = look.get(new["arm"], (GREY, ""))[0]
        series.append(
            Series("", new["arm"], np.array([float(new[axis])]), value, "points", colour, "*", value / spread,
                   value * spread, said=f"{new['arm']}, proposed")
        )  # fmt: skip
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
    lines = "".join(f"<li>{escape(line)}</li>" for line in report.said(found | {"rungs": []}))
    before = f"<ul>{lines}</ul>" if lines else ""
    note = "What each name stands for; structure=einsum structure.theta='...' is one."
    tables += table("Arms", note, ARMS, _arms(found), words=True)
    return sheet(
        title=one.title, summary=one.caption, charts=charts(one), toggles=boxes([one]), before=before, after=tables
    )


COLUMNS = ("arm", "measured", "at the target", "low", "high", "P(best)", "after")
ARMS = ("arm", "omega", "psi", "nu", "mixture", "theta")


def _arms(found: Entry) -> list[list[str]]:
    return [[one["name"], *(f"{one[axis]:.2f}" for axis in AXES), one["moe"], one["theta"]] for one in found["arms"]]


def _rows(rung: Entry) -> list[list[str]]:
    keys = ("measured", "predicted", "low", "high")
    return [
        [one["name"], *(_number(one.get(key)) for key in keys), f"{one['best']:.2f}" if "best" in one else "",
         one["after"]]
        for one in rung["arms"]
    ]  # fmt: skip


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
