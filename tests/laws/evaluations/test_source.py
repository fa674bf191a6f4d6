"""Foreign tables: names, units, conditions; and bad ones answered with one line naming row and column."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.laws import choices as keys
from structlin.laws import run
from structlin.laws.choices import Choices
from structlin.laws.evaluations import source
from structlin.laws.evaluations.where import select
from tests.laws.tables import laws_of, names, own, two


def _grid(rows: int = 30) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    size, tokens = np.exp(generator.uniform(15, 20, rows)), np.exp(generator.uniform(20, 25, rows))
    return pd.DataFrame({"N": size, "D": tokens, "L": 1.8 + 400 / size**0.35 + 2000 / tokens**0.37})


def _points(table: pd.DataFrame, **options: object) -> pd.DataFrame:
    chosen = Choices(source="table", table="t.csv", **options)  # type: ignore[arg-type]
    return source.from_table(table, chosen)[0]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_file_kinds(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{ending}"
    writers = {
        "csv": lambda t: t.to_csv(path, index=False),
        "tsv": lambda t: t.to_csv(path, index=False, sep="\t"),
        "parquet": lambda t: t.to_parquet(path),
        "jsonl": lambda t: t.to_json(path, orient="records", lines=True, double_precision=15),
    }
    writers[ending](_grid())
    assert np.allclose(source.read_file(path)["L"], _grid()["L"], rtol=1e-12)


def test_names_units_and_default_flops() -> None:
    table = _grid().rename(columns={"N": "model, M", "D": "seen", "L": "bits"})
    table["model, M"] /= 1e6
    table["seen"] /= 1e9
    table["bits"] /= np.log(2)
    frame = _points(
        table,
        columns={"params": "model, M", "tokens": "seen", "loss": "bits"},
        units={"params": "M", "tokens": "1e9", "loss": "bits"},
    )
    assert np.allclose(frame["N"], _grid()["N"])
    assert np.allclose(frame["L"], _grid()["L"])
    assert np.allclose(frame["C"], 6 * _grid()["N"] * _grid()["D"])


def test_tokens_follow_from_flops() -> None:
    table = _grid().assign(C=lambda t: 6 * t["N"] * t["D"]).drop(columns="D")
    assert np.allclose(_points(table)["D"], _grid()["D"])


def test_flops_and_loss_alone_give_a_frontier() -> None:
    table = two().rename(columns={"flops": "C", "loss": "L"})[["C", "L"]]
    laws = laws_of(table, bootstrap=50)
    assert list(laws.frontiers) == ["all"]
    assert not laws.parametrics


def test_variant_is_structure_and_moe() -> None:
    table = _grid().assign(arch="btt", moe=["none", "ffn8"] * 15)
    assert set(_points(table)["variant"]) == {"btt", "btt+ffn8"}


def test_rows_of_one_run_stay_together() -> None:
    laws = laws_of(two(seeds=(0, 1)), bootstrap=50)
    assert len(laws.draws["dense"].runs) == 10
    assert np.array_equal(laws.draws["dense"].weights, laws.draws["btt"].weights)


def _text(t: pd.DataFrame) -> pd.DataFrame:
    t["D"] = t["D"].astype(object)
    t.loc[6, "D"] = "1.4B"
    return t


BAD = {
    "missing loss": (lambda t: t.drop(columns="L"), "loss"),
    "only loss": (lambda t: t[["L"]], "model size and tokens"),
    "negative loss": (lambda t: t.assign(L=t["L"].where(t.index != 4, -1.0)), "row 5, column 'L': -1.0"),
    "zero tokens": (lambda t: t.assign(D=t["D"].where(t.index != 2, 0.0)), "row 3, column 'D'"),
    "infinite": (lambda t: t.assign(N=t["N"].where(t.index != 2, np.inf)), "row 3, column 'N'"),
    "text": (_text, "row 7, column 'D': '1.4B'"),
    "two units": (lambda t: t.assign(D=t["D"].where(t.index > 9, t["D"] / 1e9)), "two units"),
    "three rows": (lambda t: t.head(3), "3 rows"),
    "duplicates": (lambda t: pd.concat([t, t.head(1)]).assign(run=[*range(30), 0]), "row 31 repeats row 1"),
    "two conventions": (
        lambda t: t.assign(C=6 * t["N"] * t["D"] * np.where(t.index % 2, 1.0, 1 / 6)),
        "two counting conventions",
    ),
    "two optimizers": (lambda t: t.assign(optimizer=["adam", "sgd"] * 15), "differ in optimizer"),
    "two schedules": (lambda t: t.assign(schedule=["cosine", "linear"] * 15), "differ in schedule"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_name_row_and_column(name: str, tmp_path: Path) -> None:
    spoil, message = BAD[name]
    spoil(_grid()).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=message.replace("(", r"\(")) as caught:
        run.read(Choices(source="table", table=str(tmp_path / "t.csv")))
    assert "\n" not in str(caught.value)


def test_mixing_on_request_is_named() -> None:
    table = _grid().assign(optimizer=["adam", "sgd"] * 15)
    assert "pooled_runs" in names(laws_of(table, mixed="pool", bootstrap=50))
    assert "mixed_runs" in names(laws_of(table, mixed="largest", bootstrap=50))


def test_identical_rows_without_run_names_are_kept_and_named() -> None:
    laws = laws_of(pd.concat([_grid(), _grid().head(2)]), bootstrap=50)
    assert "duplicate_rows" in names(laws)
    assert laws.parametrics["all"].fit.residuals.shape == (32,)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("N > 1 and D < 4", 2),
        ("N == 1 or s == 'b'", 3),
        ("s in ['a', \"c\"]", 3),
        ("s not in ('a',)", 2),
        ("1 < N <= 3", 2),
        ("not N > 1", 2),
        ("N * D / 2 >= 2 - 1 + a.b", 2),
        ("N > -1", 4),
    ],
)
def test_conditions(condition: str, rows: int) -> None:
    table = pd.DataFrame({"N": [1, 2, 3, 1], "D": [1, 2, 3, 1], "s": ["a", "b", "c", "a"], "a.b": 1.0})
    table["s"] = ["a", "b", "b", "a"] if "== 'b'" in condition and rows == 4 else table["s"]
    assert len(select(table, condition)) == rows


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("tokns > 1", "did you mean 'tokens'"),
        ("tokens >", "not a condition"),
        ("__import__('os')", "does not understand"),
        ("tokens.max() > 1", "does not understand"),
        ("tokens > 'a'", "number with text"),
        ("tokens", "not true or false"),
        ("tokens > 9", "keeps none"),
        ("[t for t in tokens]", "does not understand"),
    ],
)
def test_wrong_conditions(condition: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(pd.DataFrame({"tokens": [1, 2]}), condition)


def test_help_names_every_key() -> None:
    lines = keys.help_text()
    assert all(f"  {name}=" in lines for name in keys.Choices.__dataclass_fields__)
    assert "Huber objective turns" in lines


def test_a_file_of_own_runs_is_read_as_the_runs_themselves(tmp_path: Path) -> None:
    """With forward MACs as N, and what the taxonomy needs; named columns make it foreign again."""
    table = own()
    table.to_parquet(tmp_path / "kept.parquet")
    choices = Choices(source="table", table=str(tmp_path / "kept.parquet"))
    read = run.read(choices).frame
    pd.testing.assert_frame_equal(read, run.read(Choices(), table).frame)
    assert {"omega", "psi", "nu", "memory"} <= set(read.columns)
    foreign = run.read(replace(choices, columns={"params": "params_total", "tokens": "tokens", "loss": "val_loss"}))
    assert "omega" not in foreign.frame.columns
