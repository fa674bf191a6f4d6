"""The ink of a drawing: what each style leaves on the axes, and where axes and legends stand, in inches."""

from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.paint import figure_of
from structlin.drawing.room import legend_layout
from structlin.drawing.style import RC, RING, STAR

X, Y, LOW, HIGH = (np.array(values) for values in ([1.0, 2.0, 4.0], [3.0, 5.0, 4.0], [2.0, 4.5, 3.0], [6.0, 7.0, 4.5]))


def series(style: str, x: np.ndarray = X, y: np.ndarray = Y, **options: Any) -> Series:
    return Series(**{"label": "", "variant": "v", "colour": "#123456", **options}, style=style, x=x, y=y)


def panel(*of: Series, **options: Any) -> Panel:
    return Panel(**{"title": "p", "x_label": "x", "y_label": "y", **options}, series=of)


def figure(*panels: Panel, captioned: bool = False, **options: Any) -> Figure:
    with matplotlib.rc_context(RC):
        return figure_of(Drawing("d", "t", "c", panels, **options), captioned=captioned)


def axes_of(*of: Series, **options: Any) -> Axes:
    (axes,) = figure(panel(*of, **options)).axes
    return axes


def points_of(line: Line2D) -> list[tuple[float, float]]:
    """What a line goes through."""
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def inches(axes: Axes) -> tuple[float, ...]:
    """Room left, below, right and above of axes."""
    width, height = axes.figure.get_size_inches()
    box = axes.get_position()
    return box.x0 * width, box.y0 * height, (1 - box.x1) * width, (1 - box.y1) * height


@pytest.mark.parametrize(
    ("style", "marker", "line", "joined"),
    [
        ("points", "s", "s", False),
        ("points", STAR, "*", False),
        ("points", RING, "o", False),
        ("dots", "s", ".", False),
        ("line", "s", "None", True),
        ("joined", "s", "s", True),
        ("dashed", "s", "None", True),
        ("band", "s", "s", True),
    ],
)
def test_a_style_is_a_line_with_or_without_marks(style: str, marker: str, line: str, joined: bool) -> None:
    (found,) = axes_of(series(style, marker=marker)).lines
    assert points_of(found) == list(zip(X, Y, strict=True))
    assert found.get_marker() == line
    assert (found.get_linestyle() != "None" and found.get_linewidth() > 0) == joined
    assert (found.get_linestyle() == "--") == (style == "dashed")
    assert "#123456" in (found.get_color(), found.get_markeredgecolor())


def test_faint_runs_are_all_there_behind_the_rest() -> None:
    runs = [series("faint", k * X, Y / k, colour=colour) for k, colour in ((1, "#ff0000"), (20, "#0000ff"))]
    axes = axes_of(runs[0], series("joined"), runs[1])
    (faint,) = axes.collections
    for segment, one in zip(faint.get_segments(), runs, strict=True):
        np.testing.assert_array_equal(segment, np.column_stack([one.x, one.y]))
    assert [tuple(colour[:3]) for colour in faint.get_colors()] == [(1, 0, 0), (0, 0, 1)]
    (joined,) = axes.lines
    assert faint.get_zorder() < joined.get_zorder()
    # Lines of a collection do not widen axes by themselves.
    assert axes.get_xlim()[1] >= 80
    assert axes.get_ylim()[0] <= 0.15


def test_a_band_spans_its_ends_and_has_few_marks() -> None:
    x = np.geomspace(1, 100, 41)
    axes = axes_of(series("band", x, 2 * x, low=x, high=3 * x))
    corners = {tuple(corner) for corner in axes.collections[0].get_paths()[0].vertices.tolist()}
    assert {*zip(x, x, strict=True), *zip(x, 3 * x, strict=True)} <= corners
    assert axes.lines[0].get_markevery() == 10


@pytest.mark.parametrize("style", ["points", "joined", "bars"])
def test_intervals_are_lines_from_end_to_end(style: str) -> None:
    axes = axes_of(series(style, low=LOW, high=HIGH), y_log=False, x_log=False)
    (bars,) = [one for one in axes.collections if hasattr(one, "get_segments")]
    expected = [[(x, low), (x, high)] for x, low, high in zip(X, LOW, HIGH, strict=True)]
    np.testing.assert_allclose(bars.get_segments(), expected)
    assert [bar.get_height() for bar in axes.patches] == (Y.tolist() if style == "bars" else [])


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_level_is_a_line_across(level: float) -> None:
    line, _ = axes_of(series("line"), level=level, y_log=False).lines
    assert points_of(line) == [(0, level), (1, level)]
    assert line.get_transform() == line.axes.get_yaxis_transform(which="grid")
    assert len(axes_of(series("line")).lines) == 1


@pytest.mark.parametrize("x_log", [True, False])
@pytest.mark.parametrize("y_log", [True, False])
def test_scales_are_those_of_the_panel(x_log: bool, y_log: bool) -> None:
    axes = axes_of(series("line"), x_log=x_log, y_log=y_log)
    scales = {True: "log", False: "linear"}
    assert (axes.get_xscale(), axes.get_yscale()) == (scales[x_log], scales[y_log])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("x", "y", "p")


def test_compute_is_labelled_shortly() -> None:
    axes = axes_of(series("line", 1e18 * X))
    assert [axes.xaxis.get_major_formatter()(value) for value in (1e18, 2e18)] == ["1e18", "2e18"]
    assert set(axes.get_xticks()) <= {1e18, 1.5e18, 2e18, 2.5e18, 3e18, 3.5e18, 4e18}


def test_categories_stand_at_their_numbers() -> None:
    axes = axes_of(series("bars", np.arange(3.0)), names=("a", "b", "c"), y_log=False)
    assert [(tick.get_position()[0], tick.get_text()) for tick in axes.get_xticklabels()] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]
    assert axes.get_xlim() == (-0.6, 2.6)


def test_a_shared_axis_spans_all_that_share_it() -> None:
    """The second panel has no label of y; a panel of its own y neither gives nor takes limits."""
    low, high, own = panel(series("line", y=Y)), panel(series("line", y=10 * Y)), panel(series("line", y=1e3 * Y))
    own = Panel(own.title, own.x_label, own.y_label, own.series, own_y=True)
    first, second, third = figure(low, high, own, shared_y=True).axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] <= 3
    assert 50 <= first.get_ylim()[1] < 1000
    assert third.get_ylim()[0] > 1000
    assert [axes.get_ylabel() for axes in (first, second, third)] == ["y", "", "y"]
    apart = figure(low, high).axes
    assert apart[0].get_ylim()[1] < 10 < apart[1].get_ylim()[0]


def test_what_lies_above_the_highest_shown_leaves_the_panel() -> None:
    assert axes_of(series("line"), y_most=4.5).get_ylim()[1] == 4.5
    assert axes_of(series("line"), y_most=100.0).get_ylim()[1] < 10


@pytest.mark.parametrize(
    ("panels", "options", "size", "axes"),
    [
        (1, {}, (3.4, 2.6), [(0.62, 0.5, 0.1, 0.24)]),
        (1, {"wide": True}, (5.3, 3.3), [(0.62, 0.5, 0.1, 0.24)]),
        (2, {}, (7.0, 2.45), [(0.62, 0.5, 3.6, 0.24), (4.12, 0.5, 0.1, 0.24)]),
        (2, {"shared_y": True}, (7.0, 2.45), [(0.62, 0.5, 3.6, 0.24), (3.86, 0.5, 0.1, 0.24)]),
        (2, {"columns": 1, "wide": True}, (5.3, 6.6), [(0.62, 3.8, 0.1, 0.24), (0.62, 0.5, 0.1, 3.54)]),
    ],
)
def test_axes_have_room_for_their_words(
    panels: int, options: dict[str, Any], size: tuple[float, float], axes: list[tuple[float, ...]]
) -> None:
    found = figure(*[panel(series("line"))] * panels, **options)
    assert tuple(found.get_size_inches()) == pytest.approx(size)
    assert [inches(one) for one in found.axes] == [pytest.approx(room) for room in axes]


def test_legend_and_caption_stand_below_in_room_of_their_own() -> None:
    bare = figure(panel(series("line")))
    named = [series("line", label=label, variant=label) for label in ("dense", "btt", "low rank")]
    for captioned in (False, True):
        found = figure(panel(series("line"), *named), captioned=captioned)
        extra = found.get_size_inches()[1] - bare.get_size_inches()[1]
        assert extra > 0.2
        left, below, right, above = inches(found.axes[0])
        assert (left, right, above) == pytest.approx((0.62, 0.1, 0.24))
        assert below == pytest.approx(0.5 + extra)
        assert [text.get_text() for text in found.legends[0].get_texts()] == ["dense", "btt", "low rank"]
        assert any("t. c" in text.get_text() for text in found.texts) == captioned


def test_one_legend_names_each_label_once() -> None:
    one, other = (panel(series("line", label="a"), series("line", label=label)) for label in ("b", "c"))
    (legend,) = figure(one, other, shared_legend=True).legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    assert len(figure(one, other).legends) == 2


@pytest.mark.parametrize(
    ("labels", "width", "layout"),
    [
        ([], 3.4, (1, 0)),
        (["", ""], 3.4, (1, 0)),
        (["dense", "btt"], 3.4, (2, 1)),
        # A name of five characters takes 0.3 + 5 x 0.053 + 0.12 inches: four stand in 3.25.
        (["dense"] * 4, 3.4, (4, 1)),
        (["dense"] * 5, 3.4, (4, 2)),
        (["dense"] * 9, 3.4, (4, 3)),
        (["d" * 90, "b"], 3.4, (1, 2)),
    ],
)
def test_legends_have_columns_that_fit(labels: list[str], width: float, layout: tuple[int, int]) -> None:
    assert legend_layout([series("line", label=label) for label in labels], width) == layout


def test_a_legend_stands_below_its_panel() -> None:
    """In each column and row, between the axes above and what stands below."""
    of = panel(series("line", label="dense"), series("line", label="btt"))
    found = figure(of, of, of, of, columns=2)
    with matplotlib.rc_context(RC):
        found.draw_without_rendering()
    for place, (axes, legend) in enumerate(zip(found.axes, found.legends, strict=True)):
        box, around = legend.get_window_extent(), axes.get_window_extent()
        floor = found.axes[place + 2].get_window_extent().y1 if place < 2 else 0
        assert floor <= box.y0 < box.y1 <= around.y0
        assert around.x0 - 0.62 * found.dpi <= box.x0 < box.x1 <= around.x1


def test_ticks_of_loss_have_room() -> None:
    """A tick every 0.22 inches of the height at most: 1.86 of them hold 8."""
    axes = axes_of(series("line", y=np.array([2.1, 3.0, 4.3])))
    ticks = axes.get_yticks()
    assert 3 <= len(ticks) <= 8
    assert axes.get_ylim()[0] <= ticks[0] < ticks[-1] <= axes.get_ylim()[1]


def test_names_below_the_axes_are_cut_at_no_letter_and_have_room() -> None:
    """Three lines of them are taller than two, and the axes as high as before."""
    bars = [series("bars", np.arange(6.0), np.ones(6), label="8 experts")]
    short, long = ["a b"] * 6, ["standard MoE (all, random)"] * 6
    low, high = (figure(panel(*bars, x_log=False, y_log=False, names=tuple(names))) for names in (short, long))
    said = [text.get_text() for text in high.axes[0].get_xticklabels()]
    assert {name.replace("\n", " ") for name in said} == {"standard MoE (all, random)"}
    heights = [one.get_figheight() for one in (low, high)]
    assert heights[1] > heights[0]
    inches = [one.axes[0].get_position().height * height for one, height in zip((low, high), heights, strict=True)]
    assert inches[0] == pytest.approx(inches[1])
