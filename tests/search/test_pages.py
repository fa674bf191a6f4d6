"""The page of a search names every arm and tells apart those that went furthest."""

import json

import pytest

from structlin.search import pages
from structlin.search.course import Course
from structlin.search.report import record
from tests.search.store import Planted


@pytest.fixture(scope="module")
def found(whole: tuple[Course, Planted]) -> dict:
    return json.loads(json.dumps(record(whole[0])))


def test_those_that_went_furthest_have_a_colour_each_and_the_others_share_one(found: dict) -> None:
    drawing = pages.drawing(found)
    looks = {one.variant: (one.colour, one.marker) for panel in drawing.panels[:2] for one in panel.series}
    told = {name: look for name, look in looks.items() if name != pages.OTHERS}
    assert {one["name"] for one in found["rungs"][-1]["arms"]} <= set(told)
    assert len(told) <= pages.MOST_TOLD + len(pages.ALWAYS)
    assert len(set(told.values())) == len(told)
    grey = {one.said for panel in drawing.panels for one in panel.series if one.variant == pages.OTHERS}
    assert grey | set(told) >= {one["name"] for rung in found["rungs"] for one in rung["arms"]}
    for panel in drawing.panels:
        labels = [one.label for one in panel.series if one.label]
        assert len(labels) == len(set(labels))


def test_the_page_has_every_arm_with_its_theta_and_what_was_found(found: dict) -> None:
    text = pages.page(found)
    for arm in found["arms"]:
        assert arm["name"] in text
        assert arm["theta"] in text
    assert "forecast at 3e+14 FLOPs, to be scored by later runs" in text


def test_a_search_without_a_decided_rung_has_a_page(found: dict) -> None:
    undecided = found | {"rungs": [], "winner": None, "forecast": None}
    assert "No rung is decided yet" in pages.page(undecided)
