"""How does a drawing become a page to look into? Its panels as charts of one offline HTML file.

A panel of series is a chart of structlin/drawing/sheet.py, with values under the pointer and a check box for every
variant; what only ink can say (a tensor diagram, three dimensions) is shown as a picture. A chart is plain data, which
web/report.js draws without knowing what it means:

    {"id", "host"?, "title", "note", "x": {"label", "log", "names"?}, "y": {"label", "log", "zero"?},
     "key": {label: colour}, "level"?: a horizontal line, where better and worse divide,
     "series": [{"label", "variant", "colour", "style", "x": [...], "y": [...], "low"?, "high"?, "size"?}]}
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from structlin.drawing.drawing import Array, Drawing, Panel, Series
from structlin.drawing.names import readable
from structlin.drawing.paint import render
from structlin.drawing.sheet import AND, sheet, toggles
from structlin.drawing.style import STAR

Chart = dict[str, Any]
LONGEST_LABEL = 44
# A page of every run and evaluation would not open on a phone: lines of a variant, and points of a series.
MOST_FAINT = 60
MOST_POINTS = {"faint": 40, "dots": 1000, "points": 1500}
STAR_PIXELS = 12


def page(drawing: Drawing) -> str:
    """The page of one figure as text."""
    return sheet(
        title=drawing.title,
        summary=drawing.caption,
        charts=charts(drawing),
        toggles=boxes([drawing]),
        before=lacking(drawing) + stills(drawing),
        after=f"<p>The numbers stand in {escape(drawing.name)}.csv beside this page.</p>",
    )


def section(drawing: Drawing) -> str:
    """A drawing in a page of many: title, caption, what it lacks, and the element that ``charts_in`` draws into."""
    return (
        f"<section><h2>{escape(drawing.title)}</h2><p>{escape(drawing.caption)}</p>{lacking(drawing)}"
        f'{stills(drawing)}<div id="{_host(drawing)}"></div></section>'
    )


def charts_in(drawings: Sequence[Drawing], most_faint: int = MOST_FAINT) -> list[Chart]:
    """The charts of a page of many drawings, each in its ``section``."""
    return [chart for drawing in drawings for chart in charts(drawing, _host(drawing), most_faint)]


def _host(drawing: Drawing) -> str:
    return f"host-{escape(drawing.name)}"


def charts(drawing: Drawing, host: str = "", most_faint: int = MOST_FAINT) -> list[Chart]:
    """The panels of a drawing that hold series, as charts; ``host`` is the element that they are drawn into."""
    return [
        _chart(f"{drawing.name}-{place}", panel, host, most_faint)
        for place, panel in enumerate(drawing.panels)
        if panel.series
    ]  # fmt: skip


def boxes(drawings: Sequence[Drawing]) -> str:
    """Check boxes of all variants, in the colour of their first series that has a name."""
    every = [series for drawing in drawings for panel in drawing.panels for series in panel.series]
    colours: dict[str, str] = {}
    for series in sorted(every, key=lambda one: not one.label):
        colours.setdefault(series.variant, series.colour)
    # Variants of one name (btt, and btt/paper of another study where all are) have one box, and one colour.
    named: dict[str, list[str]] = {}
    called = {variant: name for drawing in drawings for variant, name in drawing.called.items()}
    for variant in dict.fromkeys(series.variant for series in every):
        named.setdefault(called.get(variant, readable(variant)), []).append(variant)
    together = {AND.join(variants): name for name, variants in named.items()}
    return toggles({key: colours[key.split(AND)[0]] for key in together}, together)


def stills(drawing: Drawing) -> str:
    """Panels that only ink can say, as a picture each."""
    painted = [panel for panel in drawing.panels if panel.paint is not None]
    pictures = [
        render(replace(drawing, panels=(panel,), columns=1, missing=(), shared_legend=False), "png")[0]
        for panel in painted
    ]
    said = f"{escape(drawing.title)}. {escape(drawing.caption)}"
    images = [
        f'<img alt="{escape(panel.title)}: {said}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for panel, picture in zip(painted, pictures, strict=True)
    ]
    return f"<div class=stills>{''.join(images)}</div>" if images else ""


def lacking(drawing: Drawing) -> str:
    """What an incomplete figure says of itself."""
    if not drawing.missing:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in drawing.missing)
    command = f"<pre>{escape(drawing.command)}</pre>" if drawing.command else ""
    count = len(drawing.missing)
    if count == 1:
        return f"<div class=lacking><b>Incomplete:</b> {escape(drawing.missing[0])}{command}</div>"
    return (
        f"<div class=lacking><b>Incomplete: {count} missing.</b>{command}"
        f"<details><summary>Which</summary><ul>{lines}</ul></details></div>"
    )


def _chart(identity: str, panel: Panel, host: str, most_faint: int) -> Chart:
    label, note = _label(panel.x_label)
    x: dict[str, Any] = {"label": label, "log": panel.x_log and not panel.names}
    y: dict[str, Any] = {"label": panel.y_label, "log": panel.y_log}
    if panel.names:
        x["names"] = [textwrap.fill(name, 8, break_long_words=False) for name in panel.names]
    if any(series.style == "bars" for series in panel.series):
        y["zero"] = True
    chart: Chart = {
        "id": identity, "title": panel.title, "note": note, "x": x, "y": y,
        "series": [part for series in _fewer(panel.drawn(), most_faint) for part in _parts(series)],
    }  # fmt: skip
    chart["key"] = {one.label: one.colour for one in panel.series if one.label and one.marker != STAR}
    if panel.level is not None:
        chart["level"] = panel.level
    return chart | ({"host": host} if host else {})


def _label(text: str) -> tuple[str, str]:
    """A label that fits a phone, and what of it did not fit, as a note."""
    whole = text.replace("\n", " ")
    if len(whole) <= LONGEST_LABEL:
        return whole, ""
    first, _, rest = text.partition("\n")
    return first, f"Counted as {rest.strip('()')}." if rest.startswith("(") else rest


def _fewer(series: Sequence[Series], most: int) -> list[Series]:
    """Without most of the faint lines of a variant that has more than ``most``; those that stay are evenly chosen."""
    faint: dict[str, list[Series]] = {}
    for one in series:
        if one.style == "faint":
            faint.setdefault(one.variant, []).append(one)
    kept = {id(one) for lines in faint.values() for one in lines[:: -(-len(lines) // most)]}
    return [one for one in series if one.style != "faint" or id(one) in kept]


def _thinned(series: Series) -> Series:
    """With as many points as a page holds, evenly chosen, the first and the last among them."""
    most = MOST_POINTS.get(series.style, len(series.x))
    if len(series.x) <= most:
        return series
    some = np.unique(np.linspace(0, len(series.x) - 1, most).astype(int))
    low, high = (None if ends is None else ends[some] for ends in (series.low, series.high))
    return replace(series, x=series.x[some], y=series.y[some], low=low, high=high)


def _parts(series: Series) -> list[dict[str, Any]]:
    """A series as the page draws it; an interval of a point is a line from its lower to its upper end."""
    series = _thinned(series)
    label = series.said or series.label or readable(series.variant)
    common: dict[str, Any] = {"label": label, "variant": series.variant, "colour": series.colour}
    if series.marker == STAR:
        common["size"] = STAR_PIXELS
    found = [{**common, "style": series.style, "x": _numbers(series.x), "y": _numbers(series.y)}]
    if series.low is None or series.high is None:
        return found
    if series.style == "band":
        return [{**found[0], "low": _numbers(series.low), "high": _numbers(series.high)}]
    own = "#444444" if series.style == "bars" else series.colour
    for at, low, high in zip(series.x, series.low, series.high, strict=True):
        ends = {"x": _numbers(np.array([at, at])), "y": _numbers(np.array([low, high]))}
        found.append({**common, "label": f"{common['label']}: interval", "colour": own, "style": "line", **ends})
    return found


def _numbers(values: Array) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
