"""What does a figure show? Panels of series as plain numbers, before anything is painted.

A figure's module answers with a ``Drawing``; from it come the PNG and the PDF (paint.py), the interactive page
(charts.py) and the CSV of its numbers, so that none of them can show what another does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]
STYLES = ("points", "dots", "line", "joined", "faint", "dashed", "band", "bars")


@dataclass(frozen=True, eq=False)
class Series:
    """One set of points, told apart by colour, marker and name."""

    label: str
    """Text of the legend; empty leaves it out of the legend."""
    variant: str
    """The structure or mixture that it belongs to."""
    x: Array
    """(n,) in the unit of the panel's x axis."""
    y: Array
    """(n,) in the unit of the panel's y axis."""
    style: str
    """points, dots (small and faint), line, joined (points with a line), faint (a line), dashed, band (line within low
    and high) or bars."""
    colour: str
    marker: str = "o"
    low: Array | None = None
    """Lower end of an interval of y, (n,)."""
    high: Array | None = None
    """Upper end of an interval of y, (n,)."""
    said: str = ""
    """What a page says under the pointer; the label where empty."""

    def __post_init__(self) -> None:
        assert self.style in STYLES, self.style
        for values in (self.y, self.low, self.high):
            assert values is None or values.shape == self.x.shape, (self.label, self.x.shape, values.shape)


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    """With its unit and its FLOP convention; a line break is kept."""
    y_label: str
    series: tuple[Series, ...]
    x_log: bool = True
    y_log: bool = True
    level: float | None = None
    """A horizontal line where better and worse divide."""
    names: tuple[str, ...] = ()
    """Categories at x = 0, 1, ... instead of numbers."""
    ticks: tuple[float, ...] = ()
    """Numbers to stand on the x axis; chosen by its range where empty."""
    paint: Callable[[Axes], None] | None = None
    """What no series can say (a diagram); painted below the series."""
    spread: float = 0.0
    """Series of one point that stand at the same x are drawn this far apart, in units of x; the numbers stay."""
    apart: float = 0.0
    """Series of one point that stand at the same x and y are drawn this far apart in x, so that none hides another."""
    y_most: float | None = None
    """The highest y that is shown; what lies above leaves the panel."""
    own_y: bool = False
    """Whether its y axis stays its own where the drawing shares one."""
    tall: bool = False
    """Whether what is painted fills the height of its row; else it is as high as one diagram."""
    flat: bool = True
    """False for axes in three dimensions, which ``paint`` fills alone."""

    def drawn(self) -> tuple[Series, ...]:
        """The series as they are drawn."""
        if not self.spread and not self.apart:
            return self.series
        single = [series for series in self.series if self.spread or len(series.x) == 1]
        groups: dict[tuple[float, ...], list[Series]] = {}
        for series in single:
            where = (float(series.x[0]),) if self.spread else (float(series.x[0]), float(series.y[0]))
            groups.setdefault(where, []).append(series)
        place = {id(s): group.index(s) - (len(group) - 1) / 2 for group in groups.values() for s in group}
        step = self.spread or self.apart
        return tuple(replace(s, x=s.x + step * place[id(s)]) if id(s) in place else s for s in self.series)


@dataclass(frozen=True)
class Drawing:
    """A figure with all of its numbers."""

    name: str
    """Stem of its files: fig4."""
    title: str
    caption: str
    """What is shown, of which runs, in which convention; one paragraph."""
    panels: tuple[Panel, ...]
    columns: int = 0
    """Panels a row; 0 puts all in one row."""
    wide: bool = False
    """Whether its one column of panels is a column and a half of print wide."""
    shared_legend: bool = False
    """One legend for all panels, where a name looks the same in each."""
    shared_y: bool = False
    """All panels span the same y."""
    missing: tuple[str, ...] = field(default=())
    """What should be shown and is not: cells without runs, laws that could not be fitted."""
    command: str = ""
    """The sweep that makes what is missing."""
    called: Mapping[str, str] = field(default_factory=dict)
    """What it calls its variants; a variant that is not in it is called ``readable(variant)``."""

    def numbers(self) -> pd.DataFrame:
        """All points of all series in one table: panel, series, variant, style, x, y, low, high."""
        frames = [_table(panel, series) for panel in self.panels for series in panel.series]
        columns = ["panel", "series", "variant", "style", "x", "y", "low", "high"]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)

    def lacking(self, missing: Sequence[str], command: str) -> Drawing:
        """The same drawing, marked with what is missing and the command that makes it."""
        return replace(self, missing=(*self.missing, *missing), command=command)


def _table(panel: Panel, series: Series) -> pd.DataFrame:
    none = np.full(len(series.x), np.nan)
    ends: dict[str, Any] = {name: getattr(series, name) for name in ("low", "high")}
    return pd.DataFrame(
        {
            "panel": panel.title,
            "series": series.label or series.variant,
            "variant": series.variant,
            "style": series.style,
            "x": series.x,
            "y": series.y,
            **{name: none if value is None else value for name, value in ends.items()},
        }
    )
