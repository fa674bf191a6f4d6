"""Tables as people have them: every kind of file and column gives the planted rows, or one line that says why not."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.laws.choices import Choices, parse
from structlin.laws.evaluations import files, wide
from structlin.laws.evaluations.quantities import header, parsed
from structlin.laws.evaluations.source import from_table
from structlin.laws.library import fit
from tests.laws.tables import DENSE

N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e9, 1e11, 6)))
L = 1.7 + 400 / N**0.34 + 400 / D**0.28


def planted() -> pd.DataFrame:
    return pd.DataFrame({"N": N, "D": D, "L": L})


def read(table: pd.DataFrame, **options: object) -> pd.DataFrame:
    return from_table(table, Choices(source="table", table="t.csv", **options))[0]  # type: ignore[arg-type]


def agrees(frame: pd.DataFrame) -> bool:
    return bool(all(np.allclose(frame[name], values, rtol=1e-6) for name, values in (("N", N), ("D", D), ("L", L))))


def text(table: pd.DataFrame, **options: object) -> bytes:
    return table.to_csv(index=False, **options).encode()  # type: ignore[call-overload,no-any-return]


FILES: dict[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "csv": ("t.csv", text),
    "csv with a mark": ("t.csv", lambda t: b"\xef\xbb\xbf" + text(t)),
    "semicolons": ("t.csv", lambda t: text(t, sep=";")),
    "semicolons and decimal commas": ("t.csv", lambda t: text(t, sep=";", decimal=",")),
    "tabs in a csv": ("t.csv", lambda t: text(t, sep="\t")),
    "bars": ("t.txt", lambda t: text(t, sep="|")),
    "tsv": ("t.tsv", lambda t: text(t, sep="\t")),
    "gzip": ("t.csv.gz", lambda t: gzip.compress(text(t))),
    "gzipped lines": ("t.jsonl.gz", lambda t: gzip.compress(lines(t))),
    "utf-16": ("t.csv", lambda t: text(t).decode().encode("utf-16")),
    "utf-16 big end first": ("t.csv", lambda t: b"\xfe\xff" + text(t).decode().encode("utf-16-be")),
    "utf-16 without a mark": ("t.csv", lambda t: text(t).decode().encode("utf-16-le")),
    "latin": ("t.csv", lambda t: text(t.assign(note="é")).decode().encode("latin-1")),
    "spaces": ("t.csv", lambda t: text(t.rename(columns={"L": " L "}))),
    "json array": ("t.json", lambda t: json.dumps(t.to_dict("records")).encode()),
    "json columns": ("t.json", lambda t: json.dumps(t.to_dict("list")).encode()),
    "json of runs": ("t.json", lambda t: json.dumps({"runs": t.to_dict("records")}).encode()),
    "json lines": ("t.jsonl", lambda t: lines(t)),
    "nested json": ("t.json", lambda t: nested(t)),
    "parquet": ("t.parquet", lambda t: parquet(t)),
}  # fmt: skip


def lines(table: pd.DataFrame) -> bytes:
    return "\n".join(json.dumps(row) for row in table.to_dict("records")).encode()


def nested(table: pd.DataFrame) -> bytes:
    rows = [{"N": n, "D": d, "eval": {"loss": y}} for n, d, y in table.to_numpy()]
    return json.dumps(rows).encode()


def parquet(table: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    table.to_parquet(stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_every_kind_holds_the_planted_rows(name: str, tmp_path: Path) -> None:
    place, write = FILES[name]
    (tmp_path / place).write_bytes(write(planted()))
    assert agrees(read(files.read_file(tmp_path / place)))


TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, object]]] = {
    "units in headers": (lambda t: pd.DataFrame({"N (M)": t.N / 1e6, "D [B tokens]": t.D / 1e9, "L": t.L}), {}),
    "loss in bits by its header": (lambda t: t.assign(L=t.L / np.log(2)).rename(columns={"L": "L (bits)"}), {}),
    "num_params and tokens_seen": (lambda t: t.set_axis(["num_params", "tokens_seen", "eval/loss"], axis=1), {}),
    "params_active": (lambda t: t.set_axis(["params_active", "train_tokens", "val_loss"], axis=1), {}),
    "perplexity": (lambda t: t.assign(ppl=np.exp(t.L)).drop(columns="L"), {}),
    "perplexity under another name": (lambda t: t.assign(L=np.exp(t.L)), {"units": {"loss": "ppl"}}),
    "bits per byte": (lambda t: t.assign(bpb=t.L / np.log(2)).drop(columns="L"), {}),
    "tokens from steps": (
        lambda t: t.assign(step=t.D / 2048 / 512, batch_size=512, seq_len=2048).drop(columns="D"), {}
    ),
    "tokens from steps and their tokens": (
        lambda t: t.assign(step=t.D / 1e6, batch_tokens=1e6).drop(columns="D"), {}
    ),
    "numbers for people": (
        lambda t: t.assign(N=[f"{n / 1e6:.9f}M" for n in t.N], D=[f"{d:,.3f}" for d in t.D]), {"units": {"*": "text"}}
    ),
    "step 0": (lambda t: pd.concat([t.assign(step=1), t.head(1).assign(D=0.0, L=9.0, step=0)]), {}),
    "an empty column of mixtures": (lambda t: t.assign(arch="btt", moe=np.nan), {}),
    "an empty column of runs": (lambda t: t.assign(run=np.nan), {}),
    "the same column twice": (lambda t: pd.concat([t, t[["L"]]], axis=1).pipe(files.named, "data"), {}),
    "whole numbers": (lambda t: t.assign(N=t.N.astype("int64"), D=t.D.astype("int64")), {}),
    "large losses that are nats": (lambda t: t, {"units": {"loss": "nats"}}),
    "names with facts": (
        lambda t: t.assign(run=[f"dense_{n / 1e6:.9f}M_{k}" for k, n in enumerate(t.N)]).drop(columns="N"),
        {"names": "{structure}_{params}_{seed}"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_every_kind_holds_the_planted_rows(name: str) -> None:
    change, options = TABLES[name]
    found = read(change(planted()), **options)
    assert np.allclose(found["L"], L, rtol=1e-6)
    assert np.allclose(found["N"], N, rtol=1e-6)
    assert np.allclose(found["D"], D, rtol=1e-6)


def lost(row: int, **cells: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The table with other cells in one row."""
    return lambda t: t.assign(
        **{name: t.get(name, pd.Series("x", index=t.index)).astype(object).where(t.index != row, value)
           for name, value in cells.items()}
    )  # fmt: skip


WRONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "perplexity as loss": (lambda t: t.assign(L=np.exp(2 * t.L)), "row 1, column 'L'.*perplexity.*loss: ppl"),
    "bits and nats": (
        lambda t: t.assign(L=t.L / np.where(t.index % 3 == 0, np.log(2), 1.0)),
        "column 'L'.*bits and nats.*row 1 .*row 2",
    ),
    "case": (lambda t: t.assign(arch=["Dense", "dense"] * 15), "row 2, column 'arch': 'dense' and 'Dense' .row 1."),
    "spaces": (lambda t: t.assign(arch=["dense", "dense "] * 15), "row 2, column 'arch'.*differ in case or spaces"),
    "empty run": (lost(4, run=None), "row 5, column 'run': the cell is empty"),
    "empty structure": (lost(6, arch=np.nan), "row 7, column 'arch': the cell is empty"),
    "no tokens": (lost(2, D=0.0), "row 3, column 'D': 0 .*where='D > 0'"),
    "negative tokens": (lost(2, D=-5.0), "row 3, column 'D': -5"),
    "text": (lost(3, N="1,666,667"), "row 4, column 'N': '1,666,667'.*units=text"),
    "words": (lost(3, N="small"), "row 4, column 'N': 'small' is not a number"),
    "a perplexity of one": (lambda t: t.assign(ppl=1.0).drop(columns="L"), "row 1, column 'ppl'"),
    "step 0 alone": (lambda t: t.assign(step=0), "every row lies at step 0"),
    "names unlike": (
        lambda t: t.set_axis(["alpha", "beta", "gamma"], axis=1),
        "no column for the loss; the table has alpha .*, gamma .*columns='{params: ..., tokens: ..., loss: gamma}'",
    ),
    "no size": (lambda t: t.rename(columns={"N": "how_large"}), "no column for the model size.*how_large"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_gets_one_line_with_row_column_and_way_out(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises(UserError, match=message) as error:
        read(change(planted()))
    assert "\n" not in str(error.value)


HEADERS = [("N (M)", ("N", "m")), ("tokens [B]", ("tokens", "b")), ("loss (bits)", ("loss", "bits")),
           ("D (B tokens)", ("D", "b")), ("N (in millions)", ("N", "million")), ("loss (val)", ("loss (val)", None)),
           ("(M)", ("(M)", None)), ("ppl (ppl)", ("ppl", "ppl"))]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), HEADERS)
def test_units_of_headers(name: str, expected: tuple[str, str | None]) -> None:
    assert header(name) == expected


WRITTEN = [("12.5M", 12.5e6), ("1,666,667", 1666667), ("3e9", 3e9), ("70 B", 7e10), ("1_000", 1000), ("5", 5), (7, 7),
           ("2.5e3k", 2.5e6), ("4 tokens", 4), ("1,5", None), ("big", None), ("", None),
           ("12 apples", None)]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), WRITTEN)
def test_numbers_as_people_write_them(given: object, expected: float | None) -> None:
    found = parsed(given)
    assert found == expected if expected is not None else found != found


def chart() -> pd.DataFrame:
    """W&B's export of one chart: a column a run, with its shades."""
    columns: dict[str, object] = {"Step": np.arange(1, 7)}
    for n in np.unique(N):
        y = L[n == N]
        name = f"dense-{n / 1e6:.4g}M"
        columns |= {f"{name} - val_loss": y, f"{name} - val_loss__MIN": y, f"{name} - val_loss__MAX": y}
    return pd.DataFrame(columns)


def test_a_wide_export_becomes_rows_with_sizes_from_a_table_or_from_names(tmp_path: Path) -> None:
    assert wide.is_wide(chart())
    assert not wide.is_wide(planted())
    runs = pd.DataFrame(
        {"name": [f"dense-{n / 1e6:.4g}M" for n in np.unique(N)], "N": np.unique(N), "batch_tokens": 1e9}
    )
    runs.to_csv(tmp_path / "runs.csv", index=False)
    for options in ({"join": str(tmp_path / "runs.csv")}, {"names": "{structure}-{params}"}):
        table = chart() if "join" in options else chart().assign(batch_tokens=1e9)
        found = read(table, **options)
        assert found["run"].nunique() == 5
        assert sorted(found["N"].unique()) == pytest.approx(np.unique(N), rel=1e-3)
        assert sorted(found["L"]) == pytest.approx(sorted(L))
        assert set(found["D"]) == set(1e9 * np.arange(1, 7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": "{structure}_{params}"}, "row 1, column 'run': names={structure}_{params} does not fit 'dense-1M'"),
        ({"names": "dense"}, "names no columns"),
        ({"join": "none.csv"}, "none.csv is not a file"),
        ({}, "no column for the model size"),
    ],
)
def test_a_wide_export_that_lacks_sizes_says_so(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(chart().assign(batch_tokens=1e9), **options)


def test_a_name_twice_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "N,D,loss, loss\n" + "".join(f"{n},{d},{y},{2 * y}\n" for n, d, y in zip(N, D, L, strict=True))
    )
    with pytest.raises(UserError, match="columns 3 and 4 are both named 'loss' and differ"):
        files.read_file(tmp_path / "t.csv")


def test_units_as_text_on_the_command_line() -> None:
    assert parse(["source=table", "table=t.csv", "units=text"]).units == {"*": "text"}
    assert parse(["source=table", "table=t.csv", "best_of=[lr,batch]"]).best_of == ("lr", "batch")


def mutated(table: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """A table with one to three random mishaps."""
    cells = [
        None,
        np.nan,
        "",
        " ",
        "x",
        "nan",
        0,
        -1,
        1e300,
        -np.inf,
        np.inf,
        "12.5M",
        "1,000",
        True,
        "$\\foo$",
        "Dense",
    ]
    for _ in range(generator.integers(1, 4)):
        column = str(generator.choice(table.columns))
        kind = generator.integers(7)
        if kind == 0:
            row = generator.integers(len(table))
            values = table[column].astype(object).copy()
            values.iloc[row] = cells[generator.integers(len(cells))]
            table = table.assign(**{column: values})
        elif kind == 1 and table.shape[1] > 1:
            table = table.drop(columns=column)
        elif kind == 2:
            table = table.assign(**{column: cells[generator.integers(len(cells))]})
        elif kind == 3:
            table = table.head(int(generator.integers(0, len(table)))).reset_index(drop=True)
        elif kind == 4:
            table = pd.concat([table, table.sample(3, random_state=0, replace=True)]) if len(table) else table
        elif kind == 5:
            table = table.rename(
                columns={column: str(generator.choice([" ", "loss", "a (B)", "moe", "run", "seed", "L"]))}
            )
        else:
            table = table.assign(
                **{str(generator.choice(["arch", "lr", "moe", "step", "seed"])): generator.permutation(len(table))}
            )
        if table.empty:
            return table
    return table


def bases() -> list[pd.DataFrame]:
    """Ten tables of different kinds."""
    plain = planted()
    return [
        plain, plain.assign(arch=["dense", "btt"] * 15), plain.assign(run=np.repeat(range(5), 6)[::-1], seed=0),
        plain.assign(C=6 * N * D), plain.assign(lr=1e-3, batch_tokens=1e6),
        plain.assign(moe=["none", "e8"] * 15, arch="x"),
        plain.assign(step=D / 1e6, batch_size=512, seq_len=2048).drop(columns="D"), chart(),
        plain.assign(ppl=np.exp(L)).drop(columns="L"),
        plain.assign(schedule="cosine", epochs=D / 3e9, width=np.sqrt(N)),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_groups_that_n_and_d_tell_apart_are_no_units(seed: int) -> None:
    """Runs of few sizes that end at two tokens: losses have two heaps, which L(N, D) makes of nats."""
    generator = np.random.default_rng(seed)
    size = np.repeat(np.geomspace(1e6, 1e8, 3 + seed % 3), 4)
    tokens = 1e16 / (6 * size) * np.tile([1.0, 10.0], len(size) // 2)
    table = pd.DataFrame({"N": size, "D": tokens, "run": np.arange(len(size)), "arch": "dense"})
    table["L"] = DENSE.loss(size, tokens) * np.exp(1e-4 * generator.standard_normal(len(size)))
    assert refusal(table) is None


def refusal(table: pd.DataFrame) -> str | None:
    """What the laws of a table refuse with; None where they are fitted. Every other error passes."""
    try:
        fit(table, bootstrap=20).verdict()
    except UserError as error:
        return str(error)
    return None


def no_traceback(mutations: int, seed: int) -> None:
    """Laws, or a ValueError of one line."""
    generator = np.random.default_rng(seed)
    tables = bases()
    for k in range(mutations):
        table = mutated(tables[k % len(tables)], generator)
        said = refusal(table)
        assert said is None or "\n" not in said, k


def test_random_mishaps_give_laws_or_one_line() -> None:
    no_traceback(60, 0)


@pytest.mark.long
def test_many_random_mishaps_give_laws_or_one_line() -> None:
    no_traceback(2000, 1)
