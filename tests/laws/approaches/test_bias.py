"""Sweeps drawn from L(N, D): what is drawn, and that their frontiers and optima are read as those of the data are."""

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from structlin.laws import synthetic
from structlin.laws.approaches import bias, frontier, hull, isoflop, parametric
from structlin.laws.approaches.bias import Sweeps
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.choices import Choices
from structlin.laws.minimum.objective import Objective
from structlin.laws.sampling.bootstrap import Draws
from tests.laws.tables import DENSE

CHOICES = Choices(source="table", table="memory.csv")


def sweep(sizes: int, evaluations: int, seed: int = 0, law: ParametricLaw = DENSE) -> pd.DataFrame:
    """Trunks as the fits see them."""
    table = synthetic.trunks(
        law, sizes=np.geomspace(1e6, 2.56e8, sizes).tolist(), evaluations=evaluations, run_noise=0.005, row_noise=0.002,
        generator=np.random.default_rng(seed),
    )  # fmt: skip
    return table.rename(columns={"params": "N", "tokens": "D", "flops": "C", "loss": "L"})


def drawn(frame: pd.DataFrame, form: str = "additive", **options: object) -> tuple[Sweeps | None, Draws]:
    """Sweeps like the frame, from its law of a form."""
    runs, index = np.unique(frame["run"], return_inverse=True)
    draws = Draws(tuple(runs), np.ones((1, len(runs))), index)
    found = parametric.fit(*(frame[name].to_numpy() for name in "NDL"), form=form)
    return bias.draw_sweeps(frame, found, draws, CHOICES, **options), draws  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("runs", "rows", "most", "expected"), [(6, 12, 200, 200), (6, 12, 40, 40), (170, 12, 200, 147), (260, 12, 200, 100)]
)
def test_many_rows_get_fewer_sweeps(runs: int, rows: int, most: int, expected: int) -> None:
    """300,000 rows in all, 100 to 200 sweeps, or as few as are asked for."""
    sweeps, _ = drawn(sweep(runs, rows), most=most)
    assert sweeps is not None
    assert sweeps.stretch.shape == (expected,)
    assert sweeps.log_loss.shape == (2 * expected + 1, runs * rows)


def test_rows_keep_their_residual_and_lose_their_sign() -> None:
    """Two rows of a run differ by the sum or the difference of their residuals, each as often and by itself."""
    frame = sweep(6, 10)
    sweeps, draws = drawn(frame)
    assert sweeps is not None
    s = len(sweeps.stretch)
    residual = np.log(frame["L"].to_numpy()) - sweeps.log_loss[-1]
    means = np.bincount(draws.index, weights=residual) / 10
    own = (residual - means[draws.index]) * np.sqrt(60 / (60 - 6))
    off = sweeps.log_loss[:s] - sweeps.log_loss[-1]
    first, second = np.arange(0, 60, 2), np.arange(1, 60, 2)
    apart, pair = off[:, first] - off[:, second], (own[first], own[second])
    signs = [np.isclose(apart, a * pair[0] - b * pair[1], atol=1e-12) for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    assert np.sum(signs, axis=0).min() >= 1
    assert np.mean(signs, axis=(1, 2)) == pytest.approx([0.25] * 4, abs=0.03)


def test_many_runs_have_the_luck_that_was_seen() -> None:
    """From 16 runs on residuals are resampled, with their signs, on runs - 3 degrees of freedom; fewer are normal."""
    for runs, seen in ((16, True), (15, False)):
        frame = sweep(runs, 12)
        sweeps, draws = drawn(frame)
        assert sweeps is not None
        s = len(sweeps.stretch)
        off = np.log(frame["L"].to_numpy()) - sweeps.log_loss[-1]
        luck = np.bincount(draws.index, weights=off) / 12
        scaled = (luck - np.median(luck)) * np.sqrt(runs / (runs - 3))
        own = (off - luck[draws.index]) * np.sqrt(12 * runs / (11 * runs))
        moves = sweeps.log_loss[:s] - sweeps.log_loss[-1]
        # Whatever the sign of its residual: of the first row of each run.
        first = np.unique(draws.index, return_index=True)[1]
        either = np.stack([moves[:, first] - own[first], moves[:, first] + own[first]])
        hit = np.abs(either[..., None] - scaled).min(axis=(0, 3)) < 1e-12
        assert hit.all() == seen


def test_finished_runs_leave_five_degrees_to_their_law() -> None:
    """A run of one row tells L(N, D) all of its numbers: luck is on runs - 5 degrees of freedom, and rows have none."""
    table = synthetic.isoflop(DENSE, noise=0.003, generator=np.random.default_rng(0))
    frame = table.rename(columns={"params": "N", "tokens": "D", "flops": "C", "loss": "L"})
    sweeps, _ = drawn(frame)
    assert sweeps is not None
    luck = np.log(frame["L"].to_numpy()) - sweeps.log_loss[-1]
    scaled = (luck - np.median(luck)) * np.sqrt(25 / 20)
    moves = sweeps.log_loss[: len(sweeps.stretch)] - sweeps.log_loss[-1]
    assert np.abs(moves[:, :, None] - scaled).min(axis=2).max() < 1e-12


def test_a_coupled_law_is_drawn_from_in_any_count_of_flops() -> None:
    law = ParametricLaw(DENSE.E, DENSE.A, 300.0, DENSE.alpha, DENSE.beta, kappa=0.1)
    frame = sweep(8, 12, law=law).assign(C=lambda t: 6.0 * t["N"] ** 0.9 * t["D"] ** 1.1)
    sweeps, _ = drawn(frame, "coupled")
    assert sweeps is not None
    s, size, tokens = len(sweeps.stretch), frame["N"].to_numpy(), frame["D"].to_numpy()
    assert sweeps.powers == pytest.approx((0.9, 1.1))
    assert np.log(sweeps.laws.loss(size**0.9, tokens**1.1)) == pytest.approx(sweeps.log_loss[s:], rel=1e-9)
    around = np.exp(sweeps.optima(np.array([1e17]))[-1, 0]) * np.geomspace(1 / 1.1, 1.1, 21)
    losses = parametric.fit(size, tokens, np.exp(sweeps.log_loss[-1]), form="coupled").law.loss(
        around, (1e17 / (6 * around**0.9)) ** (1 / 1.1)
    )
    assert np.argmin(losses) == 10


def test_the_law_that_is_drawn_from_weighs_rows_by_the_noise_of_their_run() -> None:
    """A robust fit by its inverse, squares by the inverse of its square."""
    scales, frame = np.array([3.0, 2.0, 1.0, 0.7, 0.5, 0.3]), sweep(6, 12)
    columns, runs = [frame[name].to_numpy() for name in "NDL"], np.unique(frame["run"], return_inverse=True)[1]
    for objective, power in (("log_huber", -1.0), ("log_squares", -2.0)):
        choices = replace(CHOICES, objective=objective)
        names = tuple(np.unique(frame["run"]))
        draws = Draws(names, np.ones((1, 6)), runs)
        found = parametric.fit(*columns, choices.loss_function)
        sweeps = bias.draw_sweeps(frame, found, draws, choices, scales=scales)
        assert sweeps is not None
        again = parametric.fit(*columns, choices.loss_function, weights=scales[runs] ** power)
        assert np.exp(sweeps.log_loss[-1]) == pytest.approx(again.law.loss(*columns[:2]), rel=1e-4)


def test_noise_of_each_run_scales_its_luck() -> None:
    scales = np.array([3.0, 2.0, 1.0, 0.7, 0.5, 0.3])
    sweeps, draws = drawn(sweep(6, 12), scales=scales)
    assert sweeps is not None
    s = len(sweeps.stretch)
    moves = np.stack([row[draws.index == k] for row in (sweeps.log_loss[:s] - sweeps.log_loss[-1]) for k in range(6)])
    spread = moves.reshape(s, 6, 12).mean(axis=2).std(axis=0)
    assert spread / spread[2] == pytest.approx(scales, rel=0.25)


@pytest.mark.parametrize(
    ("bad", "left"), [([-1], None), ([0], 199), ([0, 1, 5], 197), (range(110), None), (range(90), 110)]
)
def test_a_refit_that_does_not_fall_is_left_out(
    bad: list[int], left: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None where it is the law itself, or more than half of the sweeps."""

    def falls(laws: ParametricLaw, flops: np.ndarray, kappa: float) -> np.ndarray:
        good = np.ones(len(np.ravel(laws.E)), bool)
        good[list(bad)] = False
        return good

    frame = sweep(6, 12)
    whole, _ = drawn(frame)
    monkeypatch.setattr(bias, "_falls", falls)
    sweeps, _ = drawn(frame)
    assert (sweeps is None) == (left is None)
    if sweeps is None or whole is None:
        return
    kept = np.setdiff1d(np.arange(200), list(bad))
    assert sweeps.stretch == pytest.approx(whole.stretch[kept])
    assert sweeps.log_loss[:left] == pytest.approx(whole.log_loss[kept])
    assert sweeps.log_loss[left:-1] == pytest.approx(whole.log_loss[200:-1][kept])


def test_a_law_falls_where_its_frontier_does() -> None:
    laws = ParametricLaw(*(np.array([[value], [value]]) for value in (1.8, 480.0, 2000.0, 0.35, 0.37, 1.0, 0.0)))
    flops = np.array([1e18, 1e16, 1e17])
    assert bias._falls(laws, flops, 6.0).tolist() == [True, True]
    level = replace(laws, A=np.array([[480.0], [0.0]]), B=np.array([[2000.0], [0.0]]))
    assert bias._falls(level, flops, 6.0).tolist() == [True, False]
    rising = replace(laws, alpha=np.array([[-0.35], [0.35]]), beta=np.array([[-0.37], [0.37]]))
    assert bias._falls(rising, flops, 6.0).tolist() == [False, True]


def first(sweeps: Sweeps, count: int) -> Sweeps:
    """The first sweeps of all, with their refits and the law."""
    s = len(sweeps.stretch)
    rows = [*range(count), s]
    laws = ParametricLaw(*(getattr(sweeps.laws, field.name)[rows] for field in fields(ParametricLaw)))
    kept = np.concatenate([sweeps.log_loss[:count], sweeps.log_loss[s : s + count], sweeps.log_loss[-1:]])
    return Sweeps(laws, sweeps.kappa, sweeps.powers, kept, sweeps.stretch[:count])


def test_errors_of_frontiers_are_those_of_a_hull_and_a_fit_each() -> None:
    frame = sweep(8, 20)
    sweeps, _ = drawn(frame)
    assert sweeps is not None
    few = first(sweeps, 5)
    flops, size, loss = (frame[name].to_numpy() for name in "CNL")
    law = frontier.fit(flops, loss, hull.members(flops, loss, tolerance=0.004), tolerance=0.004)
    found = bias.frontier_errors(law, flops, size, few, CHOICES)
    thetas, growths = [], []
    for one in np.exp(few.log_loss):
        rows = hull.members(flops, one, tolerance=0.004)
        again = frontier.fit(flops, one, rows)
        thetas.append([again.E, np.log(again.A) - again.a * law.centre, again.a])
        growths.append(np.polyfit(np.log(flops[rows]), np.log(size[rows]), 1)[0])
    laws = few.laws
    slope = np.ravel(laws.compute_exponent)
    constant = np.log(np.ravel(laws.frontier(1e18, few.kappa)) - np.ravel(laws.E)) + slope * (np.log(1e18) - law.centre)
    truth = np.column_stack([np.ravel(laws.E), constant, slope])
    assert found.errors == pytest.approx(few.errors(np.array(thetas), truth), abs=2e-4)
    assert found.size_errors == pytest.approx(few.errors(np.array(growths), np.ravel(laws.size_exponent)), abs=1e-9)
    assert found.ideal is not None
    assert found.ideal[0] == pytest.approx(np.array(thetas)[-1], abs=2e-4)
    assert found.ideal[1] == pytest.approx(truth[-1])


def test_true_frontiers_with_a_pinned_floor_are_best_fits_to_the_curve() -> None:
    frame = sweep(6, 12)
    sweeps, _ = drawn(frame)
    assert sweeps is not None
    few, flops, loss = first(sweeps, 2), frame["C"].to_numpy(), frame["L"].to_numpy()
    law = frontier.fit(flops, loss, hull.members(flops, loss, tolerance=0.004), offset=1.5)
    found = bias._true_frontiers(law, few, 1.5)
    curve = np.geomspace(*law.span, 41)
    for theta, best in zip(found, few.laws.frontier(curve, few.kappa), strict=True):
        again = frontier.fit(curve, best, np.arange(41), offset=1.5)
        assert theta == pytest.approx([1.5, np.log(again.A) - again.a * law.centre, again.a], rel=1e-4)


def test_splines_have_no_optimum_at_their_first_and_last_size() -> None:
    frame = sweep(7, 30).assign(variant="x", width=1.0, pair=lambda t: t["run"])
    _, draws = drawn(frame)
    (one, *_) = isoflop.fit(frame, draws, [1e17]).slices
    x = np.log(one.size)
    losses = np.stack([np.abs(x - x[k]) ** 1.5 for k in range(len(x))] + [(x - x.mean() - 0.2) ** 2])
    found = bias._akima_optima(one, losses)
    assert np.isnan(found[[0, len(x) - 1]]).all()
    # A spline's lowest point is near its lowest knot; on a grid of a hundred steps.
    assert found[1:-2] == pytest.approx(x[1:-1], abs=0.1)
    fine = np.linspace(x[0], x[-1], 101)
    for loss, lowest in zip(losses[1:-2], found[1:-2], strict=True):
        assert lowest == fine[np.argmin(isoflop.akima_curve(x, loss[None], fine)[0])]


TRUTH = ParametricLaw(1.8, 480.0, 2000.0, 0.35, 0.37)
_COLUMNS = ParametricLaw(*(np.array([[getattr(TRUTH, field.name)]]) for field in fields(ParametricLaw)))  # type: ignore[arg-type]
# A hull that falls more slowly than L(N, D), from the same loss in the middle of the data on.
_FLOPS = np.geomspace(1e16, 1e18, 20)
_TEN = 1e19
HULL = frontier.fit(
    _FLOPS, 1.8 + (TRUTH.frontier(1e17) - 1.8) * (_FLOPS / 1e17) ** (-0.7 * TRUTH.compute_exponent), np.arange(20)
)
EXPONENTS = HULL.a, TRUTH.compute_exponent
LOSSES = float(TRUTH.frontier(_TEN)), float(HULL.loss(_TEN))


def judged(a: float, loss: float) -> str:
    """What is said of a correction that puts the exponent at a and the loss at ten times the data at ``loss``."""
    sweeps = Sweeps(_COLUMNS, 6.0, (1.0, 1.0), np.empty((1, 0)), np.empty(0))
    constant = HULL.theta[1]
    # E moves the loss there, at any exponent.
    floor = loss - np.exp(constant - a * (np.log(_TEN) - HULL.centre))
    return bias.implausible(replace(HULL, errors=np.tile(HULL.theta - [floor, constant, a], (3, 1))), sweeps)


def test_a_correction_between_hull_and_law_is_believed_and_none_beyond() -> None:
    low, high = EXPONENTS
    assert low == pytest.approx(0.7 * high, rel=1e-3)
    for a in (low / 1.45, low, high, high * 1.45):
        for loss in (LOSSES[0] * 0.9955, LOSSES[0], LOSSES[1], LOSSES[1] * 1.0045):
            assert judged(a, loss) == ""
    for a in (low / 1.55, high * 1.55):
        assert f"a would be {a:.3g}" in judged(a, LOSSES[0])
    for loss in (LOSSES[0] * 0.9945, LOSSES[1] * 1.0055):
        assert f"says {loss:.4g}" in judged(high, loss)


def test_what_hull_and_correction_foretold_is_their_mean_error_above_the_cut() -> None:
    """Without noise the correction knows what gaps between sizes do, and foretells better than the hull."""
    frame = sweep(6, 25).assign(L=lambda t: DENSE.loss(t["N"], t["D"]) * np.exp(1e-5 * np.sin(np.arange(len(t)))))
    flops, loss = frame["C"].to_numpy(), frame["L"].to_numpy()
    law = frontier.fit(flops, loss, hull.members(flops, loss), tolerance=0.002)
    cut = 1e18
    past = frame[frame["C"] <= cut]
    early = parametric.fit(*(past[name].to_numpy() for name in "NDL"), Objective())
    found = bias.foretold(law, frame, early, cut, CHOICES)
    assert found is not None
    c, y = past["C"].to_numpy(), past["L"].to_numpy()
    plain = frontier.fit(c, y, hull.members(c, y), tolerance=0.002)
    above = law.members[flops[law.members] > cut]
    assert found[0] == pytest.approx(np.mean(np.abs(np.log(plain.loss(flops[above]) / loss[above]))))
    # What is left is the hull of the future, which lies above the true frontier as the past's did.
    offset = np.mean(np.log(loss[above] / DENSE.frontier(flops[above])))
    assert found[1] == pytest.approx(offset, rel=0.25)
    assert bias.foretold(law, frame, early, 2e19, CHOICES) is None
    assert bias.foretold(law, frame, early, 1e16, CHOICES) is None
