"""All fits in order: planted answers come back, thin data says what is missing, and laws.json holds its promises."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.laws import run
from structlin.laws.approaches.fit import Laws
from structlin.laws.choices import Choices
from structlin.laws.report import laws_json as record
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
        (two().assign(loss=lambda t: t["loss"].where(t["variant"] == "dense", t["loss"] + 50)), "no_overlap"),
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
