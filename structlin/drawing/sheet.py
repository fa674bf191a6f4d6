"""How is a page made that a person opens from disk? Charts, tables and text in one HTML file, no network.

The file holds its data, its script (web/report.js), its style and the drawing library (uPlot 1.6.32, MIT, vendored
in web/ with its licence). Nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

Rows = list[list[str]]


def sheet(
    *,
    title: str,
    summary: str,
    charts: Sequence[Mapping[str, Any]],
    toggles: str,
    before: str = "",
    after: str = "",
    about: Mapping[str, str] | None = None,
    reload_seconds: int = 0,
) -> str:
    """The page as text: a heading, what it is ``about`` (date, data, commit), ``before``, the charts, ``after``.

    A chart with a ``host`` is drawn into the element of that id, which stands in ``before`` or ``after``. With
    ``reload_seconds`` the page loads itself anew so often.
    """
    # "</" inside a script element would end it.
    data = json.dumps(list(charts), allow_nan=False).replace("</", "<\\/")
    return Template(_asset("report.html")).substitute(
        style=_asset("uplot.css") + _asset("report.css"),
        library=_asset("uplot.js"),
        script=_asset("report.js"),
        title=escape(title),
        summary=escape(summary),
        about=facts(about or {}),
        reload=reloading(reload_seconds) if reload_seconds else "",
        before=before,
        toggles=f'<nav id="toggles" aria-label="structures">{toggles}</nav>' if toggles else "",
        data=data,
        after=after,
    )


def reloading(seconds: int) -> str:
    """A box that loads the page anew so often while it is checked: a reader can hold the page still."""
    return f'<label><input type=checkbox checked id="reload" data-seconds="{seconds}">anew every {seconds} s</label>'


def facts(about: Mapping[str, str]) -> str:
    """Names and values below a heading."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in about.items() if value)
    return f'<dl class="about">{rows}</dl>' if rows else ""


AND = "\N{SECTION SIGN}"
"""Between the variants of one check box: a theta has bars and commas. report.js divides by the same."""


def toggles(colours: Mapping[str, str], names: Mapping[str, str] | None = None) -> str:
    """A check box for every variant, which hides its series in all charts and its rows in all tables."""
    return "".join(
        f'<label><input type=checkbox checked data-variant="{escape(variant)}">'
        f'<i data-colour="{colour}"></i>'
        f"{escape((names or {}).get(variant, variant))}</label>"
        for variant, colour in colours.items()
    )


def boxes_of(colours: Mapping[str, str], called: Mapping[str, str]) -> str:
    """Check boxes of variants under the names that they have here: each hides series of the one, rows of the other."""
    keys = {variant: AND.join(dict.fromkeys((variant, called[variant]))) for variant in colours}
    return toggles({keys[v]: colour for v, colour in colours.items()}, {keys[v]: called[v] for v in colours})


def table(title: str, note: str, columns: Sequence[str], rows: Rows, *, words: bool = False) -> str:
    """A table that scrolls sideways on a narrow screen; the first cell of a row is its variant. Empty without rows.

    Cells that are ``words`` stand to the left and wrap; numbers stand to the right.
    """
    if not rows:
        return ""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
    body = "".join(
        f'<tr data-variant="{escape(row[0])}"><th scope=row>{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<section><h2>{escape(title)}</h2><p>{escape(note)}</p>"
        f'<div class=scroll tabindex=0 role=group aria-label="{escape(title)}">'
        f"<table{' class=words' if words else ''}><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _asset(name: str) -> str:
    return files("structlin.drawing").joinpath("web", name).read_text(encoding="utf-8")
