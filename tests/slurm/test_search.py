"""A search on a real cluster: by one call that stays, or by the same call for each rung, it ends in the same choice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.slurm.conftest import DevCluster
from tests.slurm.sweeps import Sweep, results, trained_twice

pytestmark = pytest.mark.slurm

WORDS = ("grid=search", "target=1e9", "budget=6e7", "search.rungs=2", "grid.points=1", "name=tiny")
ARMS = ("structure=low_rank", "structure.rank=d/2,d/4")
# One element for each rung: starting Python is nearly all that these runs cost.
ONE_ELEMENT = ("launch.min_minutes=5", "checkpoint_seconds=60")


def record(runs: Path) -> dict:
    return json.loads((runs / "searches" / "tiny.json").read_text())


def test_a_search_by_one_call_that_stays_and_by_repeated_calls(
    cluster: DevCluster, tmp_path: Path, data_root: Path
) -> None:
    words = (*WORDS, *ARMS, *ONE_ELEMENT)
    # Typed elsewhere than in the tree: forecasts are written where the command is typed.
    stays, again = (Sweep(cluster, tmp_path / name, data_root, words, tmp_path) for name in ("stays", "again"))
    printed = stays.type("search.wait=true")
    assert "best at 1e+09 FLOPs" in printed
    calls = 0
    while "best at 1e+09 FLOPs" not in (printed := again.type()):
        assert "the same command submits the next rung" in printed
        again.wait()
        calls += 1
    assert calls == len(record(again.runs)["rungs"]) == 2
    assert results(stays.runs) == results(again.runs)
    assert record(stays.runs)["winner"] == record(again.runs)["winner"]
    assert trained_twice(stays.runs) == trained_twice(again.runs) == []
    before = results(again.runs)
    again.type()
    assert results(again.runs) == before
    assert again.names() == []
    # The same losses, and so the same forecast: the second search found it kept.
    assert [path.name for path in (tmp_path / "forecasts").iterdir()] == ["tiny.json"]
