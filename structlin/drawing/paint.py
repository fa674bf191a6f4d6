"""How does a drawing become ink? The one place that knows matplotlib's axes.

Every panel has margins in inches (an automatic layout takes longer than the drawing), and legends stand below the
axes, where they cover no point.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import COLUMN_INCHES, PAGE_INCHES, RC, RING, SMALLEST_POINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches: what stands around the axes of a panel, and between the lines of a legend.
LEFT, LEFT_BARE, RIGHT, TOP, BOTTOM, BARE = 0.62, 0.36, 0.1, 0.24, 0.5, 0.06
LINE, CHARACTER, HANDLE = 0.145, 0.053, 0.3
DIAGRAM_HEIGHT, CLOUD = 1.3, 60
BAND_MARKERS = 4
"""Markers along the line of a band, which tell variants of one colour apart."""
LINES_A_PAGE = 78
INCHES_PER_TICK = 0.42
MOST_MISSING = 3
_RING: Any = {"marker": "o", "ms": 8.5, "mfc": "none", "mew": 1.0, "lw": 0}


def render(drawing: Drawing, ending: str) -> bytes:
    """The bytes of a drawing as png or pdf: no date in them, so the same drawing gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(RC):
        stream = io.BytesIO()
        metadata = {"CreationDate": None, "Title": drawing.title} if ending == "pdf" else {"Title": drawing.title}
        figure_of(drawing).savefig(stream, format=ending, metadata=metadata)
        return stream.getvalue()


def text_pages(title: str, lines: Sequence[str]) -> Iterator[Figure]:
    """Pages of text in a typewriter's letters, for the print of a report."""
    from matplotlib.figure import Figure

    wrapped = [piece for line in lines for piece in (textwrap.wrap(line, 104, subsequent_indent="    ") or [""])]
    for start in range(0, len(wrapped), LINES_A_PAGE):
        figure = Figure(figsize=(PAGE_INCHES, 9.5))
        figure.text(0.03, 0.97, title, fontsize=10, va="top")
        text = "\n".join(wrapped[start : start + LINES_A_PAGE])
        # A dollar sign would begin mathematics.
        figure.text(0.03, 0.945, text.replace("$", r"\$"), fontsize=SMALLEST_POINT, va="top", family="monospace")
        yield figure


def figure_of(drawing: Drawing, *, captioned: bool = False) -> Figure:
    """The matplotlib figure, ``captioned`` with title and caption below; call within ``rc_context(RC)``."""
    from matplotlib.figure import Figure

    # A panel that has nothing to show leaves its place to the others; one stays to say what is missing.
    panels = [p for p in drawing.panels if p.series or p.paint is not None] or drawing.panels[:1]
    columns = drawing.columns or max(1, len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    width = COLUMN_INCHES if columns == 1 else PAGE_INCHES
    cell = width / columns
    panel_height = {1: 2.6, 2: 2.45}.get(columns, 2.15)
    shared = _unique(panels) if drawing.shared_legend else []
    legends = [0.0 if shared else max(_legend_height(panel.series, cell) for panel in row) for row in rows]
    heights = [_bare_height(row, panel_height) + legend for row, legend in zip(rows, legends, strict=True)]
    note = _note(drawing, width)
    caption = textwrap.fill(f"{drawing.title}. {drawing.caption}", int((width - 0.2) / CHARACTER)) if captioned else ""
    words = LINE * (1 + caption.count("\n")) + 0.12 if caption else 0.0
    below = _legend_height(shared, width) + (LINE * (1 + note.count("\n")) + 0.08 if note else 0.0)
    below += words
    height = sum(heights) + below
    figure = Figure(figsize=(width, height))
    top, drawn = height, []
    for row, own, legend in zip(rows, heights, legends, strict=True):
        for column, panel in enumerate(row):
            bare = drawing.shared_y and column > 0 and not panel.own_y
            box = (column * cell, top - own + legend, cell, own - legend)
            axes = _axes(figure, panel, box, bare)
            _panel(axes, panel, bare)
            drawn.append((axes, panel, box[2:]))
            if not shared:
                _legend(figure, axes, panel.series, (column * cell, top - own, cell, legend))
        top -= own
    _finish(drawing, drawn)
    if shared:
        _legend(figure, drawn[-1][0], shared, (0.0, below - _legend_height(shared, width), width, 0.0), top=below)
    if caption:
        figure.text(0.08 / width, 0.05 / height, caption, fontsize=SMALLEST_POINT, va="bottom")
    if note:
        figure.text(0.08 / width, (words + 0.05) / height, note, fontsize=SMALLEST_POINT, color="#A00000", va="bottom")
    return figure


# --- room -----------------------------------------------------------------------------------------------------------


def _bare_height(row: Sequence[Panel], height: float) -> float:
    """Diagrams take less room than axes."""
    return height if any(panel.series or not panel.flat for panel in row) else 0.7 * height


def _axes(figure: Figure, panel: Panel, box: tuple[float, float, float, float], bare: bool) -> Axes:
    """Axes in a cell given in inches (left, bottom, width, height), with the margins of their kind."""
    left, bottom, width, height = box
    if panel.series:
        start, under = LEFT_BARE if bare else LEFT, BOTTOM
    else:
        start = under = BARE
    across, up = figure.get_size_inches()
    if not panel.series and panel.flat:
        bottom += max(0.0, height - DIAGRAM_HEIGHT - TOP)
        height = min(height, DIAGRAM_HEIGHT + TOP)
    inner = (left + start, bottom + under, width - start - RIGHT, height - under - TOP)
    place = (inner[0] / across, inner[1] / up, inner[2] / across, inner[3] / up)
    return figure.add_axes(place, projection=None if panel.flat else "3d")


def _unique(panels: Iterable[Panel]) -> list[Series]:
    """The first series of every label."""
    found: dict[str, Series] = {}
    for panel in panels:
        for series in panel.series:
            if series.label:
                found.setdefault(series.label, series)
    return list(found.values())


def _layout(series: Iterable[Series], width: float) -> tuple[int, int]:
    """(columns, lines) of a legend."""
    labels = [one.label for one in series if one.label]
    if not labels:
        return 1, 0
    widest = HANDLE + CHARACTER * max(len(label) for label in labels) + 0.12
    columns = max(1, min(len(labels), int((width - 0.15) / widest)))
    return columns, -(-len(labels) // columns)


def _legend_height(series: Iterable[Series], width: float) -> float:
    lines = _layout(series, width)[1]
    return LINE * lines + 0.1 if lines else 0.0


def _legend(
    figure: Figure,
    axes: Axes,
    series: Sequence[Series],
    box: tuple[float, float, float, float],
    top: float | None = None,
) -> None:
    """A legend whose upper left corner is that of the box, in inches."""
    across, up = figure.get_size_inches()
    columns, lines = _layout(series, box[2])
    if not lines:
        return
    corner = ((box[0] + 0.1) / across, (box[1] + box[3] if top is None else top) / up)
    named = [one for one in series if one.label]
    figure.legend(
        [_handle(one) for one in named], [one.label for one in named], loc="upper left", bbox_to_anchor=corner,
        ncols=columns, frameon=False, handlelength=1.6, columnspacing=1.0, borderaxespad=0.0, labelspacing=0.3,
        handletextpad=0.5, borderpad=0.1,
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


def _note(drawing: Drawing, width: float) -> str:
    """What an incomplete figure says of itself, as lines that fit."""
    if not drawing.missing:
        return ""
    shown = list(drawing.missing[:MOST_MISSING])
    more = len(drawing.missing) - len(shown)
    lines = [f"Incomplete: {shown[0]}", *shown[1:], *([f"and {more} more"] if more else []), drawing.command]
    fitting = int((width - 0.2) / CHARACTER)
    return "\n".join(piece for line in lines if line for piece in textwrap.wrap(line, fitting))


# --- ink ------------------------------------------------------------------------------------------------------------


def _panel(axes: Axes, panel: Panel, bare: bool) -> None:
    if panel.paint is not None:
        panel.paint(axes)
    axes.set_title(panel.title, loc="left")
    if not panel.series:
        return
    if panel.level is not None:
        axes.axhline(panel.level, color="0.55", lw=0.8, zorder=0)
    for series in panel.drawn():
        _series(axes, series)
    up = axes.get_window_extent().height / axes.figure.dpi
    axes.set(xlabel=panel.x_label, ylabel="" if bare else textwrap.fill(panel.y_label, int(up / CHARACTER)))
    if panel.x_log and not panel.names:
        axes.set_xscale("log")
    if panel.y_log:
        axes.set_yscale("log")


def _series(axes: Axes, s: Series) -> None:
    if s.marker == RING:
        axes.plot(s.x, s.y, **_RING, mec=s.colour, zorder=5)
    elif s.style == "points":
        size = 4.5 if len(s.x) < CLOUD else 2.5
        axes.plot(s.x, s.y, color=s.colour, marker=s.marker, ms=size, lw=0, mec="white", mew=0.4, zorder=4)
    elif s.style == "faint":
        # A decayed run has one evaluation, which a line would not show.
        axes.plot(s.x, s.y, "." if len(s.x) == 1 else "-", color=s.colour, alpha=0.35 if len(s.x) == 1 else 0.25,
                  lw=0.7, ms=3.5, zorder=1)  # fmt: skip
    elif s.style == "dashed":
        axes.plot(s.x, s.y, color=s.colour, lw=1.0, ls="--", zorder=2)
    elif s.style == "bars":
        spans = None if s.low is None or s.high is None else np.abs(np.array([s.y - s.low, s.high - s.y]))
        axes.bar(s.x, s.y, 0.38, color=s.colour, yerr=spans, capsize=2.5, error_kw={"lw": 0.8}, zorder=2)
    else:
        marker = s.marker if s.style in ("joined", "band") else None
        every = max(1, len(s.x) // BAND_MARKERS) if s.style == "band" else 1
        axes.plot(
            s.x, s.y, color=s.colour, lw=1.2, marker=marker, markevery=every, ms=3.5, mec="white", mew=0.3, zorder=3
        )
    if s.style in ("points", "joined") and s.low is not None and s.high is not None:
        spans = np.abs(np.array([s.y - s.low, s.high - s.y]))
        axes.errorbar(s.x, s.y, spans, fmt="none", ecolor=s.colour, elinewidth=0.8, capsize=2, zorder=3)
    if s.style == "band" and s.low is not None and s.high is not None:
        axes.fill_between(s.x, s.low, s.high, color=s.colour, alpha=0.16, lw=0, zorder=1)


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
            # A character less, which keeps neighbours apart.
            room = int((width - LEFT - RIGHT) / len(panel.names) / CHARACTER) - 1
            axes.set_xticks(range(len(panel.names)), [textwrap.fill(n, max(room, 6)) for n in panel.names])
            axes.set_xlim(-0.6, len(panel.names) - 0.4)
        elif panel.x_log:
            _log_ticks(axes.xaxis, axes.get_xlim(), (width - LEFT - RIGHT) / INCHES_PER_TICK, panel.ticks)
        if panel.y_log:
            _log_ticks(axes.yaxis, axes.get_ylim(), (height - BOTTOM - TOP) / 0.22, ())


def _log_ticks(axis: Any, limits: tuple[float, float], most: float, given: Sequence[float]) -> None:
    """Labels that are read: 2e18 and not a small raised 18, few enough to stand apart."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ticks = list(given) or next(found for found in _candidates(*limits) if _stand_apart(found, limits, most))
    axis.set_major_locator(FixedLocator(ticks))
    digits = 1 if len({power_label(tick) for tick in ticks}) == len(ticks) else 2
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_label(float(f"{value:.6g}"), digits)))
    axis.set_minor_locator(NullLocator())


def _stand_apart(ticks: Sequence[float], limits: tuple[float, float], most: float) -> bool:
    """Whether there is room for their labels: even steps crowd towards the end of a logarithmic axis."""
    if len(ticks) <= 3:
        return True
    length = math.log(limits[1] / limits[0])
    gap = min(math.log(right / left) for left, right in pairwise(ticks)) / length
    return len(ticks) <= most and gap >= 0.7 / most


def _candidates(low: float, high: float) -> Iterator[list[float]]:
    """Sets of ticks from many to few; even steps where less than a decade is spanned."""
    if high / low < 12:
        for parts in (10, 8, 6, 5, 4, 3, 2):
            yield _even(low, high, parts)
    for subs, every in [((1, 2, 5), 1), ((1, 3), 1), *(((1,), every) for every in range(1, 40))]:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [sub * 10.0**decade for decade in decades if decade % every == 0 for sub in subs]
        yield [tick for tick in ticks if low <= tick <= high]


def _even(low: float, high: float, parts: int) -> list[float]:
    raw = (high - low) / parts
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw)
    return [float(f"{place * step:.10g}") for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def power_label(value: float, digits: int = 1) -> str:
    """``2e18`` (``2.5e18`` with two digits), ``500``: a tick of a logarithmic axis."""
    if 0.01 <= value < 10_000:
        return f"{value:g}"
    number, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(number):g}e{int(exponent)}"
