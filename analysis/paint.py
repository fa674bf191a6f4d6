"""How does a drawing become ink? The one place that knows matplotlib's axes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from analysis.drawing import Drawing, Panel, Series
from analysis.style import PANEL_INCHES, RC, SMALLEST_POINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMES_IN_LEGEND = 12


def figure_of(drawing: Drawing) -> Figure:
    """The matplotlib figure; call within ``matplotlib.rc_context(RC)``."""
    from matplotlib.figure import Figure

    columns = drawing.columns or max(1, len(drawing.panels))
    rows = max(1, -(-len(drawing.panels) // columns))
    width, height = PANEL_INCHES
    note = 0.16 * (2 + len(drawing.missing[:4])) if drawing.missing else 0.0
    figure = Figure(figsize=(width * columns, height * rows + note), layout="constrained")
    for index, panel in enumerate(drawing.panels):
        axes = figure.add_subplot(rows, columns, index + 1, projection=None if panel.flat else "3d")
        _panel(axes, panel)
    if drawing.missing:
        figure.get_layout_engine().set(rect=(0, note / (height * rows + note), 1, 1))  # type: ignore[union-attr]
        figure.text(0.01, 0.01, _marked(drawing), fontsize=SMALLEST_POINT, color="#A00000", va="bottom", wrap=True)
    return figure


def render(drawing: Drawing, ending: str) -> bytes:
    """The bytes of a drawing as png or pdf: no date in them, so the same drawing gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(RC):
        stream = io.BytesIO()
        metadata = {"CreationDate": None, "Title": drawing.title} if ending == "pdf" else {"Title": drawing.title}
        figure_of(drawing).savefig(stream, format=ending, metadata=metadata)
        return stream.getvalue()


def _marked(drawing: Drawing) -> str:
    shown = list(drawing.missing[:3])
    more = len(drawing.missing) - len(shown)
    lines = [f"Incomplete: {shown[0]}", *shown[1:], *([f"and {more} more"] if more else [])]
    return "\n".join([*lines, *([drawing.command] if drawing.command else [])])


def _panel(axes: Axes, panel: Panel) -> None:
    if panel.paint is not None:
        panel.paint(axes)
    axes.set_title(panel.title, loc="left")
    if not panel.flat:
        return
    if panel.level is not None:
        axes.axhline(panel.level, color="0.55", lw=0.8, zorder=0)
    for series in panel.series:
        _series(axes, series)
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names)
    elif panel.series:
        _scales(axes, panel)
    labelled = [series for series in panel.series if series.label]
    if labelled:
        axes.legend(frameon=False, ncols=1 + (len(labelled) > _MOST_NAMES_IN_LEGEND // 2), handlelength=1.4)


def _series(axes: Axes, s: Series) -> None:
    label = s.label or None
    if s.style == "points":
        axes.plot(s.x, s.y, color=s.colour, marker=s.marker, ms=4, lw=0, mec="white", mew=0.4, label=label, zorder=4)
    elif s.style == "faint":
        axes.plot(s.x, s.y, color=s.colour, alpha=0.25, lw=0.7, zorder=1, label=label)
    elif s.style == "dashed":
        axes.plot(s.x, s.y, color=s.colour, lw=1.0, ls="--", zorder=2, label=label)
    elif s.style == "bars":
        spans = None if s.low is None or s.high is None else np.abs(np.array([s.y - s.low, s.high - s.y]))
        axes.bar(s.x, s.y, 0.38, color=s.colour, yerr=spans, capsize=2.5, error_kw={"lw": 0.8}, label=label, zorder=2)
    else:
        marker = s.marker if s.style == "joined" else None
        axes.plot(s.x, s.y, color=s.colour, lw=1.3, marker=marker, ms=3.5, label=label, zorder=3)
    if s.style in ("points", "joined") and s.low is not None and s.high is not None:
        spans = np.abs(np.array([s.y - s.low, s.high - s.y]))
        axes.errorbar(s.x, s.y, spans, fmt="none", ecolor=s.colour, elinewidth=0.8, capsize=2, zorder=3)
    if s.style == "band" and s.low is not None and s.high is not None:
        axes.fill_between(s.x, s.low, s.high, color=s.colour, alpha=0.16, lw=0, zorder=1)


def _scales(axes: Axes, panel: Panel) -> None:
    """Logarithmic axes with labels that are read: few decades get 1, 2, 5; less than a decade gets plain numbers."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    for axis, log, values in (
        (axes.xaxis, panel.x_log, [s.x for s in panel.series]),
        (axes.yaxis, panel.y_log, [s.y for s in panel.series]),
    ):
        if not log:
            continue
        (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        finite = np.concatenate(values)
        finite = finite[np.isfinite(finite) & (finite > 0)]
        decades = np.log10(finite.max() / finite.min()) if len(finite) else 0.0
        if decades < 0.9:
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(ScalarFormatter())
        else:
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0) if decades < 2.5 else (1.0,)))
            axis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(10, 10)))
        axis.set_minor_formatter(NullFormatter())
