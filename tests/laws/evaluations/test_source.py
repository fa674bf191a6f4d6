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
from structlin.laws.evaluations import files, source
from structlin.laws.evaluations.own import from_runs
from structlin.laws.evaluations.points import Points, choose
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
    assert np.allclose(files.read_file(path)["L"], _grid()["L"], rtol=1e-12)


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


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("k", 1e3), ("M", 1e6), ("million", 1e6), ("b", 1e9), ("G", 1e9), ("billion", 1e9), ("T", 1e12), ("P", 1e15),
        ("E", 1e18), ("bits", np.log(2)), ("nats", 1), ("pf_days", 1e15 * 86400), ("hours", 3600), ("days", 86400),
        ("trillion", 1e12), ("thousand", 1e3), (" 2.5 ", 2.5),
    ],
)  # fmt: skip
def test_units(unit: str, factor: float) -> None:
    assert _points(_grid(), units={"tokens": unit})["D"].tolist() == (_grid()["D"] * factor).tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": {"tokens": "parsecs"}}, "tokens=parsecs is not known"),
        ({"units": {"tokens": "0"}}, "tokens=0 is not known"),
        ({"units": {"seed": "k"}}, "'seed' has no column"),
        ({"columns": {"tokns": "D"}}, "unknown key 'tokns'; did you mean 'tokens'"),
        ({"columns": {"tokens": "E"}}, "no column 'E'"),
    ],
)
def test_wrong_names_and_units(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _points(_grid(), **options)


def test_no_column_is_read_twice() -> None:
    """What one key was given is no other key's by its spelling; of two spellings the earlier counts."""
    table = _grid().assign(compute=1e18, seconds=3.0, memory=5.0, lr=0.1).rename(columns={"N": "name"})
    frame = _points(table, columns={"params": "name", "flops": "compute"})
    assert (frame["N"] == _grid()["N"]).all()
    assert frame["run"].str.startswith("row ").all()
    assert set(frame["C"]) == {1e18}
    assert (set(frame["seconds"]), set(frame["memory"]), set(frame["learning_rate"])) == ({3.0}, {5.0}, {0.1})
    both = _grid().assign(val_loss=9.0)
    assert source.match_columns(both, {})["loss"] == "L"
    assert source.match_columns(both, {"loss": "val_loss"})["loss"] == "val_loss"


def test_an_empty_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("N,D,L\n")
    with pytest.raises(UserError, match="has no rows"):
        files.read_file(tmp_path / "t.csv")


def test_two_units_are_told_by_their_rows() -> None:
    table = _grid()
    table.loc[[3, 7], "D"] *= 1e9
    ranked = table["D"].sort_values()
    low, high = ranked.index[-3] + 1, ranked.index[-2] + 1
    with pytest.raises(UserError, match=f"row {low} has .* and row {high} has"):
        _points(table)


def test_rows_without_a_number_are_left_out_and_counted() -> None:
    table = _grid()
    table.loc[[4, 9], "L"] = np.nan
    frame, _, cautions = source.from_table(table, Choices(source="table", table="t.csv"))
    assert len(frame) == 28
    assert [c.text for c in cautions if c.name == "left_out"] == ["2 rows with an empty number, the first row 5"]


def test_decayed_runs_of_a_table_count_at_their_last_row() -> None:
    table = _grid().assign(
        run=np.arange(30) // 10, schedule=["constant"] * 10 + ["cosine"] * 20, in_warmup=["no", "Yes"] * 15
    )
    frame = _points(table)
    assert frame["kind"].tolist() == ["constant"] * 10 + ["decayed"] * 20
    last = table.groupby("run")["D"].transform("max") == table["D"]
    assert frame["final"].tolist() == [True] * 10 + last[10:].tolist()
    assert frame["in_warmup"].tolist() == [False, True] * 15


def test_own_runs_that_diverged_are_left_out_whole() -> None:
    table = own()
    spoilt = table["run_id"] == table["run_id"].iloc[0]
    table.loc[spoilt, "status"] = "diverged"
    table.loc[table.index[-1], "val_loss"] = np.nan
    for convention, label, column in (
        ("training", "6 x forward MACs x tokens", "training_flops"),
        ("paper", "forward MACs x tokens", "paper_flops"),
    ):
        frame, assumed, cautions = from_runs(table, Choices(convention=convention))
        assert len(frame) == len(table) - spoilt.sum() - 1
        assert frame["C"].tolist() == table[column][~spoilt][:-1].tolist()
        assert assumed["flops"] == label
        (caution,) = cautions
        assert caution.text == f"{spoilt.sum()} evaluations of diverged runs, 1 without a loss"


# ---- which points ---------------------------------------------------------------------------------------------------


def _chosen(table: pd.DataFrame, **options: object) -> Points:
    choices = Choices(source="table", table="t.csv", **options)  # type: ignore[arg-type]
    frame, assumed, cautions = source.from_table(table, choices)
    return choose(frame, choices, assumed, cautions, own=False)


def _texts(points: Points, name: str) -> list[str]:
    return [caution.text for caution in points.cautions if caution.name == name]


def test_other_schedules_are_left_out_and_named() -> None:
    table = _grid().assign(run=np.arange(30) // 6, schedule=["constant"] * 18 + ["cosine"] * 12)
    constant = _chosen(table, where="run < 4", mixed="largest")
    assert _texts(constant, "mixed_runs") == [
        "1 decayed runs beside the constant ones are left out; points=decayed fits them"
    ]
    assert len(constant.frame) == 18
    decayed = _chosen(table, points="decayed", mixed="largest")
    assert _texts(decayed, "mixed_runs") == [
        "3 constant runs beside the decayed ones are left out; points=constant fits them"
    ]
    assert len(decayed.frame) == 2
    with pytest.raises(UserError, match="there are no such evaluations; valid here: constant"):
        _chosen(table.head(18), points="decayed")
    assert len(_chosen(table, mixed="pool").frame) == 20


def test_the_largest_group_is_fitted() -> None:
    table = _grid().assign(optimizer=["adam"] * 11 + ["sgd"] * 19)
    points = _chosen(table, mixed="largest")
    assert set(points.frame["optimizer"]) == {"sgd"}
    (text,) = _texts(points, "mixed_runs")
    assert "optimizer=sgd: 19 runs; optimizer=adam: 11 runs" in text
    assert "only optimizer=sgd is fitted" in text
    assert not _texts(_chosen(table.tail(19)), "mixed_runs")


def test_a_variant_has_one_rate_that_of_most_evaluations() -> None:
    table = _grid().assign(arch=["x"] * 15 + ["y"] * 15, lr=[0.1] * 6 + [0.2] * 9 + [0.3] * 15)
    points = _chosen(table, mixed="largest")
    assert points.frame.groupby("variant")["learning_rate"].unique().map(list).to_dict() == {"x": [0.2], "y": [0.3]}
    (caution,) = [c for c in points.cautions if c.name == "mixed_runs"]
    assert caution.variant == "x"
    assert caution.text.startswith("2 values of learning_rate (0.2, 0.1); only 0.2 is fitted")


SIZES = np.repeat([1e7, 3e7, 1e8], 10)


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ({"lr": SIZES}, r"2 of 3 sizes and 20 of 30 rows away.*best_of=\[learning_rate\]"),
        ({"lr": np.tile([1e-3, 2e-3, 4e-3], 10)}, r"0 of 3 sizes and 20 of 30 rows away.*best_of=\[learning_rate\]"),
        ({"batch_tokens": 1e3 * SIZES}, r"runs differ in batch_tokens.*best_of=\[batch_tokens\]"),
    ],
)
def test_a_filter_that_takes_sizes_or_most_rows_away_refuses(tuned: dict[str, np.ndarray], message: str) -> None:
    tokens = np.tile(np.geomspace(1e8, 1e10, 10), 3)
    loss = 1.7 + 400 / SIZES**0.34 + 400 / tokens**0.28
    table = _grid().assign(N=SIZES, D=tokens, L=loss, **tuned)
    with pytest.raises(UserError, match=message):
        _chosen(table)
    assert len(_chosen(table, mixed="pool").frame) == 30


def test_the_best_of_tuned_runs_is_the_lowest_loss_of_each_size_and_tokens() -> None:
    frames = [
        _grid().assign(N=SIZES, D=np.tile(np.geomspace(1e8, 1e10, 10), 3), L=3.0 + 0.1 * k, lr=rate, seed=k // 3)
        for k, rate in enumerate((1e-3, 2e-3, 4e-3, 1e-3, 2e-3, 4e-3))
    ]
    table = pd.concat(frames, ignore_index=True).assign(run=lambda t: t["N"].astype(str) + t["lr"].astype(str))
    points = _chosen(table, best_of=("lr",))
    assert sorted(set(points.frame["L"])) == pytest.approx([3.0, 3.3])
    assert len(points.frame) == 60
    assert "best_of" in {caution.name for caution in points.cautions}


@pytest.mark.parametrize(
    ("rows", "factor", "told"), [(2, 1 / 6, True), (1, 1 / 6, False), (1, 6.0, False), (10, 1 / 1.6, False)]
)
def test_two_conventions_are_two_heaps(rows: int, factor: float, told: bool) -> None:
    table = _grid().assign(C=lambda t: 6 * t["N"] * t["D"] * np.where(t.index < rows, factor, 1.0))
    text = f"FLOPs are about {factor:.2g} x 6ND in {rows} rows and 1 x 6ND in {30 - rows}"
    assert _texts(_chosen(table, mixed="pool"), "mixed_convention") == ([f"{text}; pooled, as asked"] if told else [])
    if told:
        with pytest.raises(UserError, match=f"{text}: two counting conventions"):
            _chosen(table)


def test_long_runs_are_thinned_evenly_to_their_ends() -> None:
    """3,001 evaluations of three runs are too many by one; 3,000 are not."""
    counts = [1600, 1398, 3]
    rows = pd.DataFrame(
        {"run": np.repeat(["a", "b", "c"], counts), "D": np.concatenate([np.arange(1.0, k + 1) for k in counts])}
    )
    rows = rows.assign(N=np.repeat([1e6, 2e6, 3e6], counts), C=lambda t: 6 * t["N"] * t["D"], L=3.0)
    points = _chosen(rows.sample(frac=1, random_state=0))
    assert _texts(points, "thinned") == [f"3001 evaluations of 3 runs thinned to {1000 + 1000 + 3}"]
    for (name, part), count in zip(points.frame.groupby("run"), counts, strict=True):
        kept = np.sort(part["D"].to_numpy())
        assert len(kept) == min(count, 1000), name
        assert kept[-1] == count
        assert np.ptp(np.diff([0, *kept])) <= 1
    assert not _texts(_chosen(rows.iloc[1:]), "thinned")


def test_runs_of_a_variant_are_in_order_of_name_and_compute() -> None:
    table = two(seeds=(0, 1)).sample(frac=1, random_state=0)
    points = _chosen(table)
    assert points.variants == list(dict.fromkeys(table["variant"]))
    whole = points.runs_of("btt")
    assert [name for name, _, _ in whole] == sorted(set(points.of("btt")["run"]))
    frame = points.of("btt")
    for name, c, y in whole:
        part = frame[frame["run"] == name].sort_values("C")
        assert (c.tolist(), y.tolist()) == (part["C"].tolist(), part["L"].tolist())


# ---- choices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frontier": "hul"}, "frontier=hul is not known; did you mean 'hull'"),
        ({"offset": "low"}, "offset=low is not known"),
        ({"E": "-0.5"}, "E=-0.5 is not known"),
        ({"E": "inf"}, "E=inf is not known"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"confidence": 0.49}, "confidence=0.49"),
        ({"bootstrap": 19}, "bootstrap=19"),
        ({"bootstrap": 100_001}, "bootstrap=100001"),
        ({"tolerance": -0.1}, "tolerance must lie"),
        ({"tolerance": 1.0}, "tolerance must lie"),
        ({"window": 0.0}, "window in"),
        ({"window": 2.1}, "window in"),
        ({"budgets": (1e16, 0.0)}, "every budget is a positive number"),
        ({"budgets": (np.inf, 1e16)}, "every budget is a positive number"),
        ({"objective": "hubr"}, "did you mean 'huber'"),
        ({"delta": 0.0}, "delta is 0.0"),
    ],
)
def test_wrong_choices(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Choices(**options)  # type: ignore[arg-type]


def test_limits_of_choices_are_allowed() -> None:
    found = Choices(confidence=0.5, bootstrap=20, tolerance=0.0, window=2.0, offset="zero", E="1.25", budgets=(1e16,))
    assert (found.frontier_offset, found.pinned) == (0.0, 1.25)
    assert Choices(bootstrap=100_000, offset="0").frontier_offset == 0.0
    assert (Choices().frontier_offset, Choices().pinned) == (None, None)


def test_the_stated_defaults_of_a_fit() -> None:
    """docs/laws.md and every laws.json lean on these."""
    found = Choices().record()
    expected = {
        "bootstrap": 400, "confidence": 0.9, "seed": 0, "delta": 1e-3, "tolerance": 0.002, "window": 0.25,
        "objective": "log_huber", "form": "auto", "frontier": "hull", "offset": "fit", "E": "fit",
        "baseline": "dense", "convention": "training", "points": "auto", "mixed": "auto", "duplicates": "refuse",
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert not {"runs", "out", "table", "dir", "cache", "figures", "report"} & set(found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["bootstrap=50", "delta=1e-2"], {"bootstrap": 50, "delta": 0.01}),
        (["--figures=False", "report=true"], {"figures": False, "report": True}),
        (["budgets=[1e16, 2e16]"], {"budgets": (1e16, 2e16)}),
        (["source=table", "table=a.csv", "columns={params: N}"], {"table": "a.csv", "columns": {"params": "N"}}),
        (["where=a = 1"], {"where": "a = 1"}),
        (["E=1.5", "E=fit"], {"E": "fit"}),
    ],
)
def test_words_become_choices(words: list[str], expected: dict[str, object]) -> None:
    found = keys.parse(words)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sorce=table"], "unknown key 'sorce'; did you mean 'source'"),
        (["baseline"], "is not key=value"),
        (["bootstrap=1.5"], "bootstrap=1.5 is not understood; it takes a whole number"),
        (["delta=small"], "it takes a number"),
        (["figures=maybe"], "it takes true or false"),
        (["budgets=1e16,x"], "numbers such as 1e16"),
        (["columns={params"], "'{params: N}'"),
        (["columns=[N]"], "'{params: N}'"),
        (["source=table"], "source=table needs table="),
        (["source=wandb"], "source=wandb needs project="),
        (["table=a.csv"], "is read with source=table"),
    ],
)
def test_words_that_are_no_choices(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        keys.parse(words)


def test_help_shows_defaults_and_sentences() -> None:
    lines = keys.help_text().splitlines()
    assert len(lines) == len(keys.Choices.__dataclass_fields__)
    assert "  bootstrap=400            Resamplings of the runs." in lines
    assert "  budgets=                 Compute budgets for optimal width and tokens" in "\n".join(lines)


@pytest.mark.parametrize("study", ["ffn_slopes", "wide_structured", "compressed"])
def test_starts_that_a_variant_names_are_no_mixture(study: str) -> None:
    """Structures start as was published for each, and grouped keys or a parent are words of their variant."""
    table = pd.read_parquet(Path(__file__).parents[3] / "analysis" / "data" / f"{study}.parquet")
    assert table["config.model.init"].nunique() > 1
    assert set(_of_own(table).variants) <= set(table["variant"])
    # What no variant names is still compared.
    table.loc[table["variant"].str.startswith("low_rank"), "config.model.init_std"] = 0.1
    with pytest.raises(UserError, match=r"differ in config\.model\.init_std"):
        _of_own(table)


def _of_own(table: pd.DataFrame) -> Points:
    frame, assumed, cautions = from_runs(table, Choices())
    return choose(frame, Choices(), assumed, cautions, own=True)
