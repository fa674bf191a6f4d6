"""The report on paper: pages of one size with numbers, every figure once, an answer a study, columns that align."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import make, paper, report
from analysis.paper import Study, aligned
from structlin.drawing.drawing import Drawing, Panel, Series
from structlin.drawing.paint import LINES_A_PAGE, MARGIN, PAPER_INCHES, printed, text_pages
from structlin.drawing.room import room_of
from structlin.laws.choices import Choices
from structlin.laws.report.console import number
from tests.analysis import tables
from tests.analysis.test_kept import put


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Drawing], list[Study]]:
    folder = tmp_path_factory.mktemp("paper")
    put(folder, "regression", tables.runs({"dense": 1.0, "btt": 1.5}, task="regression"), [])
    maker = make.Maker(Choices(bootstrap=20), folder=folder)
    return report.drawings(maker), report.studies(maker)


def test_all_pages_have_one_size_and_the_same_runs_give_the_same_bytes(found, tmp_path: Path) -> None:
    figures, studies = found
    pdf = paper.pdf("Report", figures[:3], studies)
    sizes = set(re.findall(rb"/MediaBox \[([^\]]*)\]", pdf))
    assert len(sizes) == 1
    _, _, across, up = (float(number) for number in sizes.pop().split())
    assert (across / 72, up / 72) == pytest.approx(PAPER_INCHES, abs=0.01)
    assert pdf == paper.pdf("Report", figures[:3], studies)


def test_the_cover_says_who_needs_less_and_where_figures_stand(found) -> None:
    figures, studies = found
    assert list(studies[0].answers) == ["less compute than dense"]
    lines = paper.cover(studies, {one.title: place for place, one in enumerate(figures, 2)})
    mean = number(studies[0].found["multipliers"]["btt"]["mean"])
    assert any(line.startswith(f"  less compute than dense: btt {mean} [") for line in lines)
    assert [line.split("  ")[-1] for line in lines if re.match(r"  +\d+  ", line)] == [one.title for one in figures]


def test_a_study_says_its_numbers_warnings_and_origin(found) -> None:
    study = found[1][0]
    lines = paper.study_lines(study)
    mean = study.found["multipliers"]["btt"]["mean"]
    assert any(line.split()[:2] == ["btt", number(mean)] for line in lines)
    assert study.found["verdict"]["btt"] in "\n".join(lines)
    assert f"# Warnings ({len(study.found['warnings'])})" in lines
    assert lines[lines.index("# Provenance") + 1].startswith("  ")


def test_an_answer_has_three_sides() -> None:
    ends = {"a": (1.1, 2.0), "b": (0.5, 0.9), "c": (0.8, 1.2), "d": None}
    known = {
        name: {"mean": 1.0, "interval": {"mean": None if end is None else dict(zip(("low", "high"), end, strict=True))}}
        for name, end in ends.items()
    }
    record = {"multipliers": known, "choices": {"baseline_used": "dense"}, "data": dict.fromkeys([*ends, "dense"])}
    told = Study("x", pd.DataFrame(), record, {}).answers
    assert {side: [name.split()[0] for name in names] for side, names in told.items()} == {
        "less compute than dense": ["a"], "more than dense": ["b"], "not told from dense": ["c", "d"]
    }  # fmt: skip


def test_columns_stand_below_each_other() -> None:
    lines = aligned([["", "mean", "runs"], ["btt", "1.5", "9"], ["low rank", "0.25", "12"]])
    assert len({line.rindex(" ") if place else 0 for place, line in enumerate(lines[1:])}) <= 2
    assert [len(line) for line in lines] == [len(lines[0])] * 3


def drawing(name: str) -> Drawing:
    series = Series("a", "a", np.arange(1.0, 4.0), np.arange(1.0, 4.0), "points", "#000000")
    return Drawing(name, name, "caption " * 40, (Panel("p", "x", "y", (series,)),))


def test_drawings_share_a_page_where_they_fit_and_none_overlap() -> None:
    every = [drawing(f"d{place}") for place in range(7)]
    pages = list(printed(every))
    assert [one.name for _, held in pages for one in held] == [one.name for one in every]
    height = room_of(every[0], captioned=True).height
    assert max(len(held) for _, held in pages) == int((PAPER_INCHES[1] - 2 * MARGIN) // height)
    for figure, held in pages:
        boxes = sorted((axes.get_position() for axes in figure.axes), key=lambda box: -box.y1)
        assert len(boxes) == len(held)
        assert all(upper.y0 > lower.y1 for upper, lower in itertools.pairwise(boxes))
        assert tuple(figure.get_size_inches()) == PAPER_INCHES


def test_pages_of_text_lose_no_line_and_leave_no_heading_alone() -> None:
    lines = [line for part in range(30) for line in (f"# part {part}", *(f"  line {part}.{k}" for k in range(7)), "")]
    pages = list(text_pages("Title", lines))
    shown = [[text.get_text() for text in page.texts[1:]] for page in pages]
    assert [line for page in shown for line in page if line] == [line.removeprefix("# ") for line in lines if line]
    assert all(len(page) <= LINES_A_PAGE and not page[-1].startswith("part") for page in shown)
    assert pages[1].texts[0].get_text() == "Title, continued"
