"""All fits in order: planted answers come back, thin data says what is missing, and laws.json holds its promises."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from structlin.errors import UserError
from structlin.laws import run, synthetic
from structlin.laws.approaches import parametric
from structlin.laws.approaches.laws import BETWEEN, Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.choices import Choices
from structlin.laws.report import laws_json as record
from structlin.laws.report.console import show
from structlin.laws.run import enrich
from structlin.laws.sampling.bootstrap import widening
from tests.laws.tables import BTT, DENSE, laws_of, laws_of_runs, names, own, two


@pytest.fixture(scope="module")
def laws() -> Laws:
    return laws_of(two(run_noise=0.003), bootstrap=300)


def true_multiplier(loss: float) -> float:
    """C_dense / C_btt at a loss under the planted laws."""
    flops = np.geomspace(1e13, 1e23, 20_001)
    reach = [np.exp(np.interp(-loss, -law.frontier(flops), np.log(flops))) for law in (DENSE, BTT)]
    return float(reach[0] / reach[1])


def test_frontier_has_the_planted_slope(laws: Laws) -> None:
    for variant, law in (("dense", DENSE), ("btt", BTT)):
        found = laws.frontiers[variant]
        flops = np.geomspace(*found.span, 20)
        slope = np.gradient(np.log(found.loss(flops)), np.log(flops))
        truth = np.gradient(np.log(law.frontier(flops)), np.log(flops))
        assert np.abs(slope - truth).mean() < 0.01


def test_multiplier_covers_the_planted_one(laws: Laws) -> None:
    m = laws.multipliers["btt"]
    truth = np.array([true_multiplier(loss) for loss in m.loss])
    assert np.median(np.abs(np.log(m.value / truth))) < 0.1
    assert np.mean((m.low <= truth) & (truth <= m.high)) > 0.8
    assert m.mean_interval.low < truth.mean() < m.mean_interval.high
    assert (m.better == 1).all()
    assert m.crossing is None


def test_optimum_per_budget(laws: Laws) -> None:
    for s in laws.isoflops["dense"].slices:
        if s.edge is None and s.budget < 2e18:
            assert s.optimum == pytest.approx(float(DENSE.optimum(s.budget)[0]), rel=0.2)
    edges = [s.edge for s in laws.isoflops["dense"].slices]
    assert edges[-1] == "largest"
    assert "edge_of_grid" in names(laws)


def test_parametric_intervals_hold_the_planted_law(laws: Laws) -> None:
    found = record.parametric(laws, "dense", laws.parametrics["dense"])
    for name in ("E", "alpha", "beta", "size_exponent"):
        ends = found["interval"][name]
        assert ends["low"] <= getattr(DENSE, name) <= ends["high"]


def test_laws_json(laws: Laws, tmp_path: Path) -> None:
    found = record.plain(record.record(laws))
    record.write(found, tmp_path / "laws.json")
    read = json.loads((tmp_path / "laws.json").read_text())
    assert read == found
    assert {"choices", "frontier", "isoflop", "parametric", "multipliers", "warnings"} <= set(read)
    assert {"E", "A", "B", "alpha", "beta", "objective", "n", "interval"} <= set(read["parametric"]["btt"])
    assert read["parametric"]["btt"]["alpha"] == laws.parametrics["btt"].fit.law.alpha
    assert read["choices"]["delta"] == 1e-3
    mean = read["multipliers"]["btt"]
    assert (mean["procedure"], read["choices"]["tolerance"]) == ("uniform", 0.002)
    assert mean["mean_over"] == "uniform in log C of the baseline, over the losses both reached"
    assert mean["mean_flops_range"] == [mean["curve"][0]["flops"], mean["curve"][-1]["flops"]]
    assert [p.name for p in tmp_path.iterdir()] == ["laws.json"]


def test_own_runs_leave_warmup_out_and_use_macs() -> None:
    laws = laws_of_runs(own(), bootstrap=50)
    assert "warmup_points" in names(laws)
    assert (laws.points.frame["step"] > 1).all()
    assert laws.points.choices["flops"] == "6 x forward MACs x tokens"
    assert "btt" in laws.multipliers


def test_paper_convention_only_moves_compute() -> None:
    training = laws_of_runs(own(), bootstrap=50)
    paper = laws_of_runs(own(), bootstrap=50, convention="paper")
    assert paper.frontiers["dense"].a == pytest.approx(training.frontiers["dense"].a, rel=1e-6)
    assert paper.multipliers["btt"].mean == pytest.approx(training.multipliers["btt"].mean, rel=1e-6)
    assert paper.frontiers["dense"].span[0] == pytest.approx(training.frontiers["dense"].span[0] / 6)


def test_the_logged_convention_is_its_own_column() -> None:
    """LayerNorm weighs more in small models; a table without the column is refused in one line."""
    table = own()
    table["logged_flops"] = table["paper_flops"] * (1 + 20 / table["d_model"])
    logged = laws_of_runs(table, bootstrap=50, convention="logged")
    frame = logged.points.frame
    np.testing.assert_allclose(frame["C"], frame["N"] * frame["D"] * (1 + 20 / frame["width"]))
    assert logged.points.choices["flops"] == "(forward MACs, A first, + 5 per normed element) x tokens"
    with pytest.raises(UserError, match=r"convention=logged needs the column logged_flops.*or take convention=paper"):
        laws_of_runs(own(), bootstrap=50, convention="logged")


def test_batch_sizes_are_never_mixed_silently() -> None:
    table = own()
    other = own(seed=1).assign(batch_tokens=1024, val_loss=lambda t: t["val_loss"] * 0.5)
    other = other[other["d_model"] == 1000].assign(run_id=lambda t: t["run_id"] + "-small")
    mixed = laws_of_runs(pd.concat([table, other], ignore_index=True), bootstrap=50)
    alone = laws_of_runs(table, bootstrap=50)
    assert "mixed_runs" in names(mixed)
    assert mixed.frontiers["dense"].E == alone.frontiers["dense"].E


@pytest.mark.parametrize(
    ("changes", "caution"),
    [
        ({"config.optim.weight_decay": 0.1}, True),
        ({"theta": "(1/3|0|2/3|0|2/3|1/3|0)"}, True),
        ({"learning_rate": 1e-2}, True),
        ({"config.seed": 7, "config.model.d_model": 3, "rate_rule": "naive"}, False),
    ],
    ids=["weight decay", "theta", "rate", "what may differ"],
)
def test_other_configurations_are_left_out_by_name(changes: dict[str, object], caution: bool) -> None:
    plain = {
        "config.optim.weight_decay": 0.0,
        "theta": "(1/2|0|1/2|0|1/2|1/2|0)",
        "config.seed": 0,
        "config.model.d_model": 1,
    }
    table = own().assign(**plain)
    other = own(seed=1)[lambda t: t["d_model"] == 1000].assign(**{**plain, **changes})
    other["run_id"] += "-other"
    laws = laws_of_runs(pd.concat([table, other], ignore_index=True), bootstrap=40)
    assert ("mixed_runs" in names(laws)) == caution
    assert any("other" in run for run in laws.points.frame["run"]) != caution


def test_step_zero_is_no_evaluation() -> None:
    table = own()
    start = (
        table.groupby("run_id").head(1).assign(step=0, tokens=0.0, training_flops=0.0, paper_flops=0.0, in_warmup=True)
    )
    laws = laws_of_runs(pd.concat([table, start], ignore_index=True), bootstrap=40)
    assert "left_out" not in names(laws)
    assert laws.frontiers["dense"].E == laws_of_runs(table, bootstrap=40).frontiers["dense"].E


def test_decayed_runs_count_at_their_end_only() -> None:
    table = own().assign(schedule="cosine", horizon_steps=30.0)
    laws = laws_of_runs(table, bootstrap=50)
    assert (laws.points.frame["step"] == 30).all()
    assert laws.points.choices["points"] == "decayed"


def test_constant_and_decayed_are_fitted_apart() -> None:
    decayed = own(seed=2).assign(schedule="cosine", horizon_steps=30.0)
    decayed["run_id"] += "-cosine"
    laws = laws_of_runs(pd.concat([own(), decayed], ignore_index=True), bootstrap=50)
    assert set(laws.points.frame["schedule"]) == {"constant"}
    assert "mixed_runs" in names(laws)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (two()[lambda t: t["variant"] == "dense"], None),
        (two()[lambda t: t["width"] == 4000], "one_width"),
        (two()[lambda t: t["variant"] == "btt"].assign(variant="x"), None),
        (two()[lambda t: t["variant"] != "dense"].pipe(lambda t: pd.concat([t, t.assign(variant="y")])), "no_baseline"),
        (two().groupby("run").head(1), "few_points"),
        (two().assign(loss=lambda t: t["loss"].where(t["variant"] == "dense", t["loss"] + 6)), "no_overlap"),
    ],
    ids=["one structure", "one width", "no dense", "two without dense", "one point a run", "no overlap"],
)  # fmt: skip
def test_thin_data_is_no_failure(table: pd.DataFrame, expected: str | None, tmp_path: Path) -> None:
    laws = laws_of(table.reset_index(drop=True), bootstrap=50)
    assert expected is None or expected in names(laws)
    table.to_csv(tmp_path / "t.csv", index=False)
    choices = Choices(source="table", table=str(tmp_path / "t.csv"), out=str(tmp_path / "out"), bootstrap=50)
    run.run(choices, quiet=True)
    assert (tmp_path / "out" / "report.html").is_file()
    json.loads((tmp_path / "out" / "laws.json").read_text())


def test_the_luck_of_a_run_is_its_mean_residual(laws: Laws) -> None:
    for variant in ("dense", "btt"):
        frame, law = laws.points.of(variant), laws.parametrics[variant].fit.law
        off = np.log(frame["L"]) - np.log(law.loss(frame["N"], frame["D"]))
        expected = off.groupby(frame["run"]).mean()
        assert laws.effects(variant) == pytest.approx(expected[list(laws.draws[variant].runs)].to_numpy(), abs=1e-9)
    bare = replace(laws, parametrics={})
    assert bare.effects("btt").tolist() == [0.0] * 5


def test_replicates_are_fits_of_reweighted_runs(laws: Laws) -> None:
    """To a small part of their spread."""
    found, frame = laws.parametrics["btt"], laws.points.of("btt")
    columns = [frame[name].to_numpy(float) for name in "NDL"]
    assert len(found.samples["E"]) == 300
    for k in (0, 7):
        again = parametric.fit(*columns, weights=laws.draws["btt"].rows[k]).law
        for name in ("alpha", "beta", "size_exponent"):
            off = found.samples[name][k] - getattr(again, name)
            assert abs(off) < 0.1 * np.std(found.samples[name]), (k, name)


def test_rows_within_runs_tell_of_the_tokens(laws: Laws) -> None:
    """B and beta: with several evaluations a run their interval is not widened as that of alpha is."""
    found = laws.parametrics["btt"]
    assert found.factor == widening(5, BETWEEN["parametric"], 0.9)
    assert found.tokens_factor == widening(5, BETWEEN["within"], 0.9)
    assert [found.factor_of(name) for name in ("alpha", "beta", "B", "A")] == [
        found.factor, found.tokens_factor, found.tokens_factor, found.factor
    ]  # fmt: skip
    ends = laws_of(synthetic.isoflop(DENSE, noise=0.002, generator=np.random.default_rng(0)), bootstrap=40)
    one = ends.parametrics["dense"]
    assert one.tokens_factor == one.factor == widening(25, BETWEEN["parametric"], 0.9)
    squares = laws_of(two(), bootstrap=40, objective="log_squares").parametrics["btt"]
    assert squares.factor == widening(5, BETWEEN["squares"], 0.9)


def test_what_a_fit_cannot_tell_is_said() -> None:
    size = np.geomspace(1e7, 1e9, 20)
    tied = pd.DataFrame({"params": size, "tokens": 20 * size, "loss": DENSE.loss(size, 20 * size)})
    assert "ill_conditioned" in names(laws_of(tied, bootstrap=40))
    clear = two(run_noise=0.0005, row_noise=0.0005)
    assert not {"ill_conditioned", "bound", "not_converged"} & names(laws_of(clear, bootstrap=40))
    # A pinned floor stands at its bounds by request.
    assert "bound" not in names(laws_of(clear, bootstrap=40, E="1.8"))
    falls = ParametricLaw(0.0, 30.0, 50.0, 0.12, 0.1)
    table = synthetic.trunks(falls, generator=np.random.default_rng(0), run_noise=1e-5, row_noise=1e-5)
    down = table.assign(loss=lambda t: t["loss"] * (t["flops"] / 1e17) ** -0.01)
    assert "bound" in names(laws_of(down, bootstrap=40))


def test_a_frontier_without_a_floor_is_said_unless_it_was_asked_for() -> None:
    x = np.linspace(0, 10, 60)
    # Ever steeper: no E above 0 bends like this.
    steep = pd.DataFrame({"flops": 1e15 * np.exp(x), "loss": 8 * np.exp(-0.05 * x - 0.002 * x**2)})
    table = steep.assign(params=1e6, run=[f"r{k // 6}" for k in range(60)])
    for offset, said in (("fit", True), ("zero", False)):
        found = laws_of(table, bootstrap=20, offset=offset)
        assert any("the frontier's E ended at 0" in caution.text for caution in found.cautions) == said


def test_an_offset_above_the_lowest_loss_is_said_and_has_no_frontier() -> None:
    table = two().assign(loss=lambda t: t["loss"] + (t["variant"] == "dense"))
    lowest = table.loc[table["variant"] == "btt", "loss"].min()
    found = laws_of(table, bootstrap=20, offset=f"{lowest + 0.01}")
    assert set(found.frontiers) == {"dense"}
    assert [c.variant for c in found.cautions if "is not below the lowest loss" in c.text] == ["btt"]


def test_a_floor_above_the_lowest_loss_is_said_and_has_no_law() -> None:
    table = two()
    lowest = table.loc[table["variant"] == "btt", "loss"].min()
    found = laws_of(table, bootstrap=20, E=f"{lowest + 1e-6:.6f}")
    assert "btt" not in found.parametrics
    assert any(c.name == "bound" and "is not below the lowest loss" in c.text for c in found.cautions)


def test_few_rows_have_no_parametric_law() -> None:
    table = synthetic.isoflop(DENSE, budgets=(1e16, 1e17), ratios=(0.5, 1.0, 2.0), generator=np.random.default_rng(0))
    assert "dense" in laws_of(table, bootstrap=40).parametrics
    assert "dense" not in laws_of(table.head(5), bootstrap=40).parametrics


def test_tables_of_the_terminal_show_the_record(laws: Laws) -> None:
    """Every number of a row stands in laws.json; long lists are cut to the last budgets and cuts."""
    more = enrich(laws_of_runs(own(run_noise=0.002), bootstrap=40, budgets=tuple(np.geomspace(2e16, 4e18, 11))))
    found = record.plain(record.record(more))
    console = Console(width=220, record=True, file=io.StringIO())
    show(found, console)
    lines = [line.split() for line in console.export_text(clear=False).splitlines()]

    def row(*words: str) -> list[str]:
        return next(line for line in lines if line[: len(words)] == list(words))

    law = found["frontier"]["btt"]
    assert row("btt", f"{law['E']:.4g}")[1:4] == [f"{law['E']:.4g}", f"{law['A']:.4g}", f"{law['a']:.3g}"]
    m = found["multipliers"]["btt"]
    ends = m["interval"]["mean"]
    wanted = ["btt", f"{m['mean']:.3g}", f"{m['std']:.2g}", f"[{ends['low']:.3g},", f"{ends['high']:.3g}]"]
    assert wanted in [line[:5] for line in lines]
    budgets = [row["budget"] for row in found["isoflop"]["btt"]["budgets"]]
    assert len(budgets) == 11
    shown = [line[1] for line in lines if line[:1] == ["btt"] and ("interior" in line or "edge:" in line)]
    assert shown == [f"{budget:.2e}" for budget in budgets[1::3]]
    of_time = found["resources"]["btt"]["wall-clock"]
    assert any(f"{of_time['mean']:.3g}" in line and len(line) >= 13 for line in lines if line[:1] == ["btt"])
    cut = found["backtest"]["variants"]["btt"][-1]
    last = [line for line in lines if line[:2] == ["btt", f"{cut['cut']:.1e}"]]
    assert last[0][2:5] == [
        f"{cut['reach']:.1f}x", f"{100 * cut['frontier']['error']:.2f}%", f"{100 * cut['frontier']['bias']:+.2f}%"
    ]  # fmt: skip
    assert sum(line[0] == "warning" for line in lines if line) == len({one["name"] for one in found["warnings"]})
    said = console.export_text(clear=False)
    assert next(line for line in lines if line)[:2] == ["dense", "reached"]
    assert all(sentence in said for sentence in found["verdict"].values())


def test_a_record_is_written_into_a_new_folder(tmp_path: Path) -> None:
    record.write({"a": np.float64("nan"), "b": [np.inf, 1.5, np.arange(2)], "c": "x"}, tmp_path / "new" / "laws.json")
    assert json.loads((tmp_path / "new" / "laws.json").read_text()) == {"a": None, "b": [None, 1.5, [0, 1]], "c": "x"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["laws.json"]


def test_the_share_that_is_better_is_that_at_the_lowest_loss(laws: Laws) -> None:
    m = laws.multipliers["btt"]
    m = replace(m, better=np.linspace(0.1, 0.9, len(m.better)))
    found = record.multiplier(m)
    assert found["better"] == 0.9
    assert [row["better"] for row in found["curve"]] == m.better.tolist()
    assert (found["at_end"], found["interval"]["at_end"]) == (m.value[-1], {"low": m.low[-1], "high": m.high[-1]})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("training_flops", 0.0, r"row 3, column 'FLOPs': 0 is not a positive, finite number"),
        ("training_flops", float("nan"), r"row 3, column 'FLOPs': nan is not"),
        ("training_flops", float("inf"), r"row 3, column 'FLOPs': inf is not"),
        ("macs_per_token", -1.0, r"row 3, column 'macs_per_token': -1 is not"),
        ("tokens", -1.0, r"row 3, column 'tokens': -1 is not"),
        ("variant", None, r"row 3, column 'variant': it is empty"),
        ("run_id", None, r"row 3, column 'run_id': it is empty"),
    ],
)
def test_a_row_of_an_own_table_that_no_run_wrote_is_named(column: str, value: object, message: str) -> None:
    table = own()
    kind = object if isinstance(value, type(None)) else float
    table[column] = table[column].astype(kind)
    table.loc[table.index[2], column] = value
    with pytest.raises(UserError, match=message):
        laws_of_runs(table, bootstrap=20)


def test_rows_of_an_own_table_that_stand_twice_are_refused_or_dropped() -> None:
    table = own()
    twice = pd.concat([table, table], ignore_index=True)
    with pytest.raises(UserError, match=rf"row {len(table) + 1} repeats row 1 in run, D"):
        laws_of_runs(twice, bootstrap=20)
    dropped = laws_of_runs(twice, bootstrap=20, duplicates="drop")
    assert len(dropped.points.frame) == len(laws_of_runs(table, bootstrap=20).points.frame)
    assert any(one.name == "duplicate_rows" for one in dropped.cautions)
