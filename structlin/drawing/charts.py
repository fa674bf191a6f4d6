"""How does a drawing become a page to look into? Its panels as charts of one offline HTML file.

A panel of series is a chart of structlin/drawing/sheet.py, with values under the pointer and a check box for every
variant; what only ink can say (a tensor diagram, three dimensions) is shown as a picture.
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
from structlin.drawing.sheet import sheet, toggles

Chart = dict[str, Any]
LONGEST_LABEL = 44


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


def charts(drawing: Drawing, host: str = "") -> list[Chart]:
    """The panels of a drawing that hold series, as charts; ``host`` is the element that they are drawn into."""
    return [
        _chart(f"{drawing.name}-{place}", panel, host)
        for place, panel in enumerate(drawing.panels)
        if panel.series
    ]  # fmt: skip


def boxes(drawings: Sequence[Drawing]) -> str:
    """Check boxes of all variants, in the colour of their first series that has a name."""
    every = [series for drawing in drawings for panel in drawing.panels for series in panel.series]
    colours: dict[str, str] = {}
    for series in sorted(every, key=lambda one: not one.label):
        colours.setdefault(series.variant, series.colour)
    order = dict.fromkeys(series.variant for series in every)
    return toggles({variant: colours[variant] for variant in order}, {variant: readable(variant) for variant in order})


def stills(drawing: Drawing) -> str:
    """Panels that only ink can say, as a picture each."""
    painted = [panel for panel in drawing.panels if panel.paint is not None]
    pictures = [
        render(replace(drawing, panels=(panel,), columns=1, missing=(), shared_legend=False), "png")
        for panel in painted
    ]
    images = [
        f'<img alt="{escape(panel.title)}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
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
    return (
        f"<div class=lacking><b>Incomplete: {count} missing.</b>{command}"
        f"<details><summary>Which</summary><ul>{lines}</ul></details></div>"
    )


def _chart(identity: str, panel: Panel, host: str) -> Chart:
    label, note = _label(panel.x_label)
    x: dict[str, Any] = {"label": label, "log": panel.x_log and not panel.names}
    y: dict[str, Any] = {"label": panel.y_label, "log": panel.y_log}
    if panel.names:
        x["names"] = [textwrap.fill(name, 8) for name in panel.names]
    if any(series.style == "bars" for series in panel.series):
        y["zero"] = True
    chart: Chart = {
        "id": identity, "title": panel.title, "note": note, "x": x, "y": y,
        "series": [part for series in panel.drawn() for part in _parts(series)],
    }  # fmt: skip
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


def _parts(series: Series) -> list[dict[str, Any]]:
    """A series as the page draws it; an interval of a point is a line from its lower to its upper end."""
    common = {"label": series.label or readable(series.variant), "variant": series.variant, "colour": series.colour}
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
