"""Joint laws, agreement, backtest, sensitivity, resources and design: each recovers what was planted."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares
from scipy.stats import chi2, linregress, norm
from scipy.stats import t as student

from structlin.errors import UserError
from structlin.laws import run, synthetic
from structlin.laws.approaches import frontier, hull, parametric
from structlin.laws.approaches.laws import Laws
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.checked import Checked
from structlin.laws.checks import agreement, backtest, joint, resources, sensitivity
from structlin.laws.checks import next_runs as design
from structlin.laws.choices import Choices
from structlin.laws.minimum.objective import Objective
from structlin.laws.report import laws_json as record
from structlin.laws.sampling.bootstrap import interval
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
    assert set(found) == {"FLOPs", "wall-clock", "parameters", "memory", "decoding"}
    assert found["decoding"] is None
    # Speed is proportional to MACs here, so the clock says what FLOPs say.
    assert found["wall-clock"]["mean"] == pytest.approx(found["FLOPs"]["mean"], rel=1e-6)
    assert found["memory"]["mean"] == pytest.approx(found["parameters"]["mean"], rel=1e-6)
    assert found["parameters"]["mean"] > 1


def test_decoding_is_one_where_its_time_is_known() -> None:
    """A token that takes a time by the parameters says what parameters say."""
    table = own()
    timed = table.assign(decode_ms_1=table["params_total"] * 1e-6, decode_ms_16=np.nan)
    found = resources.resources(laws_of_runs(timed, bootstrap=40))["btt"]
    assert found["decoding"]["mean"] == pytest.approx(found["parameters"]["mean"], rel=1e-6)


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


def test_without_drawn_sweeps_the_size_exponent_of_a_frontier_has_the_interval_of_resampled_runs(laws: Laws) -> None:
    law = replace(laws.frontiers["btt"], size_errors=np.empty(0))
    plain = replace(laws, frontiers={**laws.frontiers, "btt": law})
    (row,) = [
        row
        for row in agreement.agreement(plain)["btt"]
        if (row["quantity"], row["approach"]) == ("size exponent", "1 frontier")
    ]
    part = laws.points.of("btt").iloc[law.members]
    assert row["value"] == pytest.approx(linregress(np.log(part["C"]), np.log(part["N"])).slope)
    samples = agreement._slopes(
        np.log(part["C"].to_numpy()), np.log(part["N"].to_numpy()), laws.draws["btt"].rows[:, law.members]
    )
    expected = interval(samples, row["value"], 0.9, laws.factor("btt", "frontier"))
    assert row["interval"] == pytest.approx(expected.record())


def test_many_rows_are_thinned_for_the_joint_laws(laws: Laws, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = len(laws.points.frame)
    assert len(joint._data(laws).loss) == min(rows, joint._MAX_ROWS)
    monkeypatch.setattr(joint, "_MAX_ROWS", rows // 3)
    data = joint._data(laws)
    assert len(data.loss) == rows // 3
    assert set(data.variant) == {0, 1}


# ---- agreement ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([(0, 1), (1, 2), (0.5, 3)], set()),
        ([(0, 1), (1.1, 2), (0.5, 3)], {"0, 1"}),
        ([(0, 1), (0.5, 2), (1.5, 3)], {"0, 2"}),
        ([(0, 3), (0, 1), (1.5, 3)], {"1, 2"}),
        ([(5, 6), (0, 1), (3, 4)], {"0, 1", "0, 2", "1, 2"}),
    ],
)
def test_approaches_whose_intervals_do_not_meet_are_named_once(
    laws: Laws, intervals: list[tuple[float, float]], expected: set[str]
) -> None:
    quiet = replace(laws, cautions=[])
    rows = [
        {"approach": str(k), "value": float(k), "interval": {"low": low, "high": high}}
        for k, (low, high) in enumerate(intervals)
    ]
    agreement._compare(quiet, "btt", "q", rows)
    pairs = [c.text.removeprefix("q: ").replace(" by approach 0", "").split(", ") for c in quiet.cautions]
    assert {f"{one.split()[0]}, {other.split()[0]}" for one, other in pairs} == expected
    assert len(pairs) == len(expected)
    assert {(c.name, c.variant) for c in quiet.cautions} <= {("disagreement", "btt")}


@pytest.mark.parametrize(
    ("exponent", "spread", "expected"),
    [(1.0, 0.0, True), (-0.8, 0.0, True), (1.0, 0.05, True), (1.0, 0.7, False), (0.0, 1.0, False)],
)
def test_tokens_that_follow_size_are_named(exponent: float, spread: float, expected: bool) -> None:
    generator = np.random.default_rng(0)
    size = np.geomspace(1e7, 1e9, 40)
    tokens = 1e10 * (size / 1e8) ** exponent * np.exp(spread * generator.standard_normal(40))
    laws = laws_of(pd.DataFrame({"params": size, "tokens": tokens, "loss": DENSE.loss(size, tokens)}), bootstrap=40)
    agreement.check_design(laws)
    assert ("tokens_proportional" in names(laws)) == expected


def test_the_optimal_size_of_the_parametric_law_is_that_of_its_budget(laws: Laws) -> None:
    """Also where FLOPs are counted otherwise: a budget then buys another model."""
    paper = laws_of_runs(own(seeds=(0, 1), run_noise=0.002), bootstrap=40, convention="paper")
    for of, per in ((laws, 6.0), (paper, 1.0)):
        rows = [row for row in agreement.agreement(of)["btt"] if row["quantity"].startswith("optimal size")]
        budget = float(rows[0]["quantity"].split()[3])
        assert [row["approach"] for row in rows] == ["2 parabola", "3 parametric"]
        law = of.parametrics["btt"].fit.law
        assert rows[1]["value"] == pytest.approx(float(law.optimum(budget, per)[0]), rel=0.01)
        assert rows[1]["interval"]["low"] < rows[1]["value"] < rows[1]["interval"]["high"]


def test_weighted_slopes_are_those_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    x, y, weights = generator.random(9), generator.random(9), generator.random((4, 9))
    expected = [np.polyfit(x, y, 1, w=np.sqrt(w))[0] for w in weights]
    assert agreement._slopes(x, y, weights) == pytest.approx(expected)


# ---- design ---------------------------------------------------------------------------------------------------------


def pilot_at(run_noise: float = 0.003, row_noise: float = 0.001) -> design.Pilot:
    """A pilot of the planted law from six runs of four evaluations."""
    blank = design.Pilot(DENSE, np.zeros((5, 5)), (np.log(1.6e7), np.log(1e9)), run_noise, row_noise, 6.0)
    size = np.geomspace(2e6, 2e8, 6)
    return replace(blank, information=sum(covariance_information(blank, n, 2e16 / n, 4) for n in size))


def log_loss(theta: np.ndarray, centre: tuple[float, float], size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """log L of (E, log A', log B', alpha, beta), A' and B' at the centre."""
    floor, a, b, alpha, beta = theta
    x, y = np.log(size) - centre[0], np.log(tokens) - centre[1]
    return np.log(floor + np.exp(a - alpha * x) + np.exp(b - beta * y))


def theta_of(pilot: design.Pilot) -> np.ndarray:
    law, (x, y) = pilot.law, pilot.centre
    return np.array([law.E, np.log(law.A) - law.alpha * x, np.log(law.B) - law.beta * y, law.alpha, law.beta])


def differences(function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray) -> np.ndarray:
    """Central differences in each parameter, last axis."""
    steps = np.eye(len(theta)) * 1e-5
    return np.stack([(function(theta + h) - function(theta - h)) / 2e-5 for h in steps], axis=-1)


def covariance_information(pilot: design.Pilot, size: float, tokens: float, evaluations: int) -> np.ndarray:
    """J^T V^-1 J of one run with its covariance written out; evaluations over the last decade of its tokens."""
    seen = tokens * 10.0 ** np.linspace(-1, 0, evaluations) if evaluations > 1 else np.array([tokens])
    n = np.full(len(seen), size)
    jacobian = differences(lambda theta: log_loss(theta, pilot.centre, n, seen), theta_of(pilot))
    covariance = pilot.row_noise**2 * np.eye(len(seen)) + pilot.run_noise**2
    return jacobian.T @ np.linalg.inv(covariance) @ jacobian


def target_of(name: str, pilot: design.Pilot, flops: float) -> Callable[[np.ndarray], np.ndarray]:
    """A target as a function of theta."""

    def frontier_loss(theta: np.ndarray) -> np.ndarray:
        floor, a, b, alpha, beta = theta
        x, y = pilot.centre
        law = ParametricLaw(floor, np.exp(a + alpha * x), np.exp(b + beta * y), alpha, beta)
        return np.log(law.frontier(flops, pilot.flops_per_nd))

    simple = {
        "size_exponent": lambda t: t[4] / (t[3] + t[4]),
        "compute_exponent": lambda t: t[3] * t[4] / (t[3] + t[4]),
        "alpha": lambda t: t[3],
        "beta": lambda t: t[4],
        "E": lambda t: t[0],
    }
    return simple.get(name, frontier_loss)


def half_width(information: np.ndarray, gradient: np.ndarray, confidence: float) -> float:
    return float(norm.ppf(0.5 + confidence / 2) * np.sqrt(gradient @ np.linalg.inv(information) @ gradient))


@pytest.mark.parametrize("noise", [(0.003, 0.001), (0.001, 0.01)])
@pytest.mark.parametrize("evaluations", [1, 5])
def test_expected_intervals_are_those_of_the_inverse_information(noise: tuple[float, float], evaluations: int) -> None:
    """Derivatives by differences, covariances written out, by the delta method."""
    pilot = pilot_at(*noise)
    size, tokens = [1e7, 3e7], [1e10, 2e9]
    found = design.expected(pilot, size, tokens, evaluations=evaluations, confidence=0.8)
    added = [covariance_information(pilot, n, d, evaluations) for n, d in zip(size, tokens, strict=True)]
    information = pilot.information + sum(added)
    for name in design.TARGETS:
        gradient = differences(target_of(name, pilot, 6e17), theta_of(pilot))
        assert found[name] == pytest.approx(half_width(information, gradient, 0.8), rel=1e-4), name
    # Without runs: at the compute of the pilot's centre.
    plain = design.expected(pilot)
    gradient = differences(target_of("frontier_loss", pilot, 6 * 1.6e16), theta_of(pilot))
    assert plain["frontier_loss"] == pytest.approx(half_width(pilot.information, gradient, 0.9), rel=1e-4)


def test_what_no_run_tells_has_no_width() -> None:
    blank = replace(pilot_at(), information=np.zeros((5, 5)))
    assert set(design.expected(blank).values()) == {np.inf}
    alone = design.expected(blank, [1e7], [1e9], evaluations=3)
    assert alone["alpha"] == np.inf
    assert design._half_width(np.diag([1.0, 1.0, 0.0, 4.0, 0.0]), np.array([0, 0, 0, 1.0, 0]), 0.9) == pytest.approx(
        norm.ppf(0.95) / 2
    )


GRID = (np.repeat([1e6, 1e7, 1e8], 3).tolist(), np.tile([1e8, 1e9, 1e10], 3).tolist())
# The cheapest is not what teaches most a FLOP.
UNEVEN = ([1.5e6, 2.4e7, 2.6e6, 8.8e7, 2.3e7], [4.2e8, 6.8e9, 1.1e8, 2.2e8, 3.1e8])


@pytest.mark.parametrize("candidates", [GRID, UNEVEN], ids=["grid", "uneven"])
@pytest.mark.parametrize("target", ["size_exponent", "frontier_loss"])
def test_a_design_is_greedy_in_variance_per_flop(target: str, candidates: tuple[list[float], list[float]]) -> None:
    pilot = pilot_at()
    sizes, tokens = candidates
    budget, most = 1.2e17, 4
    found = design.design(pilot, sizes, tokens, budget_flops=budget, target=target, evaluations=2, most=most)
    cost = [6 * n * d for n, d in zip(sizes, tokens, strict=True)]
    gradient = differences(target_of(target, pilot, max(c for c in cost if c <= budget)), theta_of(pilot))
    information, left, waiting, expected = pilot.information, budget, set(range(len(sizes))), []
    while len(expected) < most and any(cost[i] <= left for i in waiting):
        now = half_width(information, gradient, 0.9)
        after = {
            i: half_width(information + covariance_information(pilot, sizes[i], tokens[i], 2), gradient, 0.9)
            for i in waiting
            if cost[i] <= left
        }
        best = max(after, key=lambda i: np.log(now / after[i]) / cost[i])
        expected.append((sizes[best], tokens[best], cost[best], now, after[best]))
        information = information + covariance_information(pilot, sizes[best], tokens[best], 2)
        left -= cost[best]
        waiting.remove(best)
    assert len(found) == len(expected) >= 3
    if candidates is UNEVEN:
        assert found[0].flops > min(cost)
    for cell, wanted in zip(found, expected, strict=True):
        assert (cell.size, cell.tokens, cell.flops) == wanted[:3]
        assert (cell.interval_before, cell.interval_after) == pytest.approx(wanted[3:], rel=1e-3)


def test_candidates_that_cost_the_budget_exactly_are_affordable() -> None:
    (cell,) = design.design(pilot_at(), [1e7, 2e7], [1e9, 1e9], budget_flops=6e16, target="alpha")
    assert (cell.size, cell.flops) == (1e7, 6e16)
    with pytest.raises(UserError, match="no candidate run costs at most"):
        design.design(pilot_at(), [], [], budget_flops=1e17)
    with pytest.raises(UserError, match="not a positive number"):
        design.design(pilot_at(), [1e7], [1e9], budget_flops=0.0)


# ---- backtest -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backtested(laws: Laws) -> dict[str, Any]:
    return backtest.backtest(laws)


@pytest.mark.parametrize("variant", ["dense", "btt"])
def test_a_backtest_predicts_above_its_cut(laws: Laws, backtested: dict[str, Any], variant: str) -> None:
    frame, law = laws.points.of(variant), laws.frontiers[variant]
    c, n, d, y = (frame[name].to_numpy(float) for name in ("C", "N", "D", "L"))
    for share, cut in zip(backtest.CUTS, backtested["variants"][variant], strict=True):
        assert cut["cut"] == pytest.approx(c.min() ** (1 - share) * c.max() ** share)
        assert cut["reach"] == pytest.approx((c.max() / c.min()) ** (1 - share))
        past = c <= cut["cut"]
        fitted = parametric.fit(n[past], d[past], y[past], form=laws.parametrics[variant].fit.form).law
        errors = np.log(fitted.loss(n[~past], d[~past]) / y[~past])
        found = cut["parametric"]
        assert found["rows"] == (~past).sum()
        assert found["bias"] == pytest.approx(errors.mean(), abs=5e-5)
        assert found["error"] == pytest.approx(np.sqrt((errors**2).mean()), rel=0.02)
        assert 0 <= found["coverage"] <= 1
        future = law.members[c[law.members] > cut["cut"]]
        rows = hull.members(c[past], y[past], tolerance=law.tolerance)
        errors = np.log(frontier.fit(c[past], y[past], rows).loss(c[future]) / y[future])
        found = cut["frontier"]
        assert found["rows"] == len(future)
        assert found["bias"] == pytest.approx(errors.mean(), abs=1e-6)
        assert found["error"] == pytest.approx(np.sqrt((errors**2).mean()), rel=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "coverage"),
    [
        ([-1.0, 0.0, -2.0, 0.5], [1.0, 1.0, 0.0, 1.0], 0.75),
        ([-2.0, -2.0, 1.0, 1.0], [-1.0, -1.0, 2.0, 2.0], 0.0),
        ([np.nan, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0], None),
    ],
)
def test_scores_of_a_backtest(low: list[float], high: list[float], coverage: float | None) -> None:
    score = backtest._score(np.array([0.1, -0.3, 0.2, 0.4]), np.array(low), np.array(high))
    assert score["rows"] == 4
    assert score["bias"] == pytest.approx(0.1)
    assert score["error"] == pytest.approx(np.sqrt(0.3 / 4))
    assert score["coverage"] == coverage


def test_an_interval_of_a_new_evaluation_has_both_spreads(laws: Laws) -> None:
    """Replicates about the error, widened by the factor, and the noise of one evaluation: their variances add."""
    generator = np.random.default_rng(5)
    error = np.array([0.0, 0.02])
    spread = error + 0.01 * generator.standard_normal((4000, 2))
    low, high = backtest._ends(laws, error, spread, 0.0, 1.0)
    expected = np.quantile(spread, [0.05, 0.95], axis=0)
    assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))
    low, high = backtest._ends(laws, error, spread, 0.03, 2.0)
    assert high - low == pytest.approx(np.full(2, 2 * 1.645 * np.hypot(0.02, 0.03)), rel=0.05)
    assert (high + low) / 2 == pytest.approx(error, abs=2e-3)
    assert np.isnan(backtest._ends(laws, error, spread, 0.03, np.inf)).all()


@pytest.mark.parametrize(("rows", "known"), [(7, False), (8, True)])
def test_too_little_past_or_future_has_no_backtest(laws: Laws, rows: int, known: bool) -> None:
    """So many evaluations far below the others, on a frontier of their own; eight are enough."""
    frame, law = laws.points.of("dense").copy(), laws.frontiers["dense"]
    early = np.setdiff1d(np.arange(len(frame)), law.members)[:: len(frame) // 10][:rows]
    flops = np.geomspace(1e10, 1e11, rows)
    frame.iloc[early, frame.columns.get_indexer(["C", "L"])] = np.stack([flops, 2 + 100 * flops**-0.1], axis=1)
    assert frame["N"].iloc[early].nunique() >= 3
    keep, last = np.arange(len(frame)), frame["C"].max()
    assert (backtest._frontier(laws, "dense", frame, 1e12) is not None) == known
    assert (backtest._parametric(laws, "dense", frame, keep, 1e12) is not None) == known
    assert backtest._frontier(laws, "dense", frame, last) is None
    assert backtest._parametric(laws, "dense", frame, keep, last) is None


def test_many_rows_are_thinned_for_a_backtest() -> None:
    laws = laws_of(two(evaluations=110), bootstrap=40)
    assert len(laws.points.of("dense")) == 550
    cut = backtest.backtest(laws)["variants"]["dense"][1]
    frame = laws.points.of("dense")
    assert cut["parametric"]["rows"] == pytest.approx((frame["C"] > cut["cut"]).sum() * 500 / 550, abs=3)
    assert cut["parametric"]["error"] < 0.02


def test_ranks_at_a_tenth_of_the_compute() -> None:
    """btt is ahead early and dense at the end, by laws that cross within the last decade."""
    slow = ParametricLaw(DENSE.E + 0.6, 0.25 * DENSE.A, DENSE.B, DENSE.alpha, DENSE.beta)
    generator = np.random.default_rng(1)
    frames = [
        synthetic.trunks(law, variant=name, generator=generator, run_noise=1e-4, row_noise=1e-4)
        for name, law in (("dense", DENSE), ("btt", slow), ("worse", replace(DENSE, E=DENSE.E + 1)))
    ]
    laws = laws_of(pd.concat(frames, ignore_index=True), bootstrap=40)
    found = backtest.rank_stability(laws)
    assert found["compute"] == min(law.span[1] for law in laws.frontiers.values())
    assert found["earlier"] == pytest.approx(found["compute"] / 10)

    def order(flops: float) -> list[str]:
        losses = {v: float(law.loss(flops)) for v, law in laws.frontiers.items()}
        return sorted(losses, key=losses.__getitem__)

    assert found["order"] == order(found["compute"])
    assert found["order_earlier"] == order(found["earlier"])
    assert found["order"] != found["order_earlier"]
    assert not found["winner_held"]
    assert found["pairs_kept"] == pytest.approx(2 / 3)
    assert found["winner_predicted"] == (found["order_predicted"][0] == found["order"][0])
    short = laws_of(two(flops=(1e18, 5e18)), bootstrap=40)
    assert "less than a decade" in backtest.rank_stability(short)["note"]


# ---- joint laws and taxonomy ----------------------------------------------------------------------------------------


def test_the_design_effect_is_that_of_the_correlation_within_runs() -> None:
    """1 + (m - 1) icc: independent rows count one each, rows that repeat their run count one a run."""
    generator = np.random.default_rng(0)
    run = np.repeat(np.arange(400), 5)
    own, shared = generator.standard_normal(2000), generator.standard_normal(400)[run]
    assert joint.design_effect(own, run) == pytest.approx(1.0, abs=0.1)
    assert joint.design_effect(shared, run) == pytest.approx(5.0)
    assert joint.design_effect(shared + own, run) == pytest.approx(1 + 4 * 0.5, abs=0.2)
    assert joint.design_effect(shared + own, run + 7) == pytest.approx(joint.design_effect(shared + own, run))
    assert joint.design_effect(own, np.arange(2000)) == 1.0


def test_nested_laws_are_counted_and_weighed(laws: Laws) -> None:
    found = joint.joint(laws)
    n, models = found["effective_rows"], found["models"]
    assert found["rows"] == len(laws.points.frame)
    assert [models[name]["parameters"] for name in joint.NESTED] == [5, 7, 9, 10]
    before = None
    for name in joint.NESTED:
        one = models[name]
        k = one["parameters"] + 1
        expected = n * np.log(one["residual_std"] ** 2) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
        assert one["aicc"] == pytest.approx(expected)
        assert one["held_out"] >= one["residual_std"] * 0.9
        if before is not None:
            ratio = n * np.log(before["residual_std"] ** 2 / one["residual_std"] ** 2)
            assert one["likelihood_ratio"] == pytest.approx(max(ratio, 0), abs=1e-6)
            assert one["p_value"] == pytest.approx(chi2.sf(max(ratio, 0), k - 1 - before["parameters"]), rel=1e-3)
        before = one
    assert found["chosen"] == min(models, key=lambda name: models[name]["aicc"])
    # The free law is each structure's own.
    free = joint._structures(joint._data(laws), "free", joint._fit(laws, "free", joint._data(laws))[0])
    for variant, values in free.items():
        frame = laws.points.of(variant)
        alone = parametric.fit(*(frame[name].to_numpy(float) for name in "NDL"), Objective("log_squares")).law
        for name, value in values.items():
            assert value == pytest.approx(getattr(alone, name), rel=0.02), (variant, name)
    assert joint._aicc(1.0, 8.0, 6) == np.inf
    # Two structures are too few for a line, whatever varies between them.
    assert found["taxonomy"] == {"note": "2 structures are too few for a regression on nu"}


def test_the_condition_is_that_of_the_unit_columns(laws: Laws) -> None:
    data = joint._data(laws)
    model, (theta, _) = joint._model("free", data), joint._fit(laws, "free", data)
    step = 1e-6
    predicted = model.predict(theta[None])[0]
    columns = [
        (model.predict((theta + step * unit)[None])[0] - model.predict((theta - step * unit)[None])[0]) / predicted
        for unit in np.eye(len(theta))
    ]
    unit = np.stack([column / np.linalg.norm(column) for column in columns], axis=1)
    expected = np.linalg.cond(unit.T @ unit)
    assert joint._condition(model, theta) == pytest.approx(expected, rel=1e-2)
    # A term that has vanished has no column.
    _, a, *_ = joint._columns("free", len(data.names))
    gone = theta.copy()
    gone[a[0]] = -60.0
    assert joint._condition(model, gone) == np.inf


def test_a_nested_law_is_the_least_squares_one(laws: Laws) -> None:
    data = joint._data(laws)
    for name in ("shared", "floor"):
        model, (theta, value) = joint._model(name, data), joint._fit(laws, name, data)
        best = least_squares(
            lambda t, model=model: np.log(model.predict(t[None])[0] / data.loss), theta + 1e-3, xtol=1e-14, ftol=1e-14,
            gtol=1e-14, x_scale="jac", max_nfev=2000,
        )  # fmt: skip
        assert value <= best.cost * (1 + 1e-9)
        assert np.sum(np.log(model.predict(theta[None])[0] / data.loss) ** 2) / 2 == pytest.approx(value)


def test_a_regression_is_ordinary_least_squares() -> None:
    generator = np.random.default_rng(0)
    x = generator.random(8)
    y = 1 + 2 * x + 0.1 * generator.standard_normal(8)
    found = joint._regress(np.column_stack([np.ones(8), x]), ["constant", "x"], y, 0.8)
    truth = linregress(x, y)
    t = student.ppf(0.9, 6)
    for name, value, error in (
        ("constant", truth.intercept, truth.intercept_stderr),
        ("x", truth.slope, truth.stderr),
    ):
        expected = {"value": value, "low": value - t * error, "high": value + t * error}
        assert found[name] == pytest.approx(expected)
    exact = joint._regress(np.column_stack([np.ones(2), x[:2]]), ["constant", "x"], y[:2], 0.8)
    assert exact["x"]["value"] == pytest.approx((y[1] - y[0]) / (x[1] - x[0]))
    assert np.isnan(exact["x"]["low"])


# ---- sensitivity and resources --------------------------------------------------------------------------------------


def test_sensitivity_refits_what_it_says(laws: Laws) -> None:
    frame, law = laws.points.of("btt"), laws.parametrics["btt"].fit.law
    n, d, y = (frame[name].to_numpy(float) for name in "NDL")
    rows = {row["change"]: row for row in sensitivity.sensitivity(laws)["btt"]}
    form = laws.parametrics["btt"].fit.form
    plain, head = Objective(), frame["macs_head"].to_numpy(float)
    inner = (frame["params_total"] - frame["params_embedding"] - frame["params_head"]).to_numpy(float)
    expected = {
        "delta = 0.01": parametric.fit(n, d, y, Objective(delta=0.01), form=form),
        "squares of log loss": parametric.fit(n, d, y, Objective("log_squares"), form=form),
        f"E pinned at {0.9 * law.E:.3g}": parametric.fit(n, d, y, plain, pinned=0.9 * law.E, form=form),
        f"E pinned at {1.1 * law.E:.3g}": parametric.fit(n, d, y, plain, pinned=1.1 * law.E, form=form),
        "E pinned at 0": parametric.fit(n, d, y, plain, pinned=0.0, form=form),
        "N = MACs without head": parametric.fit(n - head, d, y, plain, form=form),
        "N = parameters without embedding and head": parametric.fit(inner, d, y, plain, form=form),
    }
    for change, fitted in expected.items():
        for name in ("E", "alpha", "beta", "size_exponent", "compute_exponent"):
            assert rows[change][name] == pytest.approx(getattr(fitted.law, name), rel=2e-3, abs=1e-9), (change, name)
    # The run whose absence moves the size exponent most.
    exponents = {}
    for run_, part in frame.groupby("run"):
        rest = frame[frame["run"] != run_]
        fitted = parametric.fit(*(rest[name].to_numpy(float) for name in "NDL"), plain, form=form)
        exponents[f"without run {run_}"] = fitted.law.size_exponent
        assert len(part) < len(frame)
    worst = max(exponents, key=lambda change: abs(exponents[change] - law.size_exponent))
    assert rows[worst]["size_exponent"] == pytest.approx(exponents[worst], rel=1e-3)


def test_other_sizes_are_those_that_leave_something() -> None:
    frame = pd.DataFrame({"N": [9.0, 8.0], "macs_head": [9.0, 1.0], "macs_attention": [2.0, 4.0]}).assign(
        params_total=[7.0, 8.0], params_active=[7.0, 6.0], params_embedding=1.0, params_head=2.0
    )
    expected = {
        "N = parameters, all": [7.0, 8.0],
        "N = parameters, active": [7.0, 6.0],
        "N = parameters without embedding and head": [4.0, 5.0],
        "N = MACs, causal half of attention": [8.0, 6.0],  # all of the first model is its head
    }
    assert {name: n.tolist() for name, n in sensitivity._sizes(frame).items()} == expected
    assert "N = parameters, active" not in sensitivity._sizes(frame.assign(params_active=frame["params_total"]))
    assert sensitivity._sizes(frame[["N"]]) == {}


def test_means_of_multipliers_are_over_the_shared_losses(laws: Laws) -> None:
    """Means over equal steps of the baseline's log compute by trapezoids, from frontiers refitted as asked."""
    for options in (
        {},
        {"tolerance": 0.01},
        {"kind": "window"},
        {"offset": 0.0},
        {"flops": "macs_attention", "share": 0.5},
    ):
        fits = {}
        for variant in ("dense", "btt"):
            part, law = laws.points.of(variant), laws.frontiers[variant]
            c = part["C"].to_numpy() * (1 - options.get("share", 0) * part["macs_attention"] / part["N"]).to_numpy()
            tolerance = options.get("tolerance", law.tolerance)
            rows = hull.members(c, part["L"].to_numpy(), kind=options.get("kind", "hull"), tolerance=tolerance)
            fits[variant] = frontier.fit(c, part["L"].to_numpy(), rows, offset=options.get("offset"))
        x, base = fits["btt"], fits["dense"]
        last, first = (np.array([one.loss(one.span[k]) for one in (x, base)]) for k in (1, 0))
        low = max(x.losses[0], base.losses[0], 1.0001 * max(x.E, base.E), *last)
        ends = base.flops(np.array([min(x.losses[1], base.losses[1], *first), low]))
        flops = np.geomspace(*ends, 41)
        expected = np.trapezoid(flops / x.flops(base.loss(flops))) / 40
        assert sensitivity._means(laws, **options)["btt"] == pytest.approx(expected)


def test_flops_taken_off_are_of_the_convention() -> None:
    """A forward MAC is one FLOP in the papers' counting, six in that of training."""
    paper = laws_of_runs(own(run_noise=0.002), bootstrap=20, convention="paper")
    training = laws_of_runs(own(run_noise=0.002), bootstrap=20)
    change = {"flops": "macs_attention", "share": 0.5}
    for variant in ("dense", "btt"):
        one, six = (sensitivity._frontier(laws, variant, **change) for laws in (paper, training))
        assert one is not None
        assert six is not None
        assert six[1][0] == pytest.approx(6 * one[1][0])
        assert six[1][1] == pytest.approx(one[1][1])
        whole = paper.points.of(variant)["C"].to_numpy(float)
        assert one[1][0].max() < whole.max()


def test_a_resource_is_compared_where_all_of_it_is_known(laws: Laws) -> None:
    frame = laws.points.frame
    partly = frame.assign(seconds=frame["seconds"].where(frame.index != frame.index[-1]))
    of = replace(laws, points=replace(laws.points, frame=partly))
    last = str(frame["variant"].iloc[-1])
    assert last == "btt"
    assert resources.multipliers_of(of, "seconds") == {}
    assert set(resources.multipliers_of(laws, "seconds")) == {"btt"}
    assert resources.multipliers_of(laws, "flops") == {}
