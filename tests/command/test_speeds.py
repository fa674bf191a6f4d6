"""How fast the models of a store decode is measured once a shape and stands in its table; wrong words are one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structlin.command import speeds
from structlin.command.speeds import main
from structlin.config.placement import Placement
from structlin.errors import UserError
from structlin.models.build import build_model
from structlin.models.decoding import milliseconds
from structlin.models.gpt2 import GPT2
from structlin.runs import table
from structlin.runs.speeds import DECODE_COLUMNS, Decodings
from structlin.training import probe
from tests.tiny import tiny, train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Two seeds of one shape and another shape."""
    runs = tmp_path_factory.mktemp("speeds")
    for science in (tiny(), tiny(seed=1), tiny("low_rank")):
        assert train(science, (4,), runs, data_root)[0] == "done"
    return runs


def test_once_a_shape_and_then_in_the_table(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert table.load(store)[list(DECODE_COLUMNS)].isna().all(axis=None)
    monkeypatch.setattr(speeds, "ROUNDS", 2)
    by_round = [[{1: 3.0, 16: 0.6}, {1: 2.5, 16: 0.25}], [{1: 4.0, 16: 0.5}, {1: 2.0, 16: 0.75}]]
    by_round += [[{1: 7.0, 16: 0.75}, {1: 9.0, 16: 1.0}]] * 2
    times = iter([one for found in by_round for one in found])
    monkeypatch.setattr(speeds, "milliseconds_of", lambda science, placement: next(times))
    words = [f"runs={store}", "device=cpu"]
    assert main(words) == main(words) == 0
    assert capsys.readouterr().out.count("ms a token by texts side by side") == 2
    found = table.load(store)
    by_variant = found.groupby("variant", observed=True)[list(DECODE_COLUMNS)].agg(["min", "max"])
    assert set(map(tuple, by_variant.to_numpy().tolist())) == {(3.0, 3.0, 0.5, 0.5), (2.0, 2.0, 0.25, 0.25)}
    some = table.load_some(store, found["run_id"])
    assert some[list(DECODE_COLUMNS)].to_numpy().tolist() == found[list(DECODE_COLUMNS)].to_numpy().tolist()
    # Another machine has measured nothing.
    assert np.isnan(Decodings(store).of_machine("another", tiny())["decode_ms_1"])
    assert main([*words, "again=true"]) == 0
    assert set(table.load(store)["decode_ms_1"]) == {7.0, 9.0}


def test_training_speeds_are_the_best_of_rounds(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "ROUNDS", 3)
    monkeypatch.setattr(speeds, "milliseconds_of", lambda science, placement: {1: 1.0, 16: 1.0})
    rounds = iter([100.0, 50.0, 300.0, 40.0, 200.0, 60.0])
    monkeypatch.setattr(probe, "tokens_per_second", lambda science, placement: next(rounds))
    assert main([f"runs={store}", "device=cpu", "training=true"]) == 0
    found = table.load(store).groupby("variant", observed=True)["tokens_per_second"].agg(["min", "max"])
    assert set(map(tuple, found.to_numpy().tolist())) == {(300.0, 300.0), (60.0, 60.0)}
    with pytest.raises(UserError, match="training=maybe is unknown"):
        main([f"runs={store}", "training=maybe"])


def test_a_table_without_its_store(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.parquet"
    table.export(table.load(store).drop(columns=list(DECODE_COLUMNS)), path)
    before = pd.read_parquet(path)
    (tmp_path / "kept.json").write_text('{"study": "one"}')
    monkeypatch.setattr(speeds, "milliseconds_of", lambda science, placement: {1: 3.0, 16: 0.5})
    assert main([f"table={path}", "device=cpu"]) == 0
    after = pd.read_parquet(path)
    assert set(after["decode_ms_1"]) == {3.0}
    assert set(after["decode_ms_16"]) == {0.5}
    pd.testing.assert_frame_equal(after[list(before)], before)
    origin = json.loads((tmp_path / "kept.json").read_text())
    assert origin["study"] == "one"
    assert origin["decoded_on"].endswith("1 thread")
    monkeypatch.setattr(speeds, "ROUNDS", 2)
    rounds = iter([100.0, 50.0, 300.0, 40.0])
    monkeypatch.setattr(probe, "tokens_per_second", lambda science, placement: next(rounds))
    assert main([f"table={path}", "device=cpu", "training=true"]) == 0
    assert set(pd.read_parquet(path)["tokens_per_second"]) == {300.0, 50.0}
    assert json.loads((tmp_path / "kept.json").read_text())["trained_at_speeds_of"].endswith("1 thread")


def test_texts_side_by_side_take_less_a_token() -> None:
    """Sixteen rows of one call take far less than sixteen calls."""
    model = build_model(tiny())
    assert isinstance(model, GPT2)
    one, many = milliseconds(model, 1), milliseconds(model, 16)
    assert 0 < many < one
    found = speeds.milliseconds_of(tiny(), Placement(device="cpu"))
    assert set(found) == {1, 16}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs=nowhere"], "no run store at nowhere"),
        (["again=perhaps"], "again=perhaps is unknown"),
        (["threads=0"], "threads=0: write a whole number"),
        (["table=nowhere.parquet"], "table=nowhere.parquet is no .parquet file"),
        (["table=README.md"], "table=README.md is no .parquet file"),
        (["colour=red"], "'colour=red' is unknown"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(words)


def test_a_store_without_texts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no run of a GPT-2"):
        main([f"runs={tmp_path}"])
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="holds no configs of runs"):
        main([f"table={tmp_path / 't.parquet'}"])
