"""A table of runs of an older schema names them by the ids that they would get today."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analysis.kept import FOLDER
from structlin.config.identity import run_id, science_from, to_mapping
from structlin.runs.row_config import config_of, ids_of_now


def test_runs_of_an_older_schema_get_the_id_of_their_upgraded_config() -> None:
    """Five runs of mixtures as they were kept under schema 2."""
    table = pd.read_parquet(Path(__file__).parent / "schema2.parquet")
    assert set(table["config.schema"]) == {2}
    found = ids_of_now(table)
    assert found.index.equals(table.index)
    assert found.nunique() == table["run_id"].nunique()
    assert (found != table["run_id"]).all()
    for row in table.drop_duplicates("run_id").to_dict("records")[:3]:
        config = config_of(row)
        assert config["model"]["structured"] == ["blocks.*"]
        assert set(found[table["run_id"] == row["run_id"]]) == {run_id(science_from(config).of_now())}


def test_kept_runs_of_older_numerics_get_the_id_of_today_and_so_does_what_they_start_from() -> None:
    table = pd.read_parquet(FOLDER / "compressed.parquet")
    started = table[table["config.start.parent"].notna() & (table["config.numerics"] == 1)]
    assert len(started)
    row = started.to_dict("records")[0]
    science = science_from(config_of(row))
    found = set(ids_of_now(table)[table["run_id"] == row["run_id"]])
    assert science.start.parent is not None
    parent = replace(science.start.parent, numerics=3)
    assert (
        found == {run_id(replace(science, numerics=3, start=replace(science.start, parent=parent)))} != {row["run_id"]}
    )


def test_a_table_without_configs_keeps_its_names() -> None:
    table = pd.DataFrame({"run_id": ["a", "b"], "step": [1, 2]})
    assert list(ids_of_now(table)) == ["a", "b"]


def test_a_table_of_two_models_gives_back_the_config_of_each() -> None:
    table = pd.read_parquet(FOLDER / "cifar.parquet").groupby("model", observed=True).tail(1)
    assert set(table["model"]) == {"mlp", "vit"}
    for row in table.to_dict("records"):
        science = science_from(config_of(row))
        assert run_id(science) == row["run_id"]
        assert config_of(row) == to_mapping(science)


def test_whole_numbers_beside_none_stay_whole() -> None:
    """A column of pandas that holds both has floats; the id is that of the whole numbers."""
    given = pd.DataFrame(
        {"config.schedule.horizon_steps": [95, None], "config.model.kv_heads": [1, None], "config.optim.lr": [1.0, 2.0]}
    )
    first, second = (config_of(row) for row in given.to_dict("records"))
    assert json.dumps(first) == '{"schedule": {"horizon_steps": 95}, "model": {"kv_heads": 1}, "optim": {"lr": 1.0}}'
    assert second["schedule"]["horizon_steps"] is None
