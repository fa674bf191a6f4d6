"""The drawings of the laws hold their numbers, on paper and on the page; no pixel is looked at."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from structlin.drawing.charts import MOST_FAINT, MOST_POINTS, charts
from structlin.drawing.drawing import Drawing, Series
from structlin.drawing.paint import figure_of
from structlin.drawing.style import RC, SMALLEST_POINT, STAR
from structlin.laws import synthetic
from structlin.laws.approaches.isoflop import Slice
from structlin.laws.approaches.laws import Laws
from structlin.laws.report import curves, drawings, page
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


def numbers(series: Series, x: ArrayLike, y: ArrayLike) -> None:
    """The series goes through these points, in this order."""
    np.testing.assert_allclose(np.stack([series.x, series.y]), np.stack([x, y]), rtol=1e-9)


def test_a_frontier_is_its_runs_its_hull_and_its_law(laws: Laws, drawn: dict[str, Drawing]) -> None:
    (panel,) = drawn["frontier"].panels
    assert panel.x_log
    assert panel.y_log
    series = iter(panel.series)
    for variant, colour, marker in (("dense", "#000000", "^"), ("btt", "#D55E00", "o")):
        law, frame = laws.frontiers[variant], laws.points.of(variant)
        for run, part in frame.sort_values("C").groupby("run"):
            one = next(series)
            assert (one.said, one.label, one.variant, one.style, one.colour) == (run, "", variant, "faint", colour)
            numbers(one, part["C"], part["L"])
        parts = [next(series)]
        while (one := next(series)).style == "joined":
            parts.append(one)
        dashed = one
        # One line a stretch: none over more than half a decade without a point of the frontier.
        for place, joined in enumerate(parts):
            assert (joined.style, joined.colour, joined.marker) == ("joined", colour, marker)
            assert joined.label == ("" if place else variant)
            assert np.all(np.diff(np.log10(joined.x)) <= curves.MOST_GAP)
        ends = [np.log10(after.x[0] / before.x[-1]) for before, after in pairwise(parts)]
        assert all(gap > curves.MOST_GAP for gap in ends)
        points = [np.concatenate([getattr(one, axis) for one in parts]) for axis in ("x", "y")]
        np.testing.assert_allclose(points, frame[["C", "L"]].to_numpy()[law.members].T, rtol=1e-9)
        assert (dashed.label, dashed.style, dashed.colour) == ("", "dashed", colour)
        numbers(dashed, dashed.x, law.E + law.A * dashed.x**-law.a)
        assert dashed.x[[0, -1]] == pytest.approx([law.span[0], 2 * law.span[1]])
        assert np.ptp(np.diff(np.log(dashed.x))) < 1e-9
    assert next(series, None) is None


@pytest.mark.parametrize(("most", "shown"), [(5, [0, 1, 2, 3, 4]), (4, [0, 2, 4]), (2, [0, 3]), (1, [0])])
def test_many_runs_are_shown_by_some(laws: Laws, monkeypatch: pytest.MonkeyPatch, most: int, shown: list[int]) -> None:
    monkeypatch.setattr(curves, "MOST_RUNS", most)
    panel = curves.frontier_panel(laws, ["btt"], "")
    runs = sorted(laws.points.of("btt")["run"].unique())
    assert len(runs) == 5
    assert [one.said for one in panel.series if one.style == "faint"] == [runs[place] for place in shown]


def test_a_variant_without_a_law_shows_its_runs(laws: Laws) -> None:
    panel = curves.frontier_panel(replace(laws, frontiers={}), ["dense"], "")
    assert {one.style for one in panel.series} == {"faint"}
    kept = replace(laws, frontiers={"btt": laws.frontiers["btt"]})
    assert drawings.frontier(kept).missing == ("dense: too few points for a frontier",)
    assert drawings.frontier(laws).missing == ()


def test_multipliers_are_bands_with_their_means_in_the_legend(laws: Laws, drawn: dict[str, Drawing]) -> None:
    (panel,) = drawn["multipliers"].panels
    (band,) = panel.series
    found = laws.multipliers["btt"]
    assert band.style == "band"
    for drawn_, known in ((band.x, found.flops), (band.y, found.value), (band.low, found.low), (band.high, found.high)):
        np.testing.assert_array_equal(drawn_, known)
    assert band.label == f"btt: mean {found.mean:.2f} ± {found.std:.2f}"
    assert panel.level == 1
    assert panel.x_log
    assert panel.x_label.startswith("dense: compute")


def vertex_of(found: Slice) -> tuple[float, float]:
    """N and loss at the lowest point of the parabola of a slice."""
    constant, slope, curvature = found.parabola
    return np.exp(np.log(found.size).mean() - slope / (2 * curvature)), constant - slope**2 / (4 * curvature)


def test_isoflops_are_models_parabolas_and_optima(laws: Laws, drawn: dict[str, Drawing]) -> None:
    """Every second of thirteen budgets; a star at the vertex of those that have their optimum inside the sizes."""
    assert [panel.title for panel in drawn["isoflop"].panels] == ["dense", "btt"]
    for panel in drawn["isoflop"].panels:
        assert (panel.x_log, panel.y_log) == (True, False)
        slices = laws.isoflops[panel.title].slices
        assert len(slices) == 13
        stars, series = [], iter(panel.series)
        for found in slices[::2]:
            points, line = next(series), next(series)
            assert points.style == "points"
            assert float(points.label.removesuffix(" FLOPs")) == pytest.approx(found.budget, rel=0.05)
            numbers(points, found.size, found.loss)
            assert (line.style, line.label, line.colour) == ("line", "", points.colour)
            assert line.x[[0, -1]] == pytest.approx(found.size[[0, -1]])
            parabola = np.polynomial.Polynomial(found.parabola)
            numbers(line, line.x, parabola(np.log(line.x) - np.log(found.size).mean()))
            stars.append(found.edge is None)
            if stars[-1]:
                star = next(series)
                assert (star.style, star.marker, star.label, star.colour) == ("points", STAR, "", points.colour)
                assert (star.x.item(), star.y.item()) == pytest.approx(vertex_of(found))
        assert next(series, None) is None
        assert any(stars)
        assert not all(stars)


def test_a_budget_has_one_colour_in_all_panels(drawn: dict[str, Drawing]) -> None:
    looks = [{one.label: one.colour for one in panel.series if one.label} for panel in drawn["isoflop"].panels]
    assert looks[0] == looks[1]
    colours = list(looks[0].values())
    assert (colours[0], colours[-1]) == ("#440154", "#bddf26")
    assert len(set(colours)) == len(colours) == 7


def test_paper_shows_few_variants_and_names_the_rest(laws: Laws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "MOST_PANELS", 1)
    (paper,) = drawings._isoflop(laws, drawings.MOST_PANELS)
    assert [panel.title for panel in paper.panels] == ["dense"]
    assert paper.caption.endswith("1 of 2 variants; report.html has all.")


@pytest.fixture(scope="module")
def finished() -> Laws:
    return laws_of(synthetic.isoflop(DENSE, generator=np.random.default_rng(2)), bootstrap=40)


def test_runs_of_one_evaluation_are_dots(finished: Laws) -> None:
    dots, joined, dashed = drawings.frontier(finished).panels[0].series
    assert (dots.style, joined.style, dashed.style) == ("dots", "joined", "dashed")
    expected = finished.points.frame[["C", "L"]].to_numpy()
    assert len(expected) == 25
    assert sorted(zip(dots.x, dots.y, strict=True)) == sorted(map(tuple, expected))
    (chart,) = charts(drawings.frontier(finished))
    shown = chart["series"][0]
    assert (shown["label"], shown["style"]) == ("dense: runs", "dots")
    assert sorted(zip(shown["x"], shown["y"], strict=True)) == [
        pytest.approx(pair, rel=1e-5) for pair in sorted(map(tuple, expected))
    ]


def test_few_budgets_are_all_shown(finished: Laws) -> None:
    (panel,) = curves.isoflop_panels(finished, ["dense"])
    assert [one.label for one in panel.series if one.label] == [
        f"{b} FLOPs" for b in ("1e16", "3e16", "1e17", "3e17", "1e18")
    ]


def test_residuals_are_errors_of_the_parametric_law(laws: Laws, drawn: dict[str, Drawing]) -> None:
    (panel,) = drawn["residuals"].panels
    assert (panel.x_log, panel.y_log, panel.level) == (True, False, 0)
    for one, variant, colour in zip(panel.series, ("dense", "btt"), ("#000000", "#D55E00"), strict=True):
        law, frame = laws.parametrics[variant].fit.law, laws.points.of(variant)
        assert (one.label, one.variant, one.style, one.colour) == (variant, variant, "points", colour)
        off = 100 * np.log((law.E + law.A / frame["N"] ** law.alpha + law.B / frame["D"] ** law.beta) / frame["L"])
        assert (np.diff(one.x) >= 0).all()
        known, shown = (np.array(sorted(zip(x, y, strict=True))) for x, y in ((frame["C"], off), (one.x, one.y)))
        np.testing.assert_allclose(shown, known, rtol=1e-6, atol=1e-9)


def test_a_backtest_is_its_errors_over_its_reach(laws: Laws, drawn: dict[str, Drawing]) -> None:
    (panel,) = drawn["backtest"].panels
    assert (panel.x_log, panel.y_log) == (True, False)
    series = iter(panel.series)
    for variant in ("dense", "btt"):
        cuts = laws.checked.backtest["variants"][variant]
        for law, style in (("frontier", "joined"), ("parametric", "dashed")):
            one = next(series)
            assert (one.label, one.style) == (f"{variant}: {law}", style)
            known = [(cut["reach"], 100 * cut[law]["error"]) for cut in cuts if cut[law] is not None]
            assert sorted(zip(one.x, one.y, strict=True)) == sorted(known)
            assert (np.diff(one.x) > 0).all()
    assert next(series, None) is None


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
