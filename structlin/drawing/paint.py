"""How does a drawing become ink? The one place that knows matplotlib's axes; room.py says where everything stands."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.room import (
    BOTTOM,
    CHARACTER,
    LEFT,
    RIGHT,
    TEXT_LINE,
    TOP,
    Box,
    Room,
    axes_of,
    legend_layout,
    room_of,
    wrapped_names,
)
from structlin.drawing.style import RC, RING, SMALLEST_POINT, STAR
from structlin.drawing.ticks import log_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLOUD = 60
"""Points of one series from which on they are drawn smaller."""
BAND_MARKERS = 4
"""Markers along the line of a band, which tell variants of one colour apart."""
LINES_A_PAGE, CHARACTERS_A_LINE = 82, 118
PAPER_INCHES, MARGIN = (8.27, 11.69), 0.6
"""A4, for everything that is printed together."""
BETWEEN = 0.35
"""Inches between two drawings of a page."""
INCHES_PER_TICK = 0.42
_RING: Any = {"marker": "o", "ms": 8.5, "mfc": "none", "mew": 1.0, "lw": 0}
_STAR: Any = {"marker": "*", "ms": 7, "mec": "black", "mew": 0.4, "lw": 0}


def render(drawing: Drawing, *endings: str, captioned: bool = False) -> list[bytes]:
    """The bytes of a drawing as png and pdf, one for each ending; ``captioned`` with title and caption below.

    They hold no date: the same drawing gives the same bytes.
    """
    import matplotlib

    with matplotlib.rc_context(RC):
        figure = figure_of(drawing, captioned=captioned)
        return [_saved(figure, drawing.title, ending) for ending in endings]


def _saved(figure: Figure, title: str, ending: str) -> bytes:
    stream = io.BytesIO()
    dateless = {"CreationDate": None} if ending == "pdf" else {}
    figure.savefig(stream, format=ending, metadata={"Title": title, **dateless})
    return stream.getvalue()


def text_pages(title: str, lines: Sequence[str]) -> Iterator[Figure]:
    """Pages of text in a typewriter's letters, for the print of a report; a line that begins with # is a heading."""
    from matplotlib.figure import Figure

    across, up = PAPER_INCHES
    for number, page in enumerate(_paged(lines)):
        figure = Figure(figsize=PAPER_INCHES)
        said = title if number == 0 else f"{title}, continued"
        figure.text(MARGIN / across, 1 - MARGIN / up, said, fontsize=11, fontweight="bold", va="top")
        for place, line in enumerate(page):
            y = 1 - (MARGIN + 0.3 + TEXT_LINE * place) / up
            weight = "bold" if line.startswith("# ") else "normal"
            style: Any = {"fontsize": SMALLEST_POINT, "va": "top", "family": "monospace", "fontweight": weight}
            # A dollar sign would begin mathematics.
            figure.text(MARGIN / across, y, line.removeprefix("# "), parse_math=False, **style)
        yield figure


def _paged(lines: Sequence[str]) -> Iterator[list[str]]:
    """Wrapped lines, as many as a page holds; a heading is never the last of a page, an empty line never the first."""
    wrapped = [piece for line in lines for piece in _wrapped(line)]
    while wrapped:
        end = min(LINES_A_PAGE, len(wrapped))
        while end > 1 and end < len(wrapped) and (wrapped[end - 1].startswith("# ") or not wrapped[end - 1]):
            end -= 1
        yield wrapped[:end]
        wrapped = wrapped[end:]
        while wrapped and not wrapped[0].strip():
            wrapped = wrapped[1:]


def _wrapped(line: str) -> list[str]:
    """A line as lines that fit, what follows the first of them further in."""
    inside = " " * (len(line) - len(line.lstrip()) + 4)
    return textwrap.wrap(line, CHARACTERS_A_LINE, subsequent_indent=inside, break_on_hyphens=False) or [""]


def figure_of(drawing: Drawing, *, captioned: bool = False) -> Figure:
    """The matplotlib figure, ``captioned`` with title and caption below; call within ``rc_context(RC)``."""
    from matplotlib.figure import Figure

    room = room_of(drawing, captioned=captioned)
    figure = Figure(figsize=(room.width, room.height))
    _draw(figure, drawing, room, (0.0, 0.0))
    return figure


def printed(drawings: Sequence[Drawing]) -> Iterator[tuple[Figure, list[Drawing]]]:
    """Captioned drawings on pages of the common size, as many below each other as fit, and which each page holds.

    What is higher than a page has one of its own height; call within ``rc_context(RC)``.
    """
    from matplotlib.figure import Figure

    waiting = [(drawing, room_of(drawing, captioned=True)) for drawing in drawings]
    while waiting:
        across, up = PAPER_INCHES[0], max(PAPER_INCHES[1], waiting[0][1].height + 2 * MARGIN)
        figure, top = Figure(figsize=(across, up)), up - MARGIN
        held: list[Drawing] = []
        while waiting and (not held or top - waiting[0][1].height >= MARGIN):
            drawing, room = waiting.pop(0)
            _draw(figure, drawing, room, ((across - room.width) / 2, top - room.height))
            held.append(drawing)
            top -= room.height + BETWEEN
        yield figure, held


def _draw(figure: Figure, drawing: Drawing, room: Room, corner: tuple[float, float]) -> None:
    """A drawing with its lower left corner there, in inches."""
    left, top, drawn = corner[0], corner[1] + room.height, []
    for row, height, legend in zip(room.rows, room.heights, room.legends, strict=True):
        for column, panel in enumerate(row):
            bare = drawing.shared_y and column > 0 and not panel.own_y
            box = (left + column * room.cell, top - height + legend, room.cell, height - legend)
            axes = _axes(figure, panel, box, bare)
            _panel(axes, panel, bare)
            drawn.append((axes, panel, box[2:]))
            if not room.shared:
                _legend(figure, panel.series, box[0], box[1], room.cell)
        top -= height
    _finish(drawing, drawn)
    _write_below(figure, room, corner)


def _write_below(figure: Figure, room: Room, corner: tuple[float, float]) -> None:
    """The shared legend, what is missing, and the caption."""
    across, up = figure.get_size_inches()
    left, under = corner
    if room.shared:
        _legend(figure, room.shared, left, under + room.below, room.width)
    for text, bottom, colour in ((room.caption, 0.05, "black"), (room.note, room.caption_height + 0.05, "#A00000")):
        if text:
            place = ((left + 0.08) / across, (under + bottom) / up)
            figure.text(*place, text, fontsize=SMALLEST_POINT, color=colour, va="bottom")


def _axes(figure: Figure, panel: Panel, box: Box, bare: bool) -> Axes:
    """Axes in a cell given in inches."""
    across, up = figure.get_size_inches()
    left, bottom, width, height = axes_of(panel, box, bare)
    place = (left / across, bottom / up, width / across, height / up)
    return figure.add_axes(place, projection=None if panel.flat else "3d")


def _legend(figure: Figure, series: Iterable[Series], left: float, top: float, width: float) -> None:
    """A legend of that width with its upper left corner there, in inches."""
    across, up = figure.get_size_inches()
    columns, lines = legend_layout(series, width)
    if not lines:
        return
    named = [one for one in series if one.label]
    figure.legend(
        [_handle(one) for one in named], [one.label for one in named], loc="upper left",
        bbox_to_anchor=((left + 0.1) / across, top / up), ncols=columns, frameon=False, handlelength=1.6,
        columnspacing=1.0, borderaxespad=0.0, labelspacing=0.3, handletextpad=0.5, borderpad=0.1,
    )  # fmt: skip


def _handle(s: Series) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if s.style == "bars":
        return Patch(color=s.colour)
    if s.marker == RING:
        return Line2D([], [], **_RING, mec=s.colour)
    marker = s.marker if s.style in ("points", "joined", "band") else None
    line = {"points": "none", "dashed": "--"}.get(s.style, "-")
    return Line2D([], [], color=s.colour, marker=marker, ls=line, lw=1.3, ms=4, mec="white", mew=0.3)


def _panel(axes: Axes, panel: Panel, bare: bool) -> None:
    if panel.paint is not None:
        panel.paint(axes)
    axes.set_title(panel.title, loc="left")
    if not panel.series:
        return
    if panel.level is not None:
        axes.axhline(panel.level, color="0.55", lw=0.8, zorder=0)
    series = panel.drawn()
    _faint(axes, [one for one in series if one.style == "faint"])
    for one in series:
        if one.style != "faint":
            _series(axes, one)
    up = axes.get_window_extent().height / axes.figure.dpi
    axes.set(xlabel=panel.x_label, ylabel="" if bare else textwrap.fill(panel.y_label, int(up / CHARACTER)))
    if panel.x_log and not panel.names:
        axes.set_xscale("log")
    if panel.y_log:
        axes.set_yscale("log")


def _faint(axes: Axes, series: Sequence[Series]) -> None:
    """Many faint lines as one collection: one by one they would take as long as all the rest."""
    from matplotlib.collections import LineCollection

    if not series:
        return
    lines = [np.column_stack([one.x, one.y]) for one in series]
    axes.add_collection(LineCollection(lines, colors=[one.colour for one in series], alpha=0.25, lw=0.7, zorder=1))
    axes.autoscale_view()


def _series(axes: Axes, s: Series) -> None:
    """The ink of a series by its style."""
    if s.marker == RING:
        axes.plot(s.x, s.y, **_RING, mec=s.colour, zorder=5)
    elif s.marker == STAR:
        axes.plot(s.x, s.y, **_STAR, color=s.colour, zorder=5)
    elif s.style == "points":
        size = 4.5 if len(s.x) < CLOUD else 2.5
        axes.plot(s.x, s.y, color=s.colour, marker=s.marker, ms=size, lw=0, mec="white", mew=0.4, zorder=4)
    elif s.style == "dots":
        axes.plot(s.x, s.y, ".", color=s.colour, alpha=0.35, ms=3.5, zorder=1)
    elif s.style == "dashed":
        axes.plot(s.x, s.y, color=s.colour, lw=1.0, ls="--", zorder=2)
    elif s.style == "bars":
        axes.bar(s.x, s.y, 0.38, color=s.colour, yerr=_spans(s), capsize=2.5, error_kw={"lw": 0.8}, zorder=2)
    else:
        marker = s.marker if s.style in ("joined", "band") else None
        every = max(1, len(s.x) // BAND_MARKERS) if s.style == "band" else 1
        axes.plot(
            s.x, s.y, color=s.colour, lw=1.2, marker=marker, markevery=every, ms=3.5, mec="white", mew=0.3, zorder=3
        )
    spans = _spans(s)
    if s.style in ("points", "joined") and spans is not None:
        axes.errorbar(s.x, s.y, spans, fmt="none", ecolor=s.colour, elinewidth=0.8, capsize=2, zorder=3)
    if s.style == "band" and s.low is not None and s.high is not None:
        axes.fill_between(s.x, s.low, s.high, color=s.colour, alpha=0.16, lw=0, zorder=1)


def _spans(s: Series) -> Any:
    """How far an interval reaches below and above y, (2, n); None without one."""
    return None if s.low is None or s.high is None else np.abs(np.array([s.y - s.low, s.high - s.y]))


def _finish(drawing: Drawing, drawn: Sequence[tuple[Axes, Panel, tuple[float, float]]]) -> None:
    """Common limits where asked for, then ticks, which depend on them."""
    charts = [(axes, panel, size) for axes, panel, size in drawn if panel.series]
    if drawing.shared_y and charts:
        alike = [axes for axes, panel, _ in charts if not panel.own_y]
        limits = [axes.get_ylim() for axes in alike]
        for axes in alike:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
    for axes, panel, _ in charts:
        if panel.y_most is not None:
            axes.set_ylim(top=min(axes.get_ylim()[1], panel.y_most))
    for axes, panel, (width, height) in charts:
        if panel.names:
            axes.set_xticks(range(len(panel.names)), wrapped_names(panel, width))
            axes.set_xlim(-0.6, len(panel.names) - 0.4)
        elif panel.x_log:
            log_ticks(axes.xaxis, axes.get_xlim(), (width - LEFT - RIGHT) / INCHES_PER_TICK, panel.ticks)
        if panel.y_log:
            log_ticks(axes.yaxis, axes.get_ylim(), (height - BOTTOM - TOP) / 0.22, ())
