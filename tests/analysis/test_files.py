"""From drawings to files: equal bytes for equal input, no text below 7 pt, pages without a network, marks."""

from itertools import pairwise

import matplotlib
import numpy as np
import pytest

from analysis.figures import fig1, fig2, fig4, fig6, fig7, learning_rates
from analysis.make import write
from structlin.drawing.charts import charts, page
from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.paint import figure_of, render
from structlin.drawing.style import PAGE_INCHES, RC, SMALLEST_POINT
from tests.analysis import tables


@pytest.fixture(params=["fig2", "fig4", "fig6", "fig7", "learning-rates"])
def drawing(request, taxonomy, mixtures) -> Drawing:
    made = {
        "fig2": fig2.draw,
        "fig4": lambda: fig4.draw(*taxonomy),
        "fig6": lambda: fig6.draw(*mixtures).lacking(["moe-btt8 at width 64, seed 0, step 10"] * 5, "python sweep.py"),
        "fig7": lambda: fig7.draw(*mixtures),
        "learning-rates": lambda: learning_rates.draw(tables.landscape()),
    }
    return made[request.param]()


def test_print_size_and_type(drawing: Drawing) -> None:
    with matplotlib.rc_context(RC):
        figure = figure_of(drawing)
        width, height = figure.get_size_inches()
        assert width <= PAGE_INCHES
        figure.draw_without_rendering()
        deep = {id(text) for one in figure.axes if one.name == "3d" for text in one.findobj(matplotlib.text.Text)}
        axes = [axis for one in figure.axes if one.name != "3d" for axis in (one.xaxis, one.yaxis)]
        # Labels of ticks beyond the limits exist and are not drawn.
        ticks = {id(label) for axis in axes for label in axis.get_ticklabels(which="both")}
        drawn = {id(tick.label1) for axis in axes for tick in axis._update_ticks()}
        for text in figure.findobj(matplotlib.text.Text):
            if not text.get_text().strip() or not text.get_visible() or id(text) in ticks - drawn:
                continue
            assert text.get_fontsize() >= SMALLEST_POINT, text
            if id(text) in deep:  # three dimensions keep ticks that they do not draw: looked at as one box below
                continue
            box = text.get_window_extent()
            assert box.x0 >= -1, text
            assert box.x1 <= width * figure.dpi + 1, text
            assert box.y0 >= -1, text
            assert box.y1 <= height * figure.dpi + 1, text
        for one in figure.axes:
            box = one.get_tightbbox()
            assert box.x0 >= -1
            assert box.y1 <= height * figure.dpi + 1


def test_legends_cover_no_axes(drawing: Drawing) -> None:
    with matplotlib.rc_context(RC):
        figure = figure_of(drawing)
        figure.draw_without_rendering()
        assert figure.legends
        for legend in figure.legends:
            box = legend.get_window_extent()
            for axes in figure.axes:
                assert not box.overlaps(axes.get_window_extent()), axes.get_title(loc="left")


def test_the_same_drawing_gives_the_same_bytes(taxonomy) -> None:
    runs, laws = taxonomy
    pair = [fig1.draw(runs, laws) for _ in range(2)]
    for ending in ("pdf", "png"):
        assert render(pair[0], ending) == render(pair[1], ending)
    assert page(pair[0]) == page(pair[1])


def test_pages_hold_the_same_numbers(drawing: Drawing) -> None:
    found = charts(drawing)
    assert len(found) == sum(bool(panel.series) for panel in drawing.panels)
    panels = [panel for panel in drawing.panels if panel.series]
    for chart, panel in zip(found, panels, strict=True):
        main = [part for part in chart["series"] if not part["label"].endswith(": interval")]
        # As they are drawn: points that would hide one another stand side by side.
        for part, series in zip(main, panel.drawn(), strict=True):
            np.testing.assert_allclose(part["x"], series.x, rtol=1e-5)
            np.testing.assert_allclose(part["y"], series.y, rtol=1e-5)
    text = page(drawing)
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://github.com/leeoniya/uPlot", "")


def test_what_is_missing_is_marked_everywhere(mixtures) -> None:
    cells = [f"moe-btt8 at width 64, seed {seed}, step 10" for seed in range(5)]
    drawing = fig6.draw(*mixtures).lacking(cells, "python sweep.py study=fig6 study.size=small")
    with matplotlib.rc_context(RC):
        texts = [text.get_text() for text in figure_of(drawing).texts]
    assert any("Incomplete: " + cells[0] in text and "and 2 more" in text for text in texts)
    assert any("python sweep.py study=fig6" in text for text in texts)
    text = page(drawing)
    assert all(cell in text for cell in cells)
    assert "python sweep.py study=fig6 study.size=small" in text


def test_files_stand_beside_each_other(tmp_path, mixtures) -> None:
    drawing = fig7.draw(*mixtures)
    paths = write(drawing, tmp_path)
    assert {path.name for path in paths} == {f"fig7.{ending}" for ending in ("png", "pdf", "csv", "html")}
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in write(drawing, tmp_path)} == first
    assert first["fig7.csv"].decode().startswith("panel,series,variant,style,x,y,low,high\n")
    assert {path.name for path in tmp_path.iterdir()} == set(first)


def test_a_run_of_one_evaluation_is_seen_and_an_empty_panel_is_not() -> None:
    one = Series("", "a", np.array([3e10]), np.array([2.0]), "dots", "#000000")
    drawing = Drawing("x", "x", "x", (Panel("p", "x", "y", (one,)), Panel("q", "x", "y", ())))
    with matplotlib.rc_context(RC):
        figure = figure_of(drawing)
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "p"
    assert [line.get_marker() for line in axes.lines] == ["."]


def test_ticks_of_a_short_span_are_told_apart() -> None:
    series = Series("a", "a", np.array([1.6e10, 4.2e10]), np.array([2.0, 1.9]), "line", "#000000")
    with matplotlib.rc_context(RC):
        figure = figure_of(Drawing("x", "x", "x", (Panel("p", "x", "y", (series,)),)))
        figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(labels) >= 3
    assert len(set(labels)) == len(labels)


def test_log_axes_have_labels_that_stand_apart() -> None:
    x = np.geomspace(3e9, 7e17, 40)
    series = Series("a", "a", x, np.linspace(4.4, 2.1, 40), "line", "#000000")
    drawing = Drawing("x", "x", "x", (Panel("p", "x", "y", (series,)),) * 3)
    with matplotlib.rc_context(RC):
        figure = figure_of(drawing)
        figure.draw_without_rendering()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                boxes = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
                assert len(boxes) >= 2
                assert not any(a.overlaps(b) for a, b in pairwise(boxes))
