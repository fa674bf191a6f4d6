"""Joint laws, agreement, backtest, sensitivity, resources and design: each recovers what was planted."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from structlin.errors import UserError
from structlin.laws import (
    agreement,
    backtest,
    charts,
    design,
    figures,
    isoflop,
    joint,
    record,
    resources,
    run,
    sensitivity,
    synthetic,
)
from structlin.laws.choices import Choices
from structlin.laws.fit import Laws
from structlin.laws.parametric import ParametricLaw
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
    assert rows["tolerance 0.01"] == pytest.approx(base, rel=0.1)


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
    laws.more["design"] = design.pilots(laws)
    return design.pilot_of(record.plain(record.record(laws)), "btt")


def test_expected_interval_is_what_refits_give() -> None:
    """The half-width from Fisher information against the spread of least squares over fresh sweeps."""
    pilot = design.Pilot(DENSE, np.zeros((5, 5)), (np.log(1.6e7), np.log(1e9)), 0.003, 0.001, 6.0)
    size = np.repeat(np.geomspace(1e6, 2.56e8, 12), 1)
    tokens = 1e19 / (6 * size)
    foreseen = design.expected(pilot, size.tolist(), tokens.tolist(), evaluations=10)["beta"]
    from structlin.laws import parametric
    from structlin.laws.objective import Objective

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


def test_figures_embed_truetype_and_repeat_to_the_byte(tmp_path) -> None:
    laws = laws_of(two(), bootstrap=40)
    found = record.plain(record.record(laws))
    first, second = (figures.write(laws, found, tmp_path / name) for name in ("one", "two"))
    papers = [(a, b) for a, b in zip(first, second, strict=True) if a.suffix == ".pdf"]
    assert len(papers) == 3
    for a, b in papers:
        data = a.read_bytes()
        assert data == b.read_bytes()
        assert b"/CIDFontType2" in data
        assert b"/Type3" not in data


def test_ticks_of_compute_are_short() -> None:
    assert [figures.power_label(v) for v in (2e18, 1e-5, 500.0, 5e10)] == ["2e18", "1e-5", "500", "5e10"]


# ---- pictures -------------------------------------------------------------------------------------------------------


def points_of(line: Line2D) -> np.ndarray:
    """What a line of a figure goes through, (n, 2)."""
    return np.column_stack([line.get_xdata(), line.get_ydata()])


def inches(axes: Axes) -> tuple[float, ...]:
    """Room left, below, right and above of axes."""
    width, height = axes.figure.get_size_inches()
    box = axes.get_position()
    return box.x0 * width, box.y0 * height, (1 - box.x1) * width, (1 - box.y1) * height


def test_a_figure_of_a_frontier_shows_runs_hulls_and_laws(laws: Laws) -> None:
    (axes,) = figures.draw_frontier(laws, {}).axes
    assert tuple(axes.figure.get_size_inches()) == (5.5, 3.8)
    assert inches(axes) == pytest.approx((0.55, 0.5, 0.1, 0.3))
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert len(axes.lines) == 6
    for k, variant in enumerate(("dense", "btt")):
        law, frame = laws.frontiers[variant], laws.points.of(variant)
        faint = axes.collections[k].get_segments()
        runs = laws.points.runs_of(variant, 150)
        assert len(faint) == len(runs) == 10
        for segment, (_, c, y) in zip(faint, runs, strict=True):
            assert segment == pytest.approx(np.column_stack([c, y]))
        dots, solid, dashed = axes.lines[3 * k : 3 * k + 3]
        assert not len(points_of(dots))
        assert points_of(solid) == pytest.approx(frame[["C", "L"]].to_numpy()[law.members])
        assert solid.get_label() == variant
        c, y = points_of(dashed).T
        assert y == pytest.approx(law.loss(c))
        assert (c[0], c[-1]) == pytest.approx((law.span[0] / 1.3, law.span[1] * 3))


def test_finished_runs_are_dots_of_a_figure() -> None:
    table = synthetic.isoflop(DENSE, generator=np.random.default_rng(2))
    laws = laws_of(table, bootstrap=40)
    (axes,) = figures.draw_frontier(laws, {}).axes
    assert not axes.collections[0].get_segments()
    dots = points_of(axes.lines[0])
    expected = laws.points.frame[["C", "L"]].to_numpy()
    assert sorted(map(tuple, dots)) == sorted(map(tuple, expected))
    chart = charts.frontier(laws)
    runs = chart["series"][0]
    assert runs["label"] == "dense: runs"
    shown = np.array(sorted(zip(runs["x"], runs["y"], strict=True)))
    assert shown == pytest.approx(np.array(sorted(map(tuple, expected))), rel=1e-5)
    assert runs["x"] == sorted(runs["x"])


def test_a_figure_of_multipliers_shows_curves_bands_and_one(laws: Laws) -> None:
    (axes,) = figures.draw_multipliers(laws, {}).axes
    level, curve = axes.lines
    m = laws.multipliers["btt"]
    assert set(points_of(level)[:, 1]) == {1.0}
    assert points_of(curve) == pytest.approx(np.column_stack([m.flops, m.value]))
    corners = {tuple(corner) for corner in axes.collections[0].get_paths()[0].vertices.tolist()}
    assert {*zip(m.flops, m.low, strict=True), *zip(m.flops, m.high, strict=True)} <= corners
    assert axes.get_xscale() == "log"
    assert axes.xaxis.get_major_formatter()(2e18) == "2e18"


@pytest.fixture(scope="module")
def many_budgets() -> Laws:
    return laws_of_runs(own(run_noise=0.002), bootstrap=40, budgets=tuple(np.geomspace(2e16, 4e18, 10).tolist()))


def vertex_of(s: isoflop.Slice) -> tuple[float, float]:
    """N and loss at the lowest point of the parabola of a slice."""
    constant, slope, curvature = s.parabola
    return float(np.exp(np.log(s.size).mean() - slope / (2 * curvature))), constant - slope**2 / (4 * curvature)


def test_a_figure_of_isoflops_has_a_panel_a_variant_and_few_budgets(many_budgets: Laws) -> None:
    figure = figures.draw_isoflop(many_budgets, {})
    assert tuple(figure.get_size_inches()) == pytest.approx((6.0, 3.2))
    assert inches(figure.axes[0])[:2] == pytest.approx((0.55, 0.5))
    for axes, variant in zip(figure.axes, ("dense", "btt"), strict=True):
        lines = list(axes.lines)
        slices = many_budgets.isoflops[variant].slices
        assert len(slices) == 10
        for s in slices[::2]:
            assert points_of(lines.pop(0)) == pytest.approx(np.column_stack([s.size, s.loss]))
            x, y = points_of(lines.pop(0)).T
            assert (x[0], x[-1]) == pytest.approx((s.size[0], s.size[-1]))
            assert y == pytest.approx(np.polynomial.Polynomial(s.parabola)(np.log(x) - np.log(s.size).mean()))
            if s.edge is None and np.isfinite(s.optimum):
                assert points_of(lines.pop(0))[0] == pytest.approx(vertex_of(s))
        assert not lines
        assert axes.get_title() == variant


@pytest.mark.parametrize(
    ("width", "limits", "expected"),
    [
        (5.5, (1e15, 1e18), [f"{part}e{decade}" for decade in (15, 16, 17) for part in (1, 2, 5)] + ["1e18"]),
        (5.5, (1.5e15, 6e16), ["2e15", "5e15", "1e16", "2e16", "5e16"]),
        (5.5, (1e15, 1e20), [f"1e{decade}" for decade in range(15, 21)]),
        (5.5, (1e4, 1e29), [f"1e{decade}" for decade in range(6, 30, 3)]),
        (1.2, (1e15, 1e18), ["1e16", "1e18"]),
    ],
)
def test_ticks_of_compute_have_room(width: float, limits: tuple[float, float], expected: list[str]) -> None:
    figure, (axes,) = figures._new(width, 3.0)
    axes.set(xscale="log", xlim=limits)
    figures._sparse_decades(axes)
    ticks = axes.xaxis.get_major_locator()()
    assert [axes.xaxis.get_major_formatter()(tick) for tick in ticks] == expected
    assert figure.axes == [axes]


def test_legends_have_an_order_and_marks_tell_apart() -> None:
    names = ["moe-ffn-btt", "btt11", "dense/paper", "btt3", "low_rank", "dense", "btt3/paper"]
    in_order = ["dense", "dense/paper", "btt3", "btt3/paper", "btt11", "low_rank", "moe-ffn-btt"]
    assert figures.ordered(names) == in_order
    many = [*names, *(f"g{k}" for k in range(42))]
    marks = {(figures.colour(many, name), figures.marker(many, name)) for name in many if "dense" not in name}
    assert len(marks) == 47
    assert {(figures.colour(many, name), figures.marker(many, name)) for name in ("dense", "dense/paper")} == {
        ("#000000", "^")
    }


def test_charts_of_the_page_show_what_the_figures_show(laws: Laws) -> None:
    chart = charts.frontier(laws)
    assert chart["x"]["log"]
    assert chart["y"]["log"]
    series = iter(chart["series"])
    for variant in ("dense", "btt"):
        law, frame = laws.frontiers[variant], laws.points.of(variant)
        for name, c, y in laws.points.runs_of(variant, 60):
            one = next(series)
            assert (one["label"], one["variant"], one["style"]) == (name, variant, "faint")
            assert (one["x"], one["y"]) == (pytest.approx(c.tolist(), rel=1e-5), pytest.approx(y.tolist(), rel=1e-5))
        points, dashed = next(series), next(series)
        assert points["y"] == pytest.approx(frame["L"].to_numpy()[law.members].tolist(), rel=1e-5)
        assert dashed["y"] == pytest.approx(law.loss(np.array(dashed["x"])).tolist(), rel=1e-4)
        ends = (law.span[0] / 1.5, law.span[1] * 4)
        assert (dashed["x"][0], dashed["x"][-1]) == pytest.approx(ends, rel=1e-5)
    assert next(series, None) is None
    (band,) = charts.multipliers(laws)["series"]
    m = laws.multipliers["btt"]
    for name, values in (("x", m.flops), ("y", m.value), ("low", m.low), ("high", m.high)):
        assert band[name] == pytest.approx(values.tolist(), rel=1e-5)


def test_long_runs_are_thinned_to_their_ends_in_a_chart() -> None:
    laws = laws_of(two(evaluations=90), bootstrap=40)
    whole = laws.points.runs_of("dense", 60)
    for one, (name, c, y) in zip(charts.frontier(laws)["series"], whole, strict=False):
        assert one["label"] == name
        assert len(one["x"]) == 40
        assert (one["x"][0], one["x"][-1]) == pytest.approx((c[0], c[-1]), rel=1e-5)
        assert (one["y"][0], one["y"][-1]) == pytest.approx((y[0], y[-1]), rel=1e-5)


def test_charts_of_isoflops_and_residuals(many_budgets: Laws) -> None:
    found = charts.isoflops(many_budgets)
    assert [chart["id"] for chart in found] == ["isoflop-0", "isoflop-1"]
    for chart, (variant, of) in zip(found, many_budgets.isoflops.items(), strict=True):
        assert chart["x"]["log"]
        assert not chart["y"]["log"]
        assert variant in chart["title"]
        series = chart["series"]
        assert len(series) == 10
        assert (series[0]["colour"], series[-1]["colour"]) == ("#440154", "#bec81e")
        for points, line, s in zip(series[::2], series[1::2], of.slices[::2], strict=True):
            assert points["x"] == pytest.approx(s.size.tolist(), rel=1e-5)
            assert points["y"] == pytest.approx(s.loss.tolist(), rel=1e-5)
            assert (line["x"][0], line["x"][-1]) == pytest.approx((s.size[0], s.size[-1]), rel=1e-5)
            at = np.log(np.array(line["x"])) - np.log(s.size).mean()
            assert line["y"] == pytest.approx(np.polynomial.Polynomial(s.parabola)(at).tolist(), rel=1e-4)
    for one, variant in zip(charts.residuals(many_budgets)["series"], ("dense", "btt"), strict=True):
        frame, law = many_budgets.points.of(variant), many_budgets.parametrics[variant].fit.law
        assert one["x"] == sorted(one["x"])
        off = 100 * np.log(law.loss(frame["N"], frame["D"]) / frame["L"])
        assert sorted(one["y"]) == pytest.approx(sorted(off), rel=1e-4, abs=1e-9)


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
