"""How much room does everything take? The page of a drawing in inches, before anything is painted.

Every panel has margins in inches (an automatic layout takes longer than the drawing), and legends stand below the
axes, where they cover no point.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import COLUMN_INCHES, PAGE_INCHES, WIDE_INCHES

# What stands around the axes of a panel, and between the lines of a legend.
LEFT, LEFT_BARE, RIGHT, TOP, BOTTOM, BARE = 0.62, 0.36, 0.1, 0.24, 0.5, 0.06
LINE, CHARACTER, HANDLE = 0.145, 0.053, 0.3
# Between the lines of a note or a caption, of 7 pt.
TEXT_LINE = 0.12
# Between the lines of a name below the axes.
NAME_LINE = 0.15
# Height of a panel by the panels a row, and of one that has a column and a half of print.
HEIGHTS, LEAST_HEIGHT, WIDE_HEIGHT = {1: 2.6, 2: 2.45}, 2.15, 3.3
DIAGRAM_HEIGHT = 1.3
MOST_MISSING = 3

Box = tuple[float, float, float, float]
"""(left, bottom, width, height) from the lower left corner of the page."""


@dataclass(frozen=True)
class Room:
    """The page of a drawing; lengths in inches."""

    width: float
    rows: tuple[tuple[Panel, ...], ...]
    cell: float
    """Width of a panel with its margins."""
    heights: tuple[float, ...]
    """Of each row, with the legend below it."""
    legends: tuple[float, ...]
    """Of the legends below each row."""
    shared: tuple[Series, ...]
    """What the one legend of all panels names; empty where each panel has its own."""
    note: str
    """What an incomplete figure says of itself."""
    caption: str

    @property
    def caption_height(self) -> float:
        """Of the caption, at the bottom."""
        return TEXT_LINE * (1 + self.caption.count("\n")) + 0.08 if self.caption else 0.0

    @property
    def shared_height(self) -> float:
        """Of the shared legend."""
        return legend_height(self.shared, self.width)

    @property
    def below(self) -> float:
        """Of all that stands below the panels: legend, note, caption."""
        note = TEXT_LINE * (1 + self.note.count("\n")) + 0.08 if self.note else 0.0
        return self.shared_height + note + self.caption_height

    @property
    def height(self) -> float:
        """Of the page."""
        return sum(self.heights) + self.below


def room_of(drawing: Drawing, *, captioned: bool = False) -> Room:
    """The page of a drawing, ``captioned`` with title and caption below."""
    # A panel that has nothing to show leaves its place to the others; one stays to say what is missing.
    panels = [p for p in drawing.panels if p.series or p.paint is not None] or drawing.panels[:1]
    columns = drawing.columns or max(1, len(panels))
    rows = tuple(tuple(panels[start : start + columns]) for start in range(0, len(panels), columns))
    width = PAGE_INCHES if columns > 1 else WIDE_INCHES if drawing.wide else COLUMN_INCHES
    height = WIDE_HEIGHT if drawing.wide and columns == 1 else HEIGHTS.get(columns, LEAST_HEIGHT)
    cell = width / columns
    shared = _unique(panels) if drawing.shared_legend else ()
    legends = tuple(0.0 if shared else max(legend_height(panel.series, cell) for panel in row) for row in rows)
    more = tuple(max(_more_below(panel, cell) for panel in row) for row in rows)
    heights = tuple(
        _bare_height(row, height) + extra + legend for row, extra, legend in zip(rows, more, legends, strict=True)
    )
    words = f"{drawing.title}. {drawing.caption}"
    caption = textwrap.fill(words, _characters(width)) if captioned else ""
    return Room(width, rows, cell, heights, legends, shared, _note(drawing, width), caption)


def axes_of(panel: Panel, box: Box, bare: bool) -> Box:
    """The axes of a panel in its cell: what the margins of their kind leave; ``bare`` without a label of y."""
    left, bottom, width, height = box
    if panel.series:
        start, under = LEFT_BARE if bare else LEFT, BOTTOM + _more_below(panel, width)
    else:
        start = under = BARE
    if not panel.series and panel.flat and not panel.tall:
        bottom += max(0.0, height - DIAGRAM_HEIGHT - TOP)
        height = min(height, DIAGRAM_HEIGHT + TOP)
    return left + start, bottom + under, width - start - RIGHT, height - under - TOP


def wrapped_names(panel: Panel, cell: float) -> list[str]:
    """The names below the axes of a panel of that width, in lines that keep apart; no word is cut."""
    # A character less, which keeps neighbours apart.
    room = int((cell - LEFT - RIGHT) / max(len(panel.names), 1) / CHARACTER) - 1
    return [textwrap.fill(name, max(room, 6), break_long_words=False) for name in panel.names]


def _more_below(panel: Panel, cell: float) -> float:
    """What names of more than two lines take below the axes."""
    lines = max((name.count("\n") + 1 for name in wrapped_names(panel, cell)), default=1)
    return NAME_LINE * max(0, lines - 2)


def legend_layout(series: Iterable[Series], width: float) -> tuple[int, int]:
    """(columns, lines) of a legend."""
    labels = [one.label for one in series if one.label]
    if not labels:
        return 1, 0
    widest = HANDLE + CHARACTER * max(len(label) for label in labels) + 0.12
    columns = max(1, min(len(labels), int((width - 0.15) / widest)))
    return columns, -(-len(labels) // columns)


def legend_height(series: Iterable[Series], width: float) -> float:
    """Of a legend of that width, 0 without names."""
    lines = legend_layout(series, width)[1]
    return LINE * lines + 0.1 if lines else 0.0


def _bare_height(row: Sequence[Panel], height: float) -> float:
    """Diagrams take less room than axes."""
    return height if any(panel.series or panel.tall or not panel.flat for panel in row) else 0.7 * height


def _unique(panels: Iterable[Panel]) -> tuple[Series, ...]:
    """The first series of every label."""
    found: dict[str, Series] = {}
    for panel in panels:
        for series in panel.series:
            if series.label:
                found.setdefault(series.label, series)
    return tuple(found.values())


def _note(drawing: Drawing, width: float) -> str:
    """What an incomplete figure says of itself, as lines that fit."""
    if not drawing.missing:
        return ""
    shown = list(drawing.missing[:MOST_MISSING])
    more = len(drawing.missing) - len(shown)
    lines = [f"Incomplete: {shown[0]}", *shown[1:], *([f"and {more} more"] if more else []), drawing.command]
    return "\n".join(piece for line in lines if line for piece in textwrap.wrap(line, _characters(width)))


def _characters(width: float) -> int:
    """How many of them a line of that width holds."""
    return int((width - 0.2) / CHARACTER)
