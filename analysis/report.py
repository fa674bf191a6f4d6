"""Everything in one place: figures, laws, warnings, provenance, sensitivity; an offline HTML page and a PDF.

    python -m analysis.report                       of the runs kept in the repository
    python -m analysis.report runs=runs/            of a store of one's own

Keys: out (figures/report), and those of fit_laws.py that choose runs and fits. Writes OUT.html and OUT.pdf.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.drawing import charts as page
from structlin.drawing.drawing import Drawing
from structlin.drawing.names import shortened, titled
from structlin.drawing.sheet import Rows, sheet, table
from structlin.errors import UserError, asks_help, door, key_values
from structlin.host import code
from structlin.host.files import write_atomically
from structlin.laws.report import laws_json as record
from structlin.laws.report.page import more_tables, tables, warnings
from structlin.laws.run import enrich

from . import paper, published
from .catalogue import FIGURES, Figure
from .make import Maker, maker_of
from .paper import Study, provenance_rows
from .prefit import prefit

# Of a variant in a chart: fewer than on a figure's own page, for all figures together should open on a phone.
MOST_RUNS_ON_PAGE = 12
TITLE = "Structured layers: figures and laws"


def drawings(maker: Maker) -> list[Drawing]:
    """Every figure that the runs allow."""
    found = []
    for name in FIGURES:
        try:
            drawing = maker.drawing(name)
        except UserError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        if drawing is not None:
            found.append(drawing)
    return found


def studies(maker: Maker) -> list[Study]:
    """Every study that is kept (or the runs that were named), with its laws."""
    found = []
    if maker.own is not None:
        return [_said(maker, "own", FIGURES["fig4"], maker.own, {})]
    for name, figure in fitted().items():
        kept = maker.kept(name)
        if kept is not None:
            found.append(_said(maker, name, figure, kept.runs, kept.origin))
    return found


def fitted() -> dict[str, Figure]:
    """The figure that says how a study is fitted: of several drawn from it one that needs laws."""
    found: dict[str, Figure] = {}
    for figure in FIGURES.values():
        if figure.study and (figure.laws or figure.study not in found):
            found[figure.study] = figure
    return found


def _said(maker: Maker, name: str, figure: Figure, runs: pd.DataFrame, origin: dict[str, Any]) -> Study:
    """The laws of a table, where its study is one of frontiers."""
    if not figure.laws:
        return Study(name, runs, None, origin)
    laws = maker.laws(name, runs, maker.baseline(figure, runs))
    laws = laws if laws.checked.backtest is not None else enrich(laws)
    return Study(name, runs, record.plain(record.record(laws)), origin)


# --- the page -------------------------------------------------------------------------------------------------------


def html(figures: list[Drawing], found: list[Study]) -> str:
    """The report as one page: figures, then each study's warnings, laws and provenance."""
    parts = [page.section(drawing) for drawing in figures]
    parts += [_published()] + [_study(study) for study in found]
    missing = sum(len(drawing.missing) > 0 for drawing in figures)
    return sheet(
        title=TITLE,
        summary=f"{len(figures)} figures ({missing} incomplete) of {len(found)} studies.",
        about={"date": datetime.now(UTC).strftime("%Y-%m-%d"), "data": data_said(found), "code": code.said()},
        before=answers(found),
        charts=page.charts_in(figures, MOST_RUNS_ON_PAGE),
        toggles=page.boxes(figures),
        after="".join(parts),
    )


def answers(found: list[Study]) -> str:
    """What each study says in a sentence, on top of the page."""
    lines = ""
    for study in found:
        said = "; ".join(f"{side}: {', '.join(names)}" for side, names in study.answers.items())
        lines += f"<li><b>{escape(study.title)}</b> {escape(said)}</li>" if said else ""
    note = "<p>Mean compute multipliers with their intervals: above 1 a structure needs less for the same loss.</p>"
    return f"<section id=verdict><h2>What the studies say</h2>{note}<ul>{lines}</ul></section>" if lines else ""


def data_said(found: list[Study]) -> str:
    """How many runs of which studies."""
    return ", ".join(f"{study.name} ({study.runs['run_id'].nunique()} runs)" for study in found)


def _published() -> str:
    rows: Rows = [
        [row.variant, row.figure, row.quantity, f"{row.value:.4g}", row.convention, row.source, row.note]
        for row in published.load()
    ]
    columns = ["variant", "figure", "quantity", "published", "convention", "source", "note"]
    return table("Published values", "What figures show beside ours.", columns, rows, words=True)


def _study(study: Study) -> str:
    text = f"<h1>{escape(titled(study.title, study.variants))}</h1>"
    if study.found is not None:
        found = shortened(study.found, study.variants)
        text += f"<ul>{''.join(f'<li>{escape(one)}</li>' for one in found['verdict'].values())}</ul>"
        count = len(found["warnings"])
        said = warnings(found).replace("<section id=warnings>", "<section>")
        text += f"<details class=lacking><summary>{count} warnings</summary>{said}</details>"
        text += f"<details><summary>Multipliers, frontiers, parametric laws, optima</summary>{tables(found)}</details>"
        text += f"<details><summary>Resources, backtest, sensitivity</summary>{more_tables(found)}</details>"
    return text + table(
        "Provenance", "Where the runs come from.", ["what", "value"], provenance_rows(study), words=True
    )


def main(arguments: list[str]) -> int:
    """Write the page and the PDF."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    began = time.monotonic()
    own = [word for word in arguments if word.partition("=")[0] == "out"]
    out = Path(key_values(own, {"out": "figures/report"})["out"])
    # A place that cannot be written is seen before the minutes of fits.
    out.parent.mkdir(parents=True, exist_ok=True)
    maker = maker_of([word for word in arguments if word not in own])
    prefit(maker, list(FIGURES), enriched=True)
    figures, found = drawings(maker), studies(maker)
    contents = {".html": html(figures, found).encode(), ".pdf": paper.pdf(TITLE, figures, found)}
    for ending, content in contents.items():
        write_atomically(out.with_suffix(ending), content)
    names = " ".join(str(out.with_suffix(ending)) for ending in contents)
    print(f"{names}  {len(figures)} figures, {len(found)} studies, {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    door(main)
