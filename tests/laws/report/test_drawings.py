"""The drawings of the laws hold their numbers, on paper and on the page; no pixel is looked at."""

import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from structlin.drawing.charts import MOST_FAINT, MOST_POINTS, charts
from structlin.drawing.drawing import Drawing
from structlin.drawing.paint import figure_of
from structlin.drawing.style import RC, SMALLEST_POINT, STAR
from structlin.laws import synthetic
from structlin.laws.approaches.fit import Laws
from structlin.laws.report import drawings, page
from structlin.laws.report import laws_json as record
from structlin.laws.run import enrich
from tests.laws.tables import DENSE, laws_of, two


@pytest.fixture(scope="module")
def laws() -> Laws:
    return enrich(laws_of(two(), bootstrap=40))


@pytest.fixture(scope="module")
def drawn(laws: Laws) -> dict[str, Drawing]:
    return {drawing.name: drawing for drawing in drawings.drawings(laws)}


def test_everything_is_drawn_and_nothing_besides(laws: Laws, drawn: dict[str, Drawing]) -> None:
    assert list(drawn) == ["frontier", "multipliers", "isoflop", "backtest", "residuals"]
    alone = laws_of(two()[lambda t: t["variant"] == "dense"], bootstrap=40)
    assert [drawing.name for drawing in drawings.drawings(alone)] == ["frontier", "isoflop", "residuals"]


def test_a_frontier_is_its_runs_its_hull_and_its_law(laws: Laws, drawn: dict[str, Drawing]) -> None:
    rows = drawn["frontier"].numbers()
    for variant in ("dense", "btt"):
        law, frame = laws.frontiers[variant], laws.points.of(variant)
        own = rows[rows["variant"] == variant]
        assert len(own[own["style"] == "faint"]) == len(frame)
        assert sorted(own.loc[own["style"] == "joined", "y"]) == sorted(frame["L"].to_numpy()[law.members])
        dashed = own[own["style"] == "dashed"]
        assert dashed["x"].max() == pytest.approx(2 * law.span[1])
        np.testing.assert_allclose(dashed["y"], law.loss(dashed["x"].to_numpy()))


def test_multipliers_are_bands_with_their_means_in_the_legend(laws: Laws, drawn: dict[str, Drawing]) -> None:
    (panel,) = drawn["multipliers"].panels
    (band,) = panel.series
    found = laws.multipliers["btt"]
    assert band.style == "band"
    for drawn_, known in ((band.x, found.flops), (band.y, found.value), (band.low, found.low), (band.high, found.high)):
        np.testing.assert_array_equal(drawn_, known)
    assert band.label == f"btt: mean {found.mean:.2f} ± {found.std:.2f}"
    assert panel.level == 1


def test_an_optimum_is_marked_where_it_is_inside_the_sizes(laws: Laws, drawn: dict[str, Drawing]) -> None:
    colours: dict[str, set[str]] = {}
    assert {panel.title for panel in drawn["isoflop"].panels} == set(laws.isoflops)
    for panel in drawn["isoflop"].panels:
        found = laws.isoflops[panel.title]
        budgets = {one.colour: one.label for one in panel.series if one.label}
        for colour, label in budgets.items():
            colours.setdefault(label, set()).add(colour)
        marks = [one for one in panel.series if one.marker == STAR]
        inside = [one.optimum for one in found.slices if one.edge is None and np.isfinite(one.optimum)]
        assert {one.x.item() for one in marks} <= set(inside)
        assert len(marks) >= 1
        for mark in marks:
            parabola = next(one for one in panel.series if one.style == "line" and one.colour == mark.colour)
            assert mark.y.item() == pytest.approx(parabola.y.min(), rel=1e-3)
    assert all(len(seen) == 1 for seen in colours.values())


def test_runs_of_one_evaluation_are_dots() -> None:
    table = synthetic.isoflop(DENSE, generator=np.random.default_rng(0))
    laws = laws_of(table.assign(run=[f"r{place}" for place in range(len(table))]), bootstrap=40)
    styles = [one.style for one in drawings.frontier(laws).panels[0].series]
    assert styles == ["dots", "joined", "dashed"]
    assert len(drawings.frontier(laws).panels[0].series[0].x) == len(table)


@pytest.mark.parametrize("name", ["frontier", "multipliers", "isoflop"])
def test_axes_name_unit_and_convention_and_no_text_is_small(name: str, drawn: dict[str, Drawing]) -> None:
    with matplotlib.rc_context(RC):
        figure = figure_of(drawn[name], captioned=True)
        figure.draw_without_rendering()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]
    assert min(text.get_fontsize() for text in texts) >= SMALLEST_POINT
    said = " ".join(text.get_text() for text in texts)
    assert "nats per token" in said or "multiplier against dense" in said
    assert "FLOPs" in said
    assert "column of the table" in said
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_files_embed_truetype_and_repeat_to_the_byte(laws: Laws, tmp_path: Path) -> None:
    first, second = (drawings.write(laws, tmp_path / name) for name in ("one", "two"))
    assert [path.name for path in first] == [
        f"{name}.{ending}" for name in ("frontier", "multipliers", "isoflop") for ending in ("png", "pdf")
    ]
    for a, b in zip(first, second, strict=True):
        data = a.read_bytes()
        assert data == b.read_bytes()
        if a.suffix == ".pdf":
            assert b"/CIDFontType2" in data
            assert b"/Type3" not in data


def test_the_page_holds_every_panel_and_is_equal_again(laws: Laws, drawn: dict[str, Drawing]) -> None:
    found = record.plain(record.record(laws))
    text = page.render(laws, found)
    assert text == page.render(laws, found)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1].replace("<\\/", "</"))
    assert [one["id"] for one in data] == [
        f"{drawing.name}-{place}" for drawing in drawn.values() for place in range(len(drawing.panels))
    ]
    assert all(f'id="{one["host"]}"' in text for one in data)


def test_a_page_of_many_runs_stays_small() -> None:
    generator = np.random.default_rng(0)
    table = pd.concat([synthetic.trunks(DENSE, generator=generator).assign(copy=place) for place in range(20)])
    table["run"] = table["run"] + "-" + table["copy"].astype(str)
    (frontier,) = drawings.frontier(laws_of(table, bootstrap=20)).panels
    lines = [one for one in frontier.series if one.style == "faint"]
    assert len(lines) > MOST_FAINT
    (chart,) = charts(Drawing("x", "x", "x", (frontier,)))
    shown = [one for one in chart["series"] if one["style"] == "faint"]
    assert MOST_FAINT / 2 <= len(shown) <= MOST_FAINT
    assert all(len(one["x"]) <= MOST_POINTS["faint"] for one in shown)
    by_name = {one.said: one for one in lines}
    for one in shown:
        assert one["x"][0] == pytest.approx(by_name[one["label"]].x[0], rel=1e-5)
        assert one["x"][-1] == pytest.approx(by_name[one["label"]].x[-1], rel=1e-5)
