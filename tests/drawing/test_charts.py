"""A panel becomes plain data of a page: its numbers, names, axes and intervals, and no more points than it can hold."""

from typing import Any

import numpy as np
import pytest

from structlin.drawing.charts import (
    LONGEST_LABEL,
    MOST_FAINT,
    MOST_POINTS,
    STAR_PIXELS,
    Chart,
    boxes,
    charts,
    charts_in,
)
from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.style import STAR

X, Y, LOW, HIGH = (np.array(values) for values in ([1.0, 2.0, 4.0], [3.0, 5.0, 4.0], [2.0, 4.5, 3.0], [6.0, 7.0, 4.5]))


def series(style: str, x: np.ndarray = X, y: np.ndarray = Y, **options: Any) -> Series:
    return Series(**{"label": "l", "variant": "low_rank", "colour": "#123456", **options}, style=style, x=x, y=y)


def chart_of(*of: Series, **options: Any) -> Chart:
    (chart,) = charts(Drawing("d", "t", "c", (Panel("p", "x", "y", of, **options),)))
    return chart


@pytest.mark.parametrize("style", ["points", "dots", "line", "joined", "faint", "dashed"])
def test_a_series_is_its_numbers_and_its_look(style: str) -> None:
    (one,) = chart_of(series(style))["series"]
    assert one == {
        "label": "l", "variant": "low_rank", "colour": "#123456", "style": style, "x": X.tolist(), "y": Y.tolist()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "said", "expected"), [("l", "", "l"), ("l", "more", "more"), ("", "run 7", "run 7"), ("", "", "low rank")]
)
def test_the_pointer_says_the_most_that_is_known(label: str, said: str, expected: str) -> None:
    (one,) = chart_of(series("line", label=label, said=said))["series"]
    assert one["label"] == expected


def test_numbers_have_six_digits_and_what_is_none_is_a_gap() -> None:
    (one,) = chart_of(series("line", np.array([1.23456789e18, 2.0, 3.0]), np.array([np.nan, np.inf, 1 / 3])))["series"]
    assert one["x"] == [1.23457e18, 2.0, 3.0]
    assert one["y"] == [None, None, 0.333333]


def test_a_band_keeps_its_ends() -> None:
    (one,) = chart_of(series("band", low=LOW, high=HIGH))["series"]
    assert (one["y"], one["low"], one["high"]) == (Y.tolist(), LOW.tolist(), HIGH.tolist())


@pytest.mark.parametrize(("style", "colour"), [("points", "#123456"), ("joined", "#123456"), ("bars", "#444444")])
def test_an_interval_of_a_point_is_a_line_from_end_to_end(style: str, colour: str) -> None:
    main, *lines = chart_of(series(style, low=LOW, high=HIGH))["series"]
    assert "low" not in main
    assert [(one["x"], one["y"]) for one in lines] == [
        ([x, x], [low, high]) for x, low, high in zip(X.tolist(), LOW.tolist(), HIGH.tolist(), strict=True)
    ]
    assert {(one["label"], one["style"], one["colour"]) for one in lines} == {("l: interval", "line", colour)}


def test_an_optimum_is_larger() -> None:
    star, other = chart_of(series("points", marker=STAR), series("points"))["series"]
    assert star["size"] == STAR_PIXELS
    assert "size" not in other


@pytest.mark.parametrize("x_log", [True, False])
@pytest.mark.parametrize("y_log", [True, False])
def test_axes_are_those_of_the_panel(x_log: bool, y_log: bool) -> None:
    chart = chart_of(series("line"), x_log=x_log, y_log=y_log)
    assert (chart["x"], chart["y"]) == ({"label": "x", "log": x_log}, {"label": "y", "log": y_log})
    assert (chart["id"], chart["title"], chart["note"]) == ("d-0", "p", "")
    assert "level" not in chart
    assert chart_of(series("line"), level=0.0)["level"] == 0.0


def test_categories_have_names_and_bars_stand_on_zero() -> None:
    chart = chart_of(series("bars"), names=("a", "standard MoE", "c"))
    assert chart["x"] == {"label": "x", "log": False, "names": ["a", "standard\nMoE", "c"]}
    assert chart["y"]["zero"]


@pytest.mark.parametrize(
    ("text", "label", "note"),
    [
        ("compute\n(6 N D)", "compute (6 N D)", ""),
        ("c" * LONGEST_LABEL, "c" * LONGEST_LABEL, ""),
        ("compute\n(" + "6 N D " * 8 + ")", "compute", "Counted as " + "6 N D " * 8 + "."),
        ("compute\n" + "6 N D " * 8, "compute", "6 N D " * 8),
    ],
)
def test_what_does_not_fit_a_label_is_a_note(text: str, label: str, note: str) -> None:
    (chart,) = charts(Drawing("d", "t", "c", (Panel("p", text, "y", (series("line"),)),)))
    assert (chart["x"]["label"], chart["note"]) == (label, note)


def test_charts_of_many_drawings_know_where_they_stand() -> None:
    full, empty = Panel("p", "x", "y", (series("line"),)), Panel("q", "x", "y", ())
    found = charts_in([Drawing("a", "t", "c", (full, empty, full)), Drawing("b", "t", "c", (full,))])
    assert [(one["id"], one["host"]) for one in found] == [("a-0", "host-a"), ("a-2", "host-a"), ("b-0", "host-b")]


@pytest.mark.parametrize(("style", "most"), [*MOST_POINTS.items(), ("joined", None), ("dashed", None)])
def test_long_series_are_thinned_to_their_ends(style: str, most: int | None) -> None:
    for count in (most or 2000, (most or 2000) + 1, 5000):
        x = np.arange(1.0, count + 1)
        (one,) = chart_of(series(style, x, 2 * x))["series"]
        assert len(one["x"]) == min(count, most or count)
        assert (one["x"][0], one["x"][-1]) == (1.0, count)
        assert one["y"] == [2 * value for value in one["x"]]
        steps = np.diff(one["x"])
        assert steps.min() >= 1
        assert np.ptp(steps) <= 1


def test_a_thinned_band_keeps_its_ends_at_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST_POINTS, "band", 2)
    (one,) = chart_of(series("band", low=LOW, high=HIGH))["series"]
    assert (one["x"], one["y"], one["low"], one["high"]) == ([1.0, 4.0], [3.0, 4.0], [2.0, 3.0], [6.0, 4.5])


@pytest.mark.parametrize(("lines", "shown"), [(3, 3), (MOST_FAINT, MOST_FAINT), (MOST_FAINT + 1, 31), (130, 44)])
def test_of_many_runs_of_a_variant_every_second_or_third_is_shown(lines: int, shown: int) -> None:
    many = [series("faint", said=str(place)) for place in range(lines)]
    few = [series("faint", variant="b", said=f"b{place}") for place in range(MOST_FAINT)]
    found = [one["label"] for one in chart_of(*many, *few, series("joined"))["series"]]
    assert found[:shown] == [str(place) for place in range(0, lines, -(-lines // MOST_FAINT))]
    assert found[shown:] == [*(f"b{place}" for place in range(MOST_FAINT)), "l"]


def test_every_variant_has_a_box_in_the_colour_of_its_legend() -> None:
    of = (series("faint", label="", colour="#aaaaaa"), series("line"), series("line", variant="b", colour="#bbbbbb"))
    text = boxes([Drawing("d", "t", "c", (Panel("p", "x", "y", of),))])
    for variant, colour, name in (("low_rank", "#123456", "low rank"), ("b", "#bbbbbb", "b")):
        assert f'data-variant="{variant}"><i data-colour="{colour}"></i>{name}</label>' in text
    assert text.count("<label>") == 2
