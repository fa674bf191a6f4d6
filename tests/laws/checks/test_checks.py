"""Joint laws, agreement, backtest, sensitivity, resources and design: each recovers what was planted."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from structlin.errors import UserError
from structlin.laws import run, synthetic
from structlin.laws.approaches.fit import Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.checked import Checked
from structlin.laws.checks import agreement, backtest, joint, resources, sensitivity
from structlin.laws.checks import next_runs as design
from structlin.laws.choices import Choices
from structlin.laws.report import laws_json as record
from tests.laws.tables import BTT, DENSE, laws_of, laws_of_runs, names, own, two


@pytest.fixture(scope="module")
def laws() -> Laws:
    return laws_of_runs(own(seeds=(0, 1), run_noise=0.002), bootstrap=150)


def test_joint_finds_the_rescaling(laws: Laws) -> None:
    found = joint.joint(laws)
    assert found["chosen"] == "rescaled"
    # A_btt = 0.7 A_dense = A rho^-alpha.
    assert found["rescaling"]["rho"]["btt"]["N"] == pytest.approx(0.7 ** (-1 / DENSE.alpha), rel=0.05)
    assert found["rescaling"]["rho"]["btt"]["D"] == pytest.approx(1.0, rel=0.05)
    assert found["rescaling"]["rho"]["dense"] == {"N": 1.0, "D": 1.0}
    assert found["models"]["rescaled"]["p_value"] < 1e-6
    assert found["models"]["free"]["p_value"] > 0.01
    residuals = [found["models"][name]["residual_std"] for name in joint.NESTED]
    assert residuals == sorted(residuals, reverse=True)
    assert found["effective_rows"] < found["rows"] / 2


def test_joint_tells_free_structures_apart() -> None:
    other = ParametricLaw(1.2, 60.0, 900.0, 0.25, 0.3)
    generator = np.random.default_rng(0)
    table = pd.concat(
        [
            synthetic.trunks(law, variant=v, generator=generator, run_noise=0.001)
            for v, law in (("dense", DENSE), ("x", other))
        ]
    )
    laws = laws_of(table, bootstrap=100)
    assert joint.joint(laws)["chosen"] == "free"
    agreement.check_design(laws)
    assert "spread_of_offset" in names(laws)


def test_taxonomy_regression_recovers_a_slope() -> None:
    generator = np.random.default_rng(1)
    frames = []
    for k in range(6):
        nu = 0.5 + 0.1 * k
        law = ParametricLaw(1.8, 300.0 * np.exp(1.5 * nu), 2000.0, 0.34, 0.36)
        frames.append(
            synthetic.trunks(law, variant=f"s{k}", generator=generator, run_noise=5e-4).assign(
                nu=nu, omega=0.0, psi=1.0
            )
        )
    table = pd.concat(frames, ignore_index=True)
    laws = laws_of(table, bootstrap=40)
    laws.points.frame[["nu", "omega", "psi"]] = table[["nu", "omega", "psi"]].to_numpy()
    found = joint.joint(laws)["taxonomy"]
    assert found["log_A"]["nu"]["low"] < 1.5 < found["log_A"]["nu"]["high"]
    assert found["log_A"]["nu"]["value"] == pytest.approx(1.5, abs=0.2)
    assert set(found["alpha"]) == {"constant", "nu"}


def test_approaches_agree_on_clean_isoflop_data() -> None:
    table = synthetic.isoflop(DENSE, ratios=(0.5, 0.7, 1.0, 1.4, 2.0), generator=np.random.default_rng(2))
    laws = laws_of(table.assign(run=[f"r{i}" for i in range(len(table))]), bootstrap=60)
    rows = [row for row in agreement.agreement(laws)["dense"] if row["quantity"] == "size exponent"]
    assert {row["approach"] for row in rows} >= {"2 parabola", "2 Akima", "3 parametric"}
    for row in rows:
        assert row["value"] == pytest.approx(DENSE.size_exponent, abs=0.02)


@pytest.mark.parametrize(
    ("ratios", "warning"),
    [
        ((0.6, 1.2, 2.4, 4.8, 9.6), "off_centre_grid"),
        ((0.1, 0.3, 1.0, 3.0, 10.0), "wide_grid"),
        ((0.5, 0.7, 1.0, 1.4, 2.0), None),
    ],
)
def test_bad_isoflop_grids_are_named(ratios: tuple[float, ...], warning: str | None) -> None:
    table = synthetic.isoflop(DENSE, ratios=ratios, generator=np.random.default_rng(3))
    laws = laws_of(table, bootstrap=40)
    agreement.check_design(laws)
    found = names(laws) & {"off_centre_grid", "wide_grid"}
    assert found == ({warning} if warning else set())


def test_tokens_proportional_to_size_are_named() -> None:
    size = np.geomspace(1e7, 1e9, 20)
    table = pd.DataFrame({"params": size, "tokens": 20 * size, "loss": DENSE.loss(size, 20 * size)})
    laws = laws_of(table, bootstrap=40)
    agreement.check_design(laws)
    assert {"tokens_proportional", "assumed_flops"} <= names(laws)


def test_one_run_with_leverage_is_named() -> None:
    table = two(run_noise=0.0, row_noise=0.0005)[lambda t: t["variant"] == "dense"].copy()
    table.loc[table["width"] == 16000, "loss"] *= np.exp(0.05)
    laws = laws_of(table, bootstrap=100, objective="log_squares")
    # Intervals of five runs are wide; the caution compares with the bare spread here.
    found = laws.parametrics["dense"]
    narrow = {name: values.mean() + 1e-3 * (values - values.mean()) for name, values in found.samples.items()}
    laws.parametrics["dense"] = replace(found, samples=narrow, factor=1.0)
    rows = sensitivity.sensitivity(laws)["dense"]
    assert any("without run" in row["change"] for row in rows)
    assert "leverage" in names(laws)


def test_backtest_predicts_a_law_that_holds(laws: Laws) -> None:
    found = backtest.backtest(laws)
    for cuts in found["variants"].values():
        assert len(cuts) == len(backtest.CUTS)
        last = cuts[-1]["parametric"]
        assert last["error"] < 0.01
        assert abs(last["bias"]) < 0.01
        assert last["coverage"] > 0.7
    assert found["rank"]["winner_held"]
    assert found["rank"]["winner_predicted"]
    assert found["rank"]["order"] == ["btt", "dense"]


def test_backtest_sees_a_law_that_breaks() -> None:
    table = two()
    late = table["flops"] > 1e18
    table.loc[late, "loss"] *= (table.loc[late, "flops"] / 1e18) ** 0.05
    broken = backtest.backtest(laws_of(table, bootstrap=60))["variants"]["dense"]
    assert broken[-2]["parametric"]["error"] > 0.02
    assert broken[-2]["parametric"]["bias"] < -0.02


def test_sensitivity_rows(laws: Laws) -> None:
    found = sensitivity.sensitivity(laws)
    changes = {row["change"]: row for row in found["btt"]}
    assert changes["as fitted"]["alpha"] == laws.parametrics["btt"].fit.law.alpha
    assert changes["E pinned at 0"]["E"] == 0
    # Parameters are a fixed share of MACs in this table: only coefficients may move.
    assert changes["N = parameters, all"]["alpha"] == pytest.approx(changes["as fitted"]["alpha"], rel=1e-6)
    assert {"delta = 0.0001", "squares of log loss", "N = MACs without head"} <= set(changes)
    assert any(name.startswith("without run") for name in changes)
    rows = {row["change"]: row["btt"] for row in found["multipliers"]}
    # The head is the same share of every run's FLOPs in this table.
    base = sensitivity._means(laws)["btt"]
    assert rows["FLOPs without head"] == pytest.approx(base, rel=1e-6)
    assert rows["as fitted"] == pytest.approx(base, rel=1e-9)
    for tolerance in ("0.005", "0.01", "0.02"):
        assert rows[f"tolerance {tolerance}"] == pytest.approx(base, rel=0.05)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ("tolerance 0.002", {"tolerance": 0.002}),
        ("tolerance 0.02", {"tolerance": 0.02}),
        ("procedure=published, tolerance 0.02", {"procedure": "published"}),
        ("E = 0 in the frontier", {"offset": "zero"}),
        ("smoothed frontier", {"frontier": "window"}),
    ],
)
def test_a_change_is_the_fit_with_that_choice(change: str, options: dict[str, object], laws: Laws) -> None:
    rows = {row["change"]: row["btt"] for row in sensitivity.sensitivity(laws)["multipliers"]}
    again = laws_of_runs(own(seeds=(0, 1), run_noise=0.002), bootstrap=20, **options)
    assert rows[change] == pytest.approx(again.multipliers["btt"].mean, rel=1e-6)
    assert rows[change] != rows["as fitted"] or change == "tolerance 0.002"


def test_the_other_procedure_is_a_change(laws: Laws) -> None:
    published = laws_of_runs(own(seeds=(0, 1), run_noise=0.002), bootstrap=20, procedure="published")
    rows = {row["change"]: row["btt"] for row in sensitivity.sensitivity(published)["multipliers"]}
    assert rows["as fitted"] == rows["tolerance 0.02"] == published.multipliers["btt"].mean
    assert rows["procedure=uniform, tolerance 0.002"] == pytest.approx(laws.multipliers["btt"].mean, rel=1e-6)


def test_resources_follow_their_exchange_rates(laws: Laws) -> None:
    found = resources.resources(laws)["btt"]
    assert set(found) == {"FLOPs", "wall-clock", "parameters", "memory"}
    # Speed is proportional to MACs here, so the clock says what FLOPs say.
    assert found["wall-clock"]["mean"] == pytest.approx(found["FLOPs"]["mean"], rel=1e-6)
    assert found["memory"]["mean"] == pytest.approx(found["parameters"]["mean"], rel=1e-6)
    assert found["parameters"]["mean"] > 1


def test_unmeasured_speed_is_said(laws: Laws) -> None:
    quiet = laws_of_runs(own().assign(tokens_per_second=np.nan), bootstrap=40)
    assert resources.resources(quiet)["btt"]["wall-clock"] is None


def _pilot() -> design.Pilot:
    laws = laws_of_runs(own(run_noise=0.003), bootstrap=40)
    laws.checked = Checked(design=design.pilots(laws))
    return design.pilot_of(record.plain(record.record(laws)), "btt")


def test_expected_interval_is_what_refits_give() -> None:
    """The half-width from Fisher information against the spread of least squares over fresh sweeps."""
    pilot = design.Pilot(DENSE, np.zeros((5, 5)), (np.log(1.6e7), np.log(1e9)), 0.003, 0.001, 6.0)
    size = np.repeat(np.geomspace(1e6, 2.56e8, 12), 1)
    tokens = 1e19 / (6 * size)
    foreseen = design.expected(pilot, size.tolist(), tokens.tolist(), evaluations=10)["beta"]
    from structlin.laws.approaches import parametric
    from structlin.laws.minimum.objective import Objective

    generator, betas = np.random.default_rng(4), []
    for _ in range(60):
        n = np.repeat(size, 10)
        d = np.repeat(tokens, 10) * np.tile(np.logspace(-1, 0, 10), 12)
        noise = np.repeat(0.003 * generator.standard_normal(12), 10) + 0.001 * generator.standard_normal(120)
        betas.append(parametric.fit(n, d, DENSE.loss(n, d) * np.exp(noise), Objective("log_squares")).law.beta)
    # Ordinary squares ignore the correlation, so they do somewhat worse than the information allows.
    assert 0.9 * foreseen < 1.645 * np.std(betas) < 4 * foreseen


def test_design_spends_the_budget_where_it_teaches() -> None:
    pilot = _pilot()
    sizes = np.repeat([1e6, 1e7, 1e8, 1e9], 3)
    tokens = np.tile([1e8, 1e9, 1e10], 4)
    budget = 1e20
    cells = design.design(pilot, sizes.tolist(), tokens.tolist(), budget_flops=budget, target="size_exponent")
    assert cells
    assert sum(cell.flops for cell in cells) <= budget
    assert len({(cell.size, cell.tokens) for cell in cells}) == len(cells)
    widths = [cells[0].interval_before, *(cell.interval_after for cell in cells)]
    assert all(later < earlier for earlier, later in itertools.pairwise(widths))


def test_design_names_what_is_missing() -> None:
    with pytest.raises(UserError, match="no candidate run costs at most"):
        design.design(_pilot(), [1e9], [1e12], budget_flops=1e10)
    with pytest.raises(UserError, match="no pilot for 'btt'"):
        design.pilot_of({"design": {"dense": {}}}, "btt")
    with pytest.raises(UserError, match="did you mean 'size_exponent'"):
        design.design(_pilot(), [1e6], [1e8], budget_flops=1e17, target="size_exponnt")


def test_everything_stands_in_laws_json(tmp_path) -> None:
    two().to_csv(tmp_path / "t.csv", index=False)
    choices = Choices(source="table", table=str(tmp_path / "t.csv"), out=str(tmp_path), bootstrap=40, figures=False)
    found = run.run(choices, quiet=True)
    for part in ("joint", "multipliers", "backtest", "agreement", "sensitivity", "resources", "design"):
        assert found[part], part
    page = (tmp_path / "report.html").read_text()
    for words in ("Agreement of the approaches", "Joint laws over structures", "Sensitivity of the multipliers"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count("<script") == 3
    assert BTT.E == DENSE.E
