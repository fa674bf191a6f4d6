"""Runs kept in the repository: what is written, again and again, and what figures then say is missing."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from analysis import keep, kept, make, missing, published, report
from analysis.catalogue import FIGURES
from analysis.figures import search
from structlin.config.compose import CONFIG_DIR
from structlin.config.identity import run_id
from structlin.config.science import EvaluationConfig, StartConfig
from structlin.config.study import studies
from structlin.data import DataRecipe, prepare
from structlin.drawing.charts import page
from structlin.drawing.room import room_of
from structlin.errors import UserError
from structlin.laws.choices import Choices
from structlin.planning.grid import Cell
from structlin.runs.job import Job
from structlin.runs.row_config import config_of
from structlin.runs.store import Store
from structlin.runs.table import load
from structlin.training.entry import execute
from tests.analysis import tables
from tests.golden.tables import id_by_text
from tests.tiny import PLACEMENT, tiny


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Cell, ...]]:
    """Four runs of which three belong to a study of four cells."""
    root = tmp_path_factory.mktemp("kept")
    sciences = [tiny(name, seed=seed) for name in ("dense", "btt") for seed in (0, 1)]
    prepare(sciences[0].data, root / "data")
    for science in [*sciences[:3], tiny("low_rank")]:
        job = Job(science, (6, 9, 12))
        assert execute(job, Store(root / "runs"), root / "data", PLACEMENT) == "done"
    return root / "runs", tuple(Cell(science, 12, None) for science in sciences)


@pytest.fixture
def study(store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of those four cells under the name of figure 4."""
    monkeypatch.setattr(missing, "cells", lambda study, size: store[1])
    return store[0]


def test_a_study_is_kept_with_its_provenance(study: Path, tmp_path: Path) -> None:
    found = kept.keep("fig4", "small", study, tmp_path)
    again = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept.keep("fig4", "small", study, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == again
    assert set(again) == {"fig4.parquet", "fig4.json"}
    table = load(study)
    table = table[table["structure"] != "low_rank"].reset_index(drop=True)
    loaded = kept.load("fig4", tmp_path)
    assert loaded is not None
    assert loaded.origin == found.origin
    # Floats as they are, bit by bit.
    for name in ("val_loss", "training_flops", "nu"):
        assert loaded.runs[name].tolist() == table[name].tolist()
    assert set(kept.COLUMNS) <= set(loaded.runs)
    assert (found.origin["runs"], found.origin["evaluations"]) == (3, 9)
    assert found.origin["command"] == "python sweep.py study=fig4 study.size=small"
    assert found.origin["missing"] == ["btt at width 16, seed 1, step 12"]
    assert found.origin["torch"]
    assert "host" not in found.origin


def test_a_key_that_only_other_runs_of_the_store_have_is_not_kept(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several tasks in one store: a key that a run lacks would be null in its config, and its id another."""
    whole = load(study).assign(**{"config.data.more": None})
    # As beside a run of data without validation_every.
    whole["config.data.validation_every"] = whole["config.data.validation_every"].astype(float)
    monkeypatch.setattr(kept.store, "load", lambda runs: whole)
    found = kept.keep("fig4", "small", study, tmp_path).runs
    assert "config.data.more" not in found
    for row in found.drop_duplicates("run_id").to_dict("records"):
        assert id_by_text(config_of(row)) == row["run_id"]


def test_what_a_run_starts_from_is_kept_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = tiny("dense"), tiny("btt")
    child = replace(child, start=StartConfig(replace(parent, start=StartConfig(tiny("low_rank"), 3)), 6))
    monkeypatch.setattr(missing, "cells", lambda study, size: (Cell(child, 12, None),))
    wanted = {run_id(child): 12, run_id(child.start.parent): 6, run_id(tiny("low_rank")): 3}
    assert missing.last_steps("fig4", "small") == wanted


def test_what_another_study_went_on_with_is_not_kept(
    store: tuple[Path, tuple[Cell, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing, "cells", lambda study, size: tuple(replace(cell, step=9) for cell in store[1]))
    found = kept.keep("fig4", "small", store[0], tmp_path)
    assert found.runs.groupby("run_id")["step"].apply(list).tolist() == [[6, 9]] * 3
    assert found.origin["missing"] == ["btt at width 16, seed 1, step 9"]


def test_laws_of_kept_runs_are_those_of_the_store(study: Path, tmp_path: Path) -> None:
    found = kept.keep("fig4", "small", study, tmp_path).runs
    whole = load(study)
    whole = whole[whole["structure"] != "low_rank"].reset_index(drop=True)
    lacking = set(whole) - set(found)
    assert lacking <= {"macs_linear", "macs_router", "params_linear", "params_norm", "params_router", "device",
                       "device_name", "threads", "backend", "torch_version", "world_size", "logged_macs_per_token",
                       "mixed_code", "recomputed_flops"}  # fmt: skip
    pd.testing.assert_frame_equal(found, whole[list(found)], check_categorical=False)


def test_a_study_trained_in_parts_is_kept_as_if_one_store_had_it(study: Path, tmp_path: Path) -> None:
    """A part is a kept table; what the store has counts before what a part has."""
    kept.keep("fig4", "small", study, tmp_path / "whole")
    runs = sorted(set(kept.load("fig4", tmp_path / "whole").runs["run_id"]))  # type: ignore[union-attr]
    for name, own in (("one", runs[:1]), ("two", runs[1:])):
        for identity in own:
            shutil.copytree(study / identity, tmp_path / name / identity)
        kept.keep("fig4", "small", tmp_path / name, tmp_path / f"{name}-kept")
    part = tmp_path / "one-kept" / "fig4.parquet"
    whole, asked = kept.load("fig4", tmp_path / "whole"), ["study=fig4", f"beside={part}"]
    assert whole is not None
    for number, store in enumerate((tmp_path / "two", study, tmp_path / "none")):
        out = tmp_path / f"out-{number}"
        beside = f",{tmp_path / 'two-kept' / 'fig4.parquet'}" * (number == 2)
        assert keep.main([*asked[:1], asked[1] + beside, f"runs={store}", f"out={out}"]) == 0
        found = kept.load("fig4", out)
        assert found is not None
        pd.testing.assert_frame_equal(found.runs, whole.runs)
        assert found.origin == whole.origin


def test_a_part_that_is_no_kept_table_is_named(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"beside=.*none.parquet is no kept table with its provenance"):
        kept.keep("fig4", "small", study, tmp_path, [tmp_path / "none.parquet"])
    found = kept.keep("fig4", "small", study, tmp_path)
    for name, table, origin in (
        ("short", found.runs.drop(columns=["step", "run_id"]), "{}"),
        ("empty", found.runs[:0], "{}"),
        ("without", found.runs, "[]"),
    ):
        table.to_parquet(tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.json").write_text(origin)
        with pytest.raises(UserError, match=rf"beside=.*{name}.parquet is no kept table with its provenance"):
            kept.keep("fig4", "small", study, tmp_path, [tmp_path / f"{name}.parquet"])


def test_a_run_of_a_part_with_an_older_id_is_no_other_run(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that was kept before a schema rose has ids of then; trained anew, its runs have those of now."""
    whole = kept.keep("fig4", "small", study, tmp_path / "whole").runs
    then = tmp_path / "then" / "fig4.parquet"
    kept.keep("fig4", "small", study, then.parent)
    old = {identity: f"old-{identity}" for identity in whole["run_id"].unique()}
    table = pd.read_parquet(then)
    table.assign(run_id=table["run_id"].astype(str).map(old)).to_parquet(then)
    now = kept.ids_of_now
    new = {older: identity for identity, older in old.items()}
    monkeypatch.setattr(kept, "ids_of_now", lambda some: now(some.assign(run_id=some["run_id"].replace(new))))
    found = kept.keep("fig4", "small", study, tmp_path / "out", [then])
    assert set(found.runs["run_id"]) == set(whole["run_id"])


def test_nothing_to_keep_is_an_error(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "cells", lambda study, size: (Cell(tiny("btt", seed=9), 12, None),))
    with pytest.raises(UserError, match=r"holds no run of study=fig4 study.size=small; train it: python sweep.py"):
        kept.keep("fig4", "small", study, tmp_path)
    with pytest.raises(UserError, match="study=fig5 is unknown"):
        keep.main(["study=fig5"])
    with pytest.raises(UserError, match="'size=small' is unknown"):
        keep.main(["size=small"])


def recorded(runs: Path, cells: tuple[Cell, ...], **changes: object) -> dict:
    """A search of the first two runs of a store, as it would record itself."""
    interval = {"loss": {"low": 1.0, "high": 2.0}}
    record = {
        "command": "python sweep.py grid=search name=mine runs=/somewhere", "over": True, "confidence": 0.9,
        "forecast": {"law": "pooled", "data": {"hash": "0" * 16},
                     "predictions": [{"variant": "btt", "flops": 1e9, "loss": 1.5, "interval": interval}]},
        **changes,
    }  # fmt: skip
    manifest = {"cells": [{"run_id": run_id(cell.science), "step": cell.step} for cell in cells[:2]]}
    for folder, content in (("searches", record), ("sweeps", manifest)):
        (runs / folder).mkdir(exist_ok=True)
        (runs / folder / "mine.json").write_text(json.dumps(content))
    return record


def test_a_search_is_kept_with_its_record_and_its_forecast(store, tmp_path: Path) -> None:
    runs, cells = store
    record = recorded(runs, cells)
    assert keep.main(["search=mine", f"runs={runs}", f"out={tmp_path}"]) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert set(first) == {"search.parquet", "search.json", "mine.json"}
    assert keep.main(["search=mine", f"runs={runs}", f"out={tmp_path}"]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.*")} == first
    found = kept.load(kept.SEARCH, tmp_path)
    assert found is not None
    assert set(found.runs["run_id"]) == {run_id(cell.science) for cell in cells[:2]}
    assert found.origin["search"] == record | {"command": "python sweep.py grid=search name=mine"}
    assert found.missing == ((), "")
    forecast = json.loads((tmp_path / "forecasts" / "mine.json").read_text())
    assert forecast["predictions"] == record["forecast"]["predictions"]


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, ["search=other"], "holds no such search"),
        ({"over": False}, ["search=mine"], "is not over; type its command again"),
        ({"forecast": {"flops": 1e9, "arms": {}}}, ["search=mine"], "was recorded by an older version"),
        ({}, ["search=mine", "study=fig4"], "name two things to keep"),
        ({"command": None}, ["search=mine"], "holds no such search"),
    ],
)
def test_a_search_that_cannot_be_kept_is_said(
    store, tmp_path: Path, changes: dict, words: list[str], message: str
) -> None:
    record = recorded(*store, **changes)
    if record["command"] is None:
        (store[0] / "searches" / "mine.json").write_text(json.dumps({"over": True, "forecast": None}))
    with pytest.raises(UserError, match=message):
        keep.main([*words, f"runs={store[0]}", f"out={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_runs_that_a_search_has_lost_are_said(store, tmp_path: Path) -> None:
    runs, cells = store
    recorded(runs, cells)
    path = runs / "sweeps" / "mine.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({"cells": [*manifest["cells"], {"run_id": "0123456789abcdef", "step": 1}]}))
    found = kept.keep_search("mine", runs, tmp_path)
    assert found.missing[0] == ("1 of the 3 runs of the search have no evaluation",)
    path.write_text(json.dumps({"cells": [{"run_id": "0123456789abcdef", "step": 1}]}))
    with pytest.raises(UserError, match="holds none of its 1 runs"):
        kept.keep_search("mine", runs, tmp_path)


def test_the_figure_of_a_kept_search_is_drawn_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {
        "target": 1e10, "confidence": 0.9, "spent": 1e8, "everything": 1e9, "winner": None, "arms": [], "rungs": []
    }  # fmt: skip
    (tmp_path / "search.json").write_text(json.dumps({"search": record}))
    monkeypatch.setattr(search, "KEPT", tmp_path / "search.json")
    assert "Predicted loss at 1e+10 training FLOPs" in search.draw(pd.DataFrame()).caption


def put(folder: Path, name: str, runs: pd.DataFrame, lacking: list[str]) -> None:
    """Kept runs as keep would write them."""
    runs.to_parquet(folder / f"{name}.parquet")
    origin = {"study": name, "size": "small", "command": missing.command(name, "small"),
              "lines": missing.command_lines(name, "small"), "missing": lacking}  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(origin))


CHOICES = Choices(bootstrap=20)


def test_a_figure_says_what_its_study_lacks(tmp_path: Path) -> None:
    runs = tables.runs({"dense": 1.0, "btt": 1.5})
    put(tmp_path, "fig6", runs, ["moe-btt8 at width 64, seed 0, step 10"])
    maker = make.Maker(CHOICES, folder=tmp_path)
    drawing = maker.drawing("fig6")
    assert drawing is not None
    assert drawing.missing == ("moe-btt8 at width 64, seed 0, step 10",)
    assert drawing.command == "python sweep.py study=fig6 study.size=small"
    assert maker.drawing("fig4") is None
    put(tmp_path, "regression", tables.runs({"dense": 1.0, "btt": 1.5}, task="regression"), [])
    other = make.Maker(CHOICES, folder=tmp_path).drawing("fig1")
    assert other is not None
    assert other.missing == ("no runs of study=fig4 are kept; drawn from those of study=regression",)
    assert other.command == "python sweep.py study=fig4 study.size=small"
    complete = make.Maker(CHOICES, folder=tmp_path).drawing("fig5-regression")
    assert complete is not None
    assert (complete.missing, complete.command) == ((), "")


def test_a_changed_study_is_planned_anew(study: Path, tmp_path: Path) -> None:
    found = kept.keep("fig4", "small", study, tmp_path)
    changed = replace(found, origin=found.origin | {"lines": ["scale=small"], "missing": []})
    assert changed.missing == (("btt at width 16, seed 1, step 12",), "python sweep.py study=fig4 study.size=small")


def test_runs_trained_otherwise_are_marked(study: Path, tmp_path: Path) -> None:
    """As what is missing, in the picture and on its page, with the sweep that trains them anew."""
    runs = tables.runs({"dense": 1.0, "btt": 1.5})
    put(tmp_path, "fig4", runs, [])
    before = make.Maker(CHOICES, folder=tmp_path).drawing("fig4")
    origin = json.loads((tmp_path / "fig4.json").read_text()) | {"trained_otherwise": "no RMS cap"}
    (tmp_path / "fig4.json").write_text(json.dumps(origin))
    after = make.Maker(CHOICES, folder=tmp_path).drawing("fig4")
    assert before is not None
    assert after is not None
    assert after.caption == before.caption
    assert "no RMS cap" in room_of(after).note
    assert "no RMS cap" in page(after)
    assert (before.missing, after.missing) == ((), ("trained with other settings: no RMS cap",))
    assert after.command == "python sweep.py study=fig4 study.size=small"
    assert kept.keep("fig4", "small", study, tmp_path).origin["trained_otherwise"] == ""


@pytest.mark.parametrize(
    ("variants", "name", "found"),
    [
        (["dense", "btt"], "btt", "btt"),
        (["btt@nddn+fixed-norm", "btt+fixed-norm"], "btt", "btt+fixed-norm"),
        (["btt@nddn/paper+fixed-norm+first-order", "btt/paper+fixed-norm+first-order"], "btt",
         "btt/paper+fixed-norm+first-order"),
        (["dense/paper", "btt/paper"], "dense", "dense/paper"),
        (["btt+naive", "btt"], "btt", "btt"),
    ],
)  # fmt: skip
def test_the_baseline_is_found_under_the_options_that_all_have(variants: list[str], name: str, found: str) -> None:
    figure = FIGURES["fig10"] if name == "btt" else FIGURES["fig4"]
    assert make.Maker(CHOICES).baseline(figure, pd.DataFrame({"variant": variants})) == found


def test_figures_of_own_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tables.runs(tables.TAXONOMY)
    runs.to_parquet(tmp_path / "t.parquet")
    arguments = [f"table={tmp_path / 't.parquet'}", "source=table", "bootstrap=20"]
    assert make.main(["figure=fig10", f"out={tmp_path / 'out'}", *arguments]) == 0
    said = capsys.readouterr().out
    assert "incomplete" in said
    assert "none of these runs belong to study=fig10" in said
    assert (tmp_path / "out" / "fig10.pdf").exists()
    with pytest.raises(UserError, match="figure=fig3 is unknown"):
        make.main(["figure=fig3"])
    runs.drop(columns=["theta"]).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="this one lacks theta"):
        make.main(["figure=fig4", *arguments])


def test_a_figure_that_cannot_be_drawn_of_own_runs_is_one_line_and_the_next_one_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables.runs(tables.TAXONOMY).to_parquet(tmp_path / "t.parquet")
    arguments = [f"table={tmp_path / 't.parquet'}", "source=table", "bootstrap=20", f"out={tmp_path / 'out'}"]
    assert make.main(["figure=cifar,weight-norm,fig10", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["cifar", "weight-norm"]
    assert all("none is known as one of study=" in line for line in said)
    assert (tmp_path / "out" / "fig10.png").exists()


def test_figures_without_runs_need_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make.main(["figure=fig2,feature-updates", f"out={tmp_path}"]) == 0
    assert capsys.readouterr().out.count("complete") == 2
    assert {path.stem for path in tmp_path.iterdir()} == {"fig2", "feature-updates"}


def test_the_report_gathers_figures_laws_and_provenance(tmp_path: Path) -> None:
    put(tmp_path, "regression", tables.runs({"dense": 1.0, "btt": 1.5}, task="regression"), [])
    put(tmp_path, "learning_rates", tables.landscape(), [])
    maker = make.Maker(CHOICES, folder=tmp_path)
    figures, found = report.drawings(maker), report.studies(maker)
    assert {drawing.name for drawing in figures} == {
        "fig1", "fig2", "fig5-regression", "feature-updates", "learning-rates", "resources", "exponents"
    }  # fmt: skip
    assert [study.name for study in found] == ["regression", "learning_rates"]
    assert found[1].found is None
    text = report.html(figures, found)
    for word in ("study=regression", "Sensitivity of the multipliers", "Provenance", "warnings", "17% less compute"):
        assert word in text
    assert text.count("<h2>") > len(figures)
    assert "<li><b>study=regression</b>" in text


def test_published_values_have_a_source_and_change_with_the_convention() -> None:
    rows = published.load()
    assert rows
    assert all(row.source.startswith("arXiv ") and row.figure in FIGURES for row in rows)
    compute = published.Published("fig4", "dense", "compute", 1e17, "paper", "arXiv 2410.02117", "")
    assert (compute.under("training"), compute.under("paper")) == (6e17, 1e17)
    assert rows[0].under("training") == rows[0].under("paper") == rows[0].value


def test_every_study_of_a_figure_exists() -> None:
    known = studies(CONFIG_DIR / "study")
    for figure in FIGURES.values():
        assert {figure.study, *figure.others} - {"", kept.SEARCH} <= set(known)


def test_a_study_is_fitted_for_its_report_where_any_of_its_figures_needs_laws() -> None:
    found = report.fitted()
    for figure in FIGURES.values():
        if figure.study and figure.laws:
            assert found[figure.study].laws, figure.study


# --- the studies ------------------------------------------------------------------------------------------------------

SMALL = {"fig4": 234, "fig7": 49, "fig10": 45, "fig10_learned": 45, "bpe": 48, "learning_rates": 630}


@pytest.mark.parametrize("name", SMALL)
def test_each_kind_of_cell_trains_two_steps(name: str, tmp_path: Path) -> None:
    """At a width below that of the fused kernels, of which every kind would have three of its own to build."""
    cells = missing.cells(name, "small")
    assert len(cells) == SMALL[name]
    kinds = {(cell.science.variant, cell.science.optim.rate_rule): cell.science for cell in cells}
    first = next(iter(kinds.values()))
    small = DataRecipe("sotu") if first.task == "language" else replace(first.data, width=8, depth=1)
    prepare(small, tmp_path / "data")
    for science in kinds.values():
        context = min(16, science.model.context)
        model = replace(science.model, d_model=32, num_layers=1, **({"context": 16} if context == 16 else {}))
        own = replace(
            science, model=model, data=small, optim=replace(science.optim, batch_tokens=2 * context),
            evaluation=EvaluationConfig(2 * context),
        )  # fmt: skip
        own = own.scheduled("constant", None)
        assert execute(Job(own, (1, 2)), Store(tmp_path / "runs"), tmp_path / "data", PLACEMENT) == "done"


def test_the_studies_are_what_figures_need() -> None:
    thetas = {cell.science.structure.theta for cell in missing.cells("fig4", "small")}
    widths = {cell.science.model.d_model for cell in missing.cells("fig4", "small")}
    assert len(thetas) >= 9
    assert len(widths) >= 4
    rates = missing.cells("learning_rates", "small")
    assert {cell.science.model.d_model for cell in rates} == {64, 128, 256, 512, 1024}
    by_rule: dict[tuple[str, str], set] = {}
    for cell in rates:
        science = cell.science
        at = (science.model.d_model, science.optim.lr, science.seed)
        by_rule.setdefault((science.structure.name, science.optim.rate_rule), set()).add(at)
    # A dense layer is the same under both rules, and is trained once.
    structured = {(structure, rule) for structure in ("btt", "low_rank") for rule in ("structure", "naive")}
    assert set(by_rule) == {("dense", "structure"), *structured}
    for found in by_rule.values():
        lrs = sorted({lr for _, lr, _ in found})
        assert len(found) == 5 * 3 * len(lrs)
        assert len(lrs) >= 7
        assert all(high / low == pytest.approx(2**0.5, rel=0.02) for low, high in pairwise(lrs))
    assert len({run_id(cell.science) for cell in rates}) == len(rates)
    layouts = {cell.science.structure.head_layout for cell in missing.cells("fig10", "small")}
    assert layouts == {"none", "nddn", "dndn", "ndnd", "dnnd"}
    bpe = missing.cells("bpe", "small")
    assert {cell.science.data.tokenizer for cell in bpe} == {"vocab2048-c7523da7"}
    assert {(cell.science.schedule.kind, cell.science.schedule.final) for cell in bpe} == {("cosine", 0.1)}
