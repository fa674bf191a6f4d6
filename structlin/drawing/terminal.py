"""How does a table fit a terminal without losing a digit? Columns that matter least are left out, the rest stacks.

A table that is too wide is cut into several below one another, each with the columns that name its rows; only text
wraps.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 160
"""Wide enough for a whole table, where stdout is no terminal and COLUMNS says nothing."""
LEAST_TEXT = 16
"""No text is folded narrower, unless it is."""
GAP = 2


@dataclass
class Columns:
    """A table as its columns and rows of text; the first column says what a row is."""

    names: Sequence[str]
    title: str = ""
    texts: Sequence[str] = ()
    """Names of columns besides the first that hold text: left aligned, and allowed to wrap."""
    less: Sequence[str] = ()
    """Names of columns to leave out where they do not fit, the first of them first."""
    keys: int = 1
    """Leading columns that say which row it is: they stand in every part of a stacked table."""
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        assert len(cells) == len(self.names), (cells, self.names)
        self.rows.append(cells)

    def is_text(self, place: int) -> bool:
        """Whether a column may wrap."""
        return place == 0 or self.names[place] in self.texts

    def natural(self, place: int) -> int:
        """The width at which nothing wraps."""
        return max(_length(self.names[place]), *(_length(row[place]) for row in self.rows))

    def least(self, place: int) -> int:
        """The width at which no number is cut: headings and texts wrap, numbers do not."""
        if self.is_text(place):
            return min(LEAST_TEXT, self.natural(place))
        return max(*(len(word) for word in self.names[place].split()), *(_length(row[place]) for row in self.rows), 1)

    def without_empty(self) -> Columns:
        """The same without columns in which nothing stands."""
        kept = [place for place in range(len(self.names)) if any(row[place] for row in self.rows)]
        rows = [tuple(row[place] for place in kept) for row in self.rows]
        names = [self.names[place] for place in kept]
        less = [name for name in self.less if name in names]
        return Columns(names, self.title, self.texts, less, self.keys, rows)


def terminal() -> Console:
    """stdout: as wide as the terminal (or COLUMNS), and wide enough for a whole table where it is none."""
    # Reasons, paths and names are other people's text: brackets in it are no markup, and colons no emoji.
    # A sentence is one line, however narrow: a search of a log finds its words, and a terminal folds it by itself.
    plain = partial(Console, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if sys.stdout.isatty():
        return plain()
    columns = os.environ.get("COLUMNS", "")
    return plain(width=int(columns) if columns.isdigit() and int(columns) > 0 else PIPE_WIDTH)


def show(columns: Columns, console: Console) -> None:
    """Print the table as wide as the console is: whole, with fewer columns, or stacked. Nothing without rows."""
    for part in fitted(columns, console):
        console.print(part, soft_wrap=isinstance(part, Text))


def fitted(columns: Columns, console: Console) -> Iterator[Table | Text]:
    """What ``show`` prints, for whoever draws it himself."""
    if not columns.rows:
        return
    chosen = list(range(len(columns.names)))
    left_out = []
    for name in columns.less:
        if _fits(columns, chosen, console):
            break
        chosen.remove(columns.names.index(name))
        left_out.append(name)
    for number, part in enumerate(_parts(columns, chosen, console)):
        yield _table(columns, part, console.width, is_first=number == 0)
    if left_out:
        yield Text(f"(too narrow for: {', '.join(left_out)})", style="dim")


def _parts(columns: Columns, chosen: list[int], console: Console) -> Iterator[list[int]]:
    """The chosen columns in groups that fit, each led by those that say which row it is."""
    keys = [place for place in chosen if place < columns.keys]
    part = list(keys)
    for place in chosen[len(keys) :]:
        if len(part) > len(keys) and not _fits(columns, [*part, place], console):
            yield part
            part = list(keys)
        part = [*part, place]
    yield part


def _fits(columns: Columns, chosen: Sequence[int], console: Console) -> bool:
    """Whether the columns fit at their least widths."""
    return sum(columns.least(place) + GAP for place in chosen) - GAP <= console.width


def _table(columns: Columns, chosen: Sequence[int], width: int, *, is_first: bool) -> Table:
    title = Text(columns.title) if is_first and columns.title else None
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for place, own in zip(chosen, _widths(columns, chosen, width), strict=True):
        justify: JustifyMethod = "left" if columns.is_text(place) else "right"
        table.add_column(Text(columns.names[place]), justify=justify, overflow="fold", width=own)
    for row in columns.rows:
        table.add_row(*(Text(row[place]) for place in chosen))
    return table


def _widths(columns: Columns, chosen: Sequence[int], width: int) -> list[int]:
    """The least widths, and what is left over for texts and headings that would like more, texts first."""
    widths = {place: columns.least(place) for place in chosen}
    free = width - sum(widths.values()) - GAP * (len(chosen) - 1)
    for place in sorted(chosen, key=lambda place: not columns.is_text(place)):
        more = max(0, min(free, columns.natural(place) - widths[place]))
        widths[place] += more
        free -= more
    return list(widths.values())


def _length(cell: str) -> int:
    """Characters of a cell as it is shown."""
    return cell_len(cell)
