"""Predictions, verdicts and forecasts: of planted laws they are right, and a later run scores them."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import structlin
from structlin.errors import UserError
from structlin.laws import forecasts, run, synthetic
from structlin.laws.approaches.laws import Laws
from structlin.laws.choices import Choices
from structlin.laws.library import fit
from structlin.laws.report.laws_json import record
from tests.laws.tables import BTT, DENSE, two

QUIET = {"run_noise": 0.0005, "row_noise": 0.0003}
SIZES = np.geomspace(1e6, 2.56e8, 8).tolist()


@pytest.fixture(scope="module")
def laws() -> Laws:
    return fit(two(sizes=SIZES, **QUIET), bootstrap=60)


def compute_for(law: synthetic.ParametricLaw, loss: float) -> float:
    flops = np.geomspace(1e10, 1e26, 40_001)
    return float(np.exp(np.interp(-loss, -law.frontier(flops), np.log(flops))))


@pytest.mark.parametrize("flops", [1e18, 1e20, 1e21])
def test_a_prediction_is_that_of_the_planted_law(laws: Laws, flops: float) -> None:
    for one in laws.predict(flops):
        law = DENSE if one["variant"] == "dense" else BTT
        size, tokens = law.optimum(flops)
        assert one["flops"] == flops
        assert one["loss"] == pytest.approx(float(law.frontier(flops)), rel=0.005)
        assert one["params"] == pytest.approx(float(size), rel=0.15)
        assert one["tokens"] == pytest.approx(float(tokens), rel=0.15)
        # Width is the root of N in these sweeps.
        assert one["width"] == pytest.approx(math.sqrt(one["params"]), rel=0.02)
        assert one["reach"] == pytest.approx(flops / 1e19)
        ends = one["interval"]["loss"]
        assert ends["low"] <= one["loss"] <= ends["high"]
        expected = compute_for(DENSE, float(law.frontier(flops))) / flops
        assert one["multiplier"] == pytest.approx(expected, rel=0.1)


def test_a_loss_asks_for_the_compute_that_reaches_it(laws: Laws) -> None:
    for one in laws.predict(loss=2.6):
        law = DENSE if one["variant"] == "dense" else BTT
        assert one["flops"] == pytest.approx(compute_for(law, 2.6), rel=0.15)
        assert one["interval"]["flops"]["low"] < one["flops"] < one["interval"]["flops"]["high"]
    (below,) = laws.predict(loss=0.5, variant="btt")
    assert (below["flops"], below["params"]) == (None, None)


@pytest.mark.parametrize("gone", ["size", "tokens"])
def test_where_a_term_does_not_show_no_size_is_best_and_the_frontier_foretells(gone: str) -> None:
    """Along such a law the loss would be that of a model without parameters, or without tokens."""
    tables = []
    for number, size in enumerate(np.geomspace(1e6, 16e6, 5)):
        tokens = np.geomspace(1e7, 1e10 / (size / 1e6), 40)
        loss = 1.2 + (300 * tokens**-0.35 if gone == "size" else 300 * size**-0.35 + 0 * tokens)
        tables.append(pd.DataFrame({"params": size, "tokens": tokens, "loss": loss, "run": number, "variant": "btt"}))
    laws = fit(pd.concat(tables), bootstrap=20)
    assert laws.parametrics["btt"].fit.has_no_optimum
    below, beyond = laws.predict([3e16, 6e17])
    for one in (below, beyond):
        assert one["law"] in ("frontier", None)
        assert one["params"] is None
    if gone == "size":
        for one in (below, beyond):
            assert one["loss"] == pytest.approx(1.2 + 300 * (one["flops"] / 6e6) ** -0.35, rel=0.01)


def test_one_model_is_predicted_by_its_size_and_tokens(laws: Laws) -> None:
    (one,) = laws.predict(params=1e8, tokens=1e10, variant="btt")
    assert one["loss"] == pytest.approx(float(BTT.loss(1e8, 1e10)), rel=0.003)


def test_predictions_grow_less_sure_with_their_reach(laws: Laws) -> None:
    widths = []
    for flops in (1e19, 1e20, 1e22):
        (one,) = laws.predict(flops, variant="dense")
        widths.append(math.log(one["interval"]["loss"]["high"] / one["interval"]["loss"]["low"]))
    assert widths == sorted(widths)
    assert widths[2] > 1.5 * widths[0]


def half(one: dict[str, object]) -> float:
    """Upper half of the interval of a predicted loss, in logarithms."""
    return float(np.log(one["interval"]["loss"]["high"] / one["loss"]))  # type: ignore[index]


def test_a_prediction_knows_the_luck_of_the_run_that_will_be_measured() -> None:
    """1.645 deviations of a run at least, wherever the law itself lies."""
    for noise in (0.003, 0.02):
        found = fit(two(sizes=SIZES, run_noise=noise, row_noise=0.001), bootstrap=40)
        (one,) = found.predict(1e18, variant="dense")
        assert half(one) >= 1.645 * float(np.std(found.effects("dense")))
        assert half(one) >= 1.645 * 0.5 * noise


@pytest.mark.parametrize("sizes", [3, 2])
def test_a_frontier_that_foretells_badly_has_wide_predictions(sizes: int) -> None:
    """Few sizes leave L(N, D) no backtest: the frontier's own error below the top decade widens the interval."""
    table = two(sizes=SIZES[:sizes], seeds=(0, 1, 2, 3), **QUIET)
    found = fit(table, bootstrap=40)
    (one,) = found.predict(1e21, variant="dense")
    frame, law = found.points.of("dense"), found.frontiers["dense"]
    past = table[(table["variant"] == "dense") & (table["flops"] <= frame["C"].max() / 10)]
    (early,) = fit(past.drop(columns="variant"), bootstrap=40).frontiers.values()
    future = law.members[frame["C"].to_numpy()[law.members] > frame["C"].max() / 10]
    error = np.mean(np.abs(np.log(early.loss(frame["C"].to_numpy()[future]) / frame["L"].to_numpy()[future])))
    # Two decades ahead is twice as far as the backtest went.
    assert half(one) >= 1.645 * 1.25 * 2.0 * float(error) * 0.95


def test_what_was_never_held_against_a_future_has_no_interval() -> None:
    table = two(sizes=SIZES[:3], seeds=(0, 1, 2, 3), evaluations=1, **QUIET)
    late = table.assign(tokens=table["tokens"] * np.tile([1, 10], len(table) // 2), flops=np.nan)
    late["loss"] = DENSE.loss(late["params"], late["tokens"])
    found = fit(late.drop(columns="flops"), bootstrap=40)
    for one in found.predict(1e20):
        assert one["interval"] is None or one["interval"]["loss"] is None


def test_a_comparison_is_the_multiplier_that_was_planted(laws: Laws) -> None:
    found = laws.compare("btt")
    assert found["baseline"] == "dense"
    loss = found["curve"][-1]["loss"]
    planted = compute_for(DENSE, loss) / compute_for(BTT, loss)
    assert found["at_end"] == pytest.approx(planted, rel=0.1)
    assert found["interval"]["at_end"]["low"] <= planted <= found["interval"]["at_end"]["high"]
    back = laws.compare("dense", "btt")
    assert back["at_end"] == pytest.approx(1 / found["at_end"], rel=0.05)
    assert found["extrapolated"]["flops"] == pytest.approx(1e20)
    assert found["flops_range"][1] <= 1.01e19


def test_a_name_may_be_given_as_tables_shorten_it(laws: Laws) -> None:
    table = two(sizes=SIZES, **QUIET).assign(variant=lambda t: t["variant"].replace("btt", "btt+fixed-norm"))
    longer = fit(table, bootstrap=20)
    assert longer.compare("btt")["variant"] == "btt+fixed-norm"
    assert longer.verdict("btt") == longer.verdict("btt+fixed-norm")
    assert longer.predict(1e19, variant="btt")[0]["variant"] == "btt+fixed-norm"
    assert longer.compare("dense", "btt")["baseline"] == "btt+fixed-norm"
    several = pd.concat([table, table.assign(variant=table["variant"] + "@nddn", run=table["run"].astype(str) + "x")])
    with pytest.raises(UserError, match="no variant 'btt'"):
        fit(several.replace({"btt+fixed-norm@nddn": "btt+other"}), bootstrap=20).compare("btt")


def test_a_verdict_says_the_multiplier_how_surely_and_how_far(laws: Laws) -> None:
    said, (value, low, high) = laws.verdict("btt"), laws.multipliers["btt"].at_end
    start = f"btt needs {1 / value:.2g} of dense's compute at {laws.multipliers['btt'].loss[-1]:.3g} nats"
    assert said.startswith(f"{start} [{1 / high:.2g}, {1 / low:.2g}]; better with P ")
    assert said.endswith("measured to 1e+19 FLOPs")
    assert set(laws.verdict()) == {"dense", "btt"}
    alike = fit(two(sizes=SIZES)[lambda t: t["variant"] == "dense"].pipe(lambda t: twin(t)), bootstrap=60)
    assert "not told apart from dense" in alike.verdict("x")
    few = fit(two(sizes=SIZES[:4]), bootstrap=60)
    assert "caution: few runs" in few.verdict("btt")


def test_a_verdict_says_whose_best_models_stand_at_the_edge_of_its_grid(laws: Laws) -> None:
    assert "of its grid" not in laws.verdict("btt")
    table = two(sizes=np.geomspace(1e6, 1e10, 16).tolist())
    for name, other in (("dense", "btt"), ("btt", "dense")):
        best = float((DENSE if name == "dense" else BTT).optimum(1e19)[0])
        too_large = (table["variant"] != name) | (table["params"] > best)
        said = fit(table[too_large], bootstrap=40, baseline="dense").verdict("btt")
        assert f"caution: {name}'s best model is the smallest of its grid at " in said
        assert said.endswith(f" largest budgets, which flatters {other}")


def test_the_loss_of_a_regression_is_no_nats() -> None:
    found = fit(two(sizes=SIZES).assign(task="regression"), bootstrap=60)
    assert "compute at a mean squared error of " in found.verdict("btt")
    assert "dense reached a mean squared error of " in found.verdict("dense")
    assert "nats" not in " ".join(found.verdict().values())


def twin(table: pd.DataFrame) -> pd.DataFrame:
    """The table and another draw of the same law."""
    other = synthetic.trunks(DENSE, variant="x", sizes=SIZES, generator=np.random.default_rng(9))
    return pd.concat([table, other], ignore_index=True).drop(columns="seed")


@pytest.mark.long
def test_equal_variants_cross_nowhere_and_planted_ones_where_they_do() -> None:
    crossing = synthetic.ParametricLaw(DENSE.E, 4.1 * DENSE.A, DENSE.B, DENSE.alpha + 0.08, DENSE.beta)
    false, found = 0, []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        for law in (DENSE, crossing):
            tables = [
                synthetic.trunks(one, variant=name, sizes=SIZES, run_noise=0.003, generator=generator)
                for name, one in (("dense", DENSE), ("x", law))
            ]
            m = fit(pd.concat(tables).drop(columns="seed"), bootstrap=60).multipliers["x"]
            if law is DENSE:
                false += m.crossing is not None
            elif m.crossing is not None:
                found.append(m.crossing)
    assert false <= 1
    flops = np.geomspace(1e13, 1e22, 20_001)
    meet = flops[np.flatnonzero(np.diff(np.sign(DENSE.frontier(flops) - crossing.frontier(flops))))[0]]
    assert len(found) >= 4
    assert np.median(found) == pytest.approx(meet, rel=0.5)


def test_a_table_of_laws_has_a_row_a_variant(laws: Laws) -> None:
    frame = laws.to_frame().set_index("variant")
    assert list(frame.index) == ["dense", "btt"]
    assert frame.loc["btt", "multiplier"] == laws.multipliers["btt"].at_end[0]
    assert frame.loc["dense", "alpha_low"] <= DENSE.alpha <= frame.loc["dense", "alpha_high"]
    assert frame["form"].tolist() == ["additive", "additive"]


def test_a_plot_is_a_figure(laws: Laws, tmp_path: Path) -> None:
    figure = laws.plot(str(tmp_path / "f.png"))
    assert figure.axes[0].get_xscale() == "log"
    assert (tmp_path / "f.png").stat().st_size > 1000
    with pytest.raises(UserError, match="valid endings"):
        laws.plot(str(tmp_path / "f.txt"))


MISTAKES = [
    (lambda laws: laws.predict(), "nothing to predict"),
    (lambda laws: laws.predict(float("nan")), "flops = nan: a prediction needs a positive"),
    (lambda laws: laws.predict("1e22"), "flops = '1e22': a prediction needs"),
    (lambda laws: laws.predict(-1.0), "flops = -1"),
    (lambda laws: laws.predict(loss=0), "loss = 0"),
    (lambda laws: laws.predict(params=1e9), "needs both params"),
    (lambda laws: laws.predict(1e20, variant="bt"), "no variant 'bt'; did you mean 'btt'"),
    (lambda laws: laws.compare("bt"), "no variant 'bt'; did you mean 'btt'"),
    (lambda laws: laws.compare("dense"), "'dense' is the baseline itself"),
    (lambda laws: laws.verdict("x"), "no variant 'x'"),
    (lambda laws: structlin.fit(two(), bootstrap="100"), "bootstrap = '100': it takes a whole number"),
    (lambda laws: structlin.fit(two(), bootstrap=float("nan")), "bootstrap = nan: it takes a whole number"),
    (lambda laws: structlin.fit(two(), confidence=float("nan")), "confidence=nan must lie in"),
    (lambda laws: structlin.fit(two(), delta=float("nan")), "delta is nan"),
    (lambda laws: structlin.fit(two(), best_of=3), "best_of = 3"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "message"), MISTAKES)
def test_a_mistake_is_one_line(laws: Laws, ask: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ask(laws)  # type: ignore[operator]
    assert "\n" not in str(error.value)


def test_predictions_stand_in_laws_json_with_forms_and_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    two(sizes=SIZES, **QUIET).to_csv("t.csv", index=False)
    options = {"source": "table", "table": "t.csv", "bootstrap": 60, "figures": False, "out": "laws"}
    run.run(Choices(**options, predict=(1e20, 1e21), predict_loss=(2.6,)), quiet=True)
    found = json.loads(Path("laws/laws.json").read_text())
    assert len(found["predictions"]) == 6
    assert set(found["predictions"][0]) >= {
        "variant", "flops", "loss", "params", "tokens", "width", "interval", "multiplier",
    }  # fmt: skip
    assert found["form"] == {"dense": "additive", "btt": "additive"}
    assert set(found["forms"]["btt"]) == {"additive", "powered", "coupled"}
    assert found["forms"]["btt"]["powered"]["held_out"] > 0
    assert found["verdict"]["btt"].startswith("btt needs")
    assert len(found["residuals"]["btt"]["residual"]) == 8 * 30
    page = Path("laws/report.html").read_text()
    assert page.index("<section id=verdict>") < page.index("<section id=warnings")
    assert "btt needs" in page


def test_a_forecast_is_kept_once_and_scored_by_later_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    early, late = two(sizes=SIZES, **QUIET), two(sizes=[*SIZES, 1e9], flops=(1e16, 1e20), **QUIET)
    early.to_csv("early.csv", index=False)
    late.to_csv("late.csv", index=False)
    options = {"source": "table", "bootstrap": 60, "figures": False, "report": False}
    run.run(Choices(**options, table="early.csv", forecast="first", predict=(3e19, 1e20, 1e22)), quiet=True)
    kept = json.loads(Path("forecasts/first.json").read_text())
    assert set(kept) >= {"date", "code", "data", "law", "predictions"}
    assert len(kept["data"]["hash"]) == 16
    with pytest.raises(UserError, match="is kept already"):
        run.run(Choices(**options, table="early.csv", forecast="first"), quiet=True)
    with pytest.raises(UserError, match="these are the runs it was made from"):
        run.run(Choices(**options, table="early.csv", score="forecasts/first.json"), quiet=True)
    score = run.run(Choices(**options, table="late.csv", score="forecasts/first.json"), quiet=True)["score"]
    assert len(score["scores"]) == 4
    assert score["waiting"] == ["dense at 1e+22 FLOPs", "btt at 1e+22 FLOPs"]
    for one in score["scores"]:
        law = DENSE if one["variant"] == "dense" else BTT
        assert one["measured"] == pytest.approx(float(law.frontier(one["flops"])), rel=0.02)
        assert abs(one["error"]) < 0.02
    gain, beyond = (one["multiplier"] for one in score["scores"] if one["variant"] == "btt")
    planted = compute_for(DENSE, float(BTT.frontier(3e19))) / 3e19
    assert (gain["measured"], gain["predicted"]) == pytest.approx((planted, planted), rel=0.1)
    assert beyond is None, "dense has not reached what btt has at its largest compute"
    assert [one["multiplier"] for one in score["scores"] if one["variant"] == "dense"] == [None, None]
    assert [(one["predicted"], one["measured"]) for one in score["winners"]] == [("btt", "btt")] * 2
    # Scored again, the record counts each prediction once.
    again = run.run(Choices(**options, table="late.csv", score="forecasts/first.json"), quiet=True)["score"]
    assert again["record"]["predictions"] == 4
    record = json.loads(Path("forecasts/record.json").read_text())
    assert (len(record["scores"]), len(record["winners"])) == (4, 2)


def test_a_forecast_is_scored_in_its_own_terms_and_by_runs_of_its_own_never(tmp_path: Path) -> None:
    """Whatever is chosen of the rows before their ends; a variant that has no later run waits."""
    early, late = two(sizes=SIZES, **QUIET), two(sizes=[*SIZES, 1e9], flops=(1e16, 1e20), **QUIET)
    path = forecasts.keep(laws_of := fit(early, bootstrap=20), record(laws_of), "one", tmp_path)
    with pytest.raises(UserError, match="these are the runs it was made from"):
        forecasts.score(fit(early[early["tokens"] > early["tokens"].quantile(0.2)], bootstrap=20), path)
    with pytest.raises(UserError, match=r"foretold with baseline=dense, and these laws are of baseline=btt"):
        forecasts.score(fit(late, bootstrap=20, baseline="btt"), path)
    mixed = pd.concat([early[early["variant"] == "btt"], late[late["variant"] == "dense"]])
    score = forecasts.score(fit(mixed, bootstrap=20), path)
    assert {one["variant"] for one in score["scores"]} == {"dense"}
    assert sum(one.startswith("btt at ") for one in score["waiting"]) == 3


def test_a_second_look_at_one_variant_forgets_no_winner(tmp_path: Path) -> None:
    early, late = two(sizes=SIZES, **QUIET), two(sizes=[*SIZES, 1e9], flops=(1e16, 1e20), **QUIET)
    path = forecasts.keep(laws_of := fit(early, bootstrap=20), record(laws_of), "one", tmp_path)
    forecasts.score(fit(late, bootstrap=20), path)
    first = json.loads((tmp_path / "record.json").read_text())
    forecasts.score(fit(late[late["variant"] == "dense"], bootstrap=20), path)
    again = json.loads((tmp_path / "record.json").read_text())
    assert again["winners"] == first["winners"] != []
    assert len(again["scores"]) == len(first["scores"])


@pytest.mark.parametrize(
    "content",
    ['{"scores": [{}]}', '{"scores": null}', '{"scores": [], "winners": null}', "[]", '{"scores": [{"error": null}]}'],
)
def test_a_torn_record_is_named(tmp_path: Path, content: str) -> None:
    early, late = two(sizes=SIZES, **QUIET), two(sizes=[*SIZES, 1e9], flops=(1e16, 1e20), **QUIET)
    path = forecasts.keep(laws_of := fit(early, bootstrap=20), record(laws_of), "one", tmp_path)
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(UserError, match=r"record\.json is torn; move it away"):
        forecasts.score(fit(late, bootstrap=20), path)


def test_intervals_are_withheld_of_a_multiplier_where_they_are_of_the_baseline() -> None:
    """Of two dense runs nothing is said, and so nothing of what is compared with them."""
    table = two(sizes=SIZES, **QUIET)
    few = table[(table["variant"] != "dense") | (table["params"] <= sorted(table["params"].unique())[1])]
    found = {one["variant"]: one for one in fit(few, bootstrap=20).predict(1e20)}
    assert found["dense"]["interval"]["loss"] is None
    assert found["btt"]["interval"]["loss"] is not None
    assert found["btt"]["interval"].get("multiplier") is None
    at = {one["variant"]: one for one in fit(few, bootstrap=20).predict(params=1e8, tokens=1e9)}
    assert at.get("dense", {"interval": {"loss": None}})["interval"]["loss"] is None
    assert at["btt"]["interval"]["loss"] is not None


@pytest.mark.parametrize(
    ("low", "high", "inside"),
    [
        (0.5, 2.0, True),
        (1.5, 2.0, False),
        (0.5, None, True),
        (1.5, None, False),
        (None, 0.5, False),
        (None, None, None),
    ],
)
def test_an_interval_may_be_open(low: float | None, high: float | None, inside: bool | None) -> None:
    assert forecasts._inside({"interval": {"loss": {"low": low, "high": high}}}, "loss", 1.0) is inside


def test_an_interval_may_begin_at_zero() -> None:
    """As that of a multiplier that nothing bounds from below."""
    one = {"variant": "btt", "flops": 1e18, "loss": 2.0, "interval": {"multiplier": {"low": 0.0, "high": None}}}
    assert forecasts._is_prediction(one)
    assert not forecasts._is_prediction(one | {"loss": 0.0})


def test_an_interval_may_be_missing() -> None:
    assert forecasts._inside({"interval": None}, "loss", 1.0) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        *(
            (content, "is no forecast")
            for content in (
                "{",
                "[]",
                '{"predictions": ["x"]}',
                '{"predictions": [{}]}',
                '{"predictions": [{"variant": "dense", "flops": "abc"}]}',
                '{"predictions": [{"variant": "dense", "flops": 1e18, "loss": -1}]}',
                '{"predictions": [{"variant": "dense", "flops": 1e18, "loss": NaN}]}',
                '{"predictions": [{"variant": "dense", "flops": 1e18, "loss": 2, "interval": [1, 2]}]}',
                '{"predictions": [], "data": null}',
                '{"predictions": [], "data": {"ends": []}}',
            )
        ),
    ],
)
def test_what_is_no_forecast_is_named(laws: Laws, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "f.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        forecasts.score(laws, path)


def test_budgets_are_those_of_the_sweep(tmp_path: Path) -> None:
    """Of sweeps that trained runs of the table; in the convention's FLOPs; torn files are passed over."""
    (tmp_path / "sweeps").mkdir()
    cells = [{"run_id": "a", "step": 1, "budget_flops": 6e12}, {"run_id": "b", "step": 2, "budget_flops": 1.2e13}]
    (tmp_path / "sweeps" / "one.json").write_text(json.dumps({"cells": cells}))
    other = [{"run_id": "z", "step": 1, "budget_flops": 5e9}, {"run_id": "a", "step": 1, "budget_flops": None}]
    (tmp_path / "sweeps" / "two.json").write_text(json.dumps({"cells": other}))
    (tmp_path / "sweeps" / "torn.json").write_text('{"cells": [')
    table = pd.DataFrame({"run_id": ["a", "b"]})
    assert run.budgets_of(tmp_path, table, "training") == (6e12, 1.2e13)
    assert run.budgets_of(tmp_path, table, "paper") == (1e12, 2e12)
    assert run.budgets_of(tmp_path, table, "logged") == ()
    assert run.budgets_of(tmp_path / "none", table, "training") == ()


def test_a_name_with_a_dollar_sign_is_drawn(tmp_path: Path) -> None:
    table = two(sizes=SIZES).assign(variant=lambda t: t["variant"].replace("btt", r"$\foo$"))
    table.to_csv(tmp_path / "t.csv", index=False)
    run.run(
        Choices(source="table", table=str(tmp_path / "t.csv"), out=str(tmp_path / "laws"), bootstrap=30), quiet=True
    )
    assert (tmp_path / "laws" / "frontier.png").is_file()
