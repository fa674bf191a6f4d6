"""What a search foretells is kept once, in the form of all forecasts, and scored by later runs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.laws import forecasts
from structlin.laws.library import fit
from structlin.search.course import Course, course
from structlin.search.forecast import keep
from structlin.search.report import record
from tests.search.store import Planted, law, request

NAME = "planted"


@pytest.fixture(scope="module")
def found(whole: tuple[Course, Planted]) -> dict:
    return record(whole[0])


def later(found: dict, flops: float) -> pd.DataFrame:
    """Runs of the last arms to a compute, of sizes about the best one."""
    rows = []
    for variant in {one["variant"] for one in found["forecast"]["predictions"]}:
        for size in np.geomspace(0.05, 20, 9) * np.sqrt(flops / 180):
            tokens = flops / 6 / size * np.geomspace(0.02, 1, 8)
            rows += [(variant, size, d, 6 * size * d, law(variant, size, d), f"{variant}/{size:.3g}") for d in tokens]
    return pd.DataFrame(rows, columns=["variant", "N", "D", "C", "L", "run"])


def test_it_is_kept_in_the_form_of_all_forecasts_and_only_once(found: dict, tmp_path: Path) -> None:
    path = keep(found, NAME, tmp_path)
    assert path == tmp_path / "planted.json"
    kept = forecasts.read(path)
    assert set(kept) == {"name", "date", "code", "data", "confidence", "law", "predictions"}
    target = found["target"]
    assert {one["flops"] for one in kept["predictions"]} == {target, 10 * target}
    top = {
        arm["variant"] for arm in found["arms"] if arm["name"] in {one["name"] for one in found["rungs"][-1]["arms"]}
    }
    assert {one["variant"] for one in kept["predictions"]} == top
    before = path.read_bytes()
    assert keep(found, NAME, tmp_path) == path
    assert path.read_bytes() == before


def test_a_search_that_went_on_leaves_another_and_the_first_one_stands(found: dict, tmp_path: Path) -> None:
    first = keep(found, NAME, tmp_path)
    before = first.read_bytes()
    more = json.loads(json.dumps(found))
    more["forecast"]["data"]["hash"] = "0" * 16
    assert keep(more, NAME, tmp_path) == tmp_path / "planted-2.json"
    assert keep(more, NAME, tmp_path) == tmp_path / "planted-2.json"
    assert first.read_bytes() == before


def test_later_runs_score_it_and_its_own_are_not_far_enough(found: dict, tmp_path: Path) -> None:
    path = keep(found, NAME, tmp_path)
    at_target = forecasts.score(fit(later(found, 1.01 * found["target"]), bootstrap=20), path)
    arms = len(found["forecast"]["arms"])
    assert (len(at_target["scores"]), len(at_target["waiting"])) == (arms, arms)
    score = forecasts.score(fit(later(found, 10.1 * found["target"]), bootstrap=20), path)
    assert (len(score["scores"]), score["waiting"]) == (2 * arms, [])
    # Foretold 300 times beyond the runs of the search, each with luck of 1%.
    assert all(one["inside"] and abs(one["error"]) < 0.12 for one in score["scores"])
    assert score["record"]["predictions"] == 2 * arms


def test_intervals_are_wider_further_out(found: dict) -> None:
    widths: dict[str, list[float]] = {}
    for one in found["forecast"]["predictions"]:
        ends = one["interval"]["loss"]
        assert ends["low"] < one["loss"] < ends["high"]
        widths.setdefault(one["variant"], []).append(np.log(ends["high"] / ends["low"]))
    assert all(near < far for near, far in widths.values())


def test_a_search_underway_has_none(tmp_path: Path) -> None:
    found = record(course(request(), Planted().read))
    assert found["forecast"] is None
    assert keep(found, NAME, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_left_as_it_is(found: dict, tmp_path: Path) -> None:
    (tmp_path / "planted.json").write_text("{")
    assert keep(found, NAME, tmp_path) == tmp_path / "planted-2.json"
    with pytest.raises(UserError, match="is no forecast"):
        forecasts.read(tmp_path / "planted.json")
