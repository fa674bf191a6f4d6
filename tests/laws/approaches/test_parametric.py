"""Parametric fits: planted laws come back exactly, minima are certified, and no multi-start finds a lower one."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

from structlin.laws import synthetic
from structlin.laws.approaches import parametric
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.minimum.anchored import Axes, _dead_terms, _local_minima, project, solve
from structlin.laws.minimum.objective import KINDS, Objective
from structlin.laws.minimum.solver import Solution, _deltas, _free, _step


def _columns(**options: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = synthetic.grid(synthetic.CHINCHILLA, **options)  # type: ignore[arg-type]
    return tuple(table[name].to_numpy() for name in ("params", "tokens", "loss"))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_noise_free_law_comes_back(kind: str) -> None:
    size, tokens, loss = _columns(rows=60, noise=0.0, generator=np.random.default_rng(0))
    law = parametric.fit(size, tokens, loss, Objective(kind)).law
    truth = synthetic.CHINCHILLA
    for name in ("E", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(truth, name), rel=1e-5)
    assert pytest.approx(truth.A, rel=1e-3) == law.A
    assert pytest.approx(truth.B, rel=1e-3) == law.B


def test_certificate_of_a_noisy_fit() -> None:
    size, tokens, loss = _columns(rows=240, noise=0.01, outliers=0.05, generator=np.random.default_rng(1))
    fitted = parametric.fit(size, tokens, loss)
    assert fitted.converged
    assert fitted.gradient_norm < 1e-7
    assert min(fitted.bound_distance.values()) > 0.01
    assert fitted.objective == pytest.approx(Objective().total(fitted.law.loss(size, tokens), loss), rel=1e-9)
    assert 1 < fitted.condition < 1e5


def test_mean_or_sum_do_not_matter_but_delta_does() -> None:
    size, tokens, loss = _columns(rows=100, noise=0.02, outliers=0.2, generator=np.random.default_rng(2))
    one = parametric.fit(size, tokens, loss, weights=np.full(100, 0.01))
    assert one.law.alpha == pytest.approx(parametric.fit(size, tokens, loss).law.alpha, rel=1e-6)
    assert abs(parametric.fit(size, tokens, loss, Objective(delta=1.0)).law.alpha - one.law.alpha) > 1e-3


def test_pinned_floor_is_kept() -> None:
    size, tokens, loss = _columns(rows=80, noise=0.005, generator=np.random.default_rng(3))
    assert parametric.fit(size, tokens, loss, pinned=1.5).law.E == 1.5
    free = parametric.fit(size, tokens, loss)
    assert free.objective <= parametric.fit(size, tokens, loss, pinned=1.5).objective


def test_floor_never_goes_below_zero() -> None:
    law = ParametricLaw(0.0, 30.0, 50.0, 0.12, 0.1)
    table = synthetic.grid(law, rows=100, noise=0.02, generator=np.random.default_rng(4))
    fitted = parametric.fit(*(table[name].to_numpy() for name in ("params", "tokens", "loss")))
    assert fitted.law.E >= 0
    assert fitted.converged


def test_powered_form_comes_back() -> None:
    truth = ParametricLaw(1.5, 60.0, 90.0, 0.3, 0.28, 0.8)
    table = synthetic.grid(truth, rows=150, noise=0.0, generator=np.random.default_rng(5))
    columns = [table[name].to_numpy() for name in ("params", "tokens", "loss")]
    fitted = parametric.fit(*columns, Objective("log_squares"), form="powered")
    assert fitted.law.gamma == pytest.approx(0.8, rel=1e-3)
    assert pytest.approx(1.5, rel=1e-4) == fitted.law.E


def test_optimum_minimises_loss_at_a_budget() -> None:
    law = synthetic.CHINCHILLA
    size, tokens = law.optimum(1e21)
    assert 6 * size * tokens == pytest.approx(1e21)
    near = law.loss(size * np.array([0.99, 1.0, 1.01]), tokens / np.array([0.99, 1.0, 1.01]))
    assert near.argmin() == 1
    slope = np.diff(np.log(law.frontier(np.array([1e21, 1.001e21])) - law.E))[0] / np.log(1.001)
    assert slope == pytest.approx(-law.compute_exponent, rel=1e-6)


def test_refits_equal_fits_of_repeated_rows() -> None:
    size, tokens, loss = _columns(rows=60, noise=0.01, generator=np.random.default_rng(6))
    fitted = parametric.fit(size, tokens, loss)
    counts = np.random.default_rng(7).multinomial(60, np.full(60, 1 / 60), size=5)
    theta = parametric.refit(fitted, size, tokens, loss, Objective(), counts.astype(float))
    samples = parametric.samples_of(theta, fitted.centre)
    for k in range(5):
        rows = np.repeat(np.arange(60), counts[k])
        again = parametric.fit(size[rows], tokens[rows], loss[rows]).law
        assert samples["alpha"][k] == pytest.approx(again.alpha, rel=1e-4)


def random_problem(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, Objective]:
    """A law of random exponents whose terms matter, with noise, outliers and an objective of any kind."""
    alpha, beta = generator.uniform(0.1, 0.8, 2)
    centre_n, centre_d = np.log(5e7 * 1.6e10) / 2, np.log(1e20 / 6) - np.log(5e7 * 1.6e10) / 2
    law = ParametricLaw(
        generator.uniform(0, 3),
        generator.uniform(0.05, 1.5) * np.exp(alpha * centre_n),
        generator.uniform(0.05, 1.5) * np.exp(beta * centre_d),
        alpha,
        beta,
    )
    table = synthetic.grid(
        law,
        rows=int(generator.integers(12, 120)),
        noise=10 ** generator.uniform(-4, -1.5),
        outliers=float(generator.choice([0.0, 0.1, 0.3])),
        generator=generator,
    )
    objective = Objective(str(generator.choice(KINDS)), 10 ** generator.uniform(-4, -1.5))
    size, tokens, loss = (table[name].to_numpy() for name in ("params", "tokens", "loss"))
    return size, tokens, loss, objective


def multi_start(
    size: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    objective: Objective,
    starts: int,
    generator: np.random.Generator,
    *,
    method: str = "L-BFGS-B",
) -> float:
    """The lowest objective of scipy's L-BFGS-B, or of Nelder-Mead, from random starts."""
    x, y = np.log(size) - np.log(size).mean(), np.log(tokens) - np.log(tokens).mean()
    target = objective.target(loss)

    def value(p: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, floor = np.exp(p[1] - p[3] * x), np.exp(p[2] - p[4] * y), np.exp(p[0])
        predicted = floor + a + b
        residual = objective.residual(predicted, target)
        slope = objective.slope(residual) / (predicted if objective.logarithmic else 1.0)
        gradient = [
            slope.sum() * floor,
            (slope * a).sum(),
            (slope * b).sum(),
            -(slope * a * x).sum(),
            -(slope * b * y).sum(),
        ]
        return float(objective.value(residual).sum()), np.array(gradient)

    best = np.inf
    bounds = [(-25, 10), (-60, 60), (-60, 60), (1e-4, 10), (1e-4, 10)]
    for _ in range(starts):
        begin = [
            np.log(generator.uniform(0.05, 1) * loss.min()),
            *generator.uniform(-4, 1, 2),
            *generator.uniform(0.05, 1.5, 2),
        ]
        if method == "Nelder-Mead":
            rough: dict[str, float] = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-9, "fatol": 1e-15}
            found = minimize(lambda p: value(p)[0], begin, method=method, bounds=bounds, options=rough)
        else:
            options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-12}
            found = minimize(value, begin, jac=True, method=method, bounds=bounds, options=options)
        best = min(best, found.fun)
    return float(best)


def test_warm_fit_finds_the_same_minimum() -> None:
    """Under another delta, another floor or fewer rows: from the full fit and few starts, as from the whole grid."""
    generator = np.random.default_rng(11)
    for _ in range(20):
        size, tokens, loss, objective = random_problem(generator)
        near = parametric.fit(size, tokens, loss, objective)
        part = tokens * size < np.quantile(tokens * size, 0.8)
        changes = [
            (size, tokens, loss, objective.with_delta(10 * objective.delta), None),
            (size, tokens, loss, Objective("log_squares"), None),
            (size, tokens, loss, objective, 0.9 * near.law.E),
            (size[part], tokens[part], loss[part], objective, None),
        ]
        for n, d, y, how, pinned in changes:
            whole = parametric.fit(n, d, y, how, pinned=pinned).objective
            warm = parametric.fit(n, d, y, how, pinned=pinned, near=near).objective
            assert warm <= whole * (1 + 1e-4)


def test_no_multi_start_finds_a_lower_minimum() -> None:
    generator = np.random.default_rng(8)
    for _ in range(40):
        size, tokens, loss, objective = random_problem(generator)
        fitted = parametric.fit(size, tokens, loss, objective)
        assert fitted.objective <= multi_start(size, tokens, loss, objective, 8, generator) * (1 + 1e-6)


# ---- the grid of exponents ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [None, 0.4])
def test_the_projected_grid_is_non_negative_least_squares(pinned: float | None) -> None:
    """At every pair of exponents, against scipy's; the planted law has a vanished term in some of them."""
    generator = np.random.default_rng(0)
    n, d = np.exp(generator.uniform(10, 14, 25)), np.exp(generator.uniform(12, 18, 25))
    axes = Axes.of(n, d)
    x, y = axes.logs
    loss = 0.5 + np.exp(-0.3 * x) + 0.3 * np.exp(-0.5 * y) + 0.02 * generator.standard_normal(25)
    weights, grid = generator.random(25), np.array([0.05, 0.3, 0.6, 2.0])
    theta, sums = project(axes, loss, weights, pinned, grid)
    root, dead = np.sqrt(weights), 0
    for k, (alpha, beta) in enumerate(itertools.product(grid, grid)):
        terms = [np.ones(25), np.exp(-alpha * x), np.exp(-beta * y)][pinned is not None :]
        answer, norm = nnls(np.stack(terms, axis=1) * root[:, None], (loss - (pinned or 0.0)) * root)
        assert sums.ravel()[k] == pytest.approx(norm**2, rel=1e-6)
        floor, *log_terms, of_x, of_y = theta[k]
        assert (of_x, of_y) == (alpha, beta)
        assert floor == pytest.approx(answer[0] if pinned is None else pinned, rel=1e-5, abs=1e-9)
        assert np.exp(log_terms) == pytest.approx(answer[-2:], rel=1e-5, abs=1e-9)
        dead += (answer[-2:] == 0).any()
    assert 0 < dead < 16


@pytest.mark.parametrize("shape", [(9,), (5, 6)])
def test_local_minima_of_a_grid(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        surface = generator.integers(0, 6, shape).astype(float)
        surface[generator.random(shape) < 0.1] = np.inf
        expected = []
        for place in np.ndindex(shape):
            around = tuple(slice(max(i - 1, 0), i + 2) for i in place)
            if np.isfinite(surface[place]) and surface[place] <= surface[around].min():
                expected.append(int(np.ravel_multi_index(place, shape)))
        found = _local_minima(surface).tolist()
        assert sorted(found) == expected
        assert (np.diff(surface.ravel()[found]) >= 0).all()


def test_a_vanished_term_is_brought_back_small_at_other_exponents() -> None:
    axes = Axes.of(np.geomspace(1e6, 1e8, 9), np.geomspace(1e9, 1e10, 9))
    alive = np.array([[2.0, 0.1, -0.2, 0.3, 0.4]])
    assert _dead_terms(axes, solution(alive)).shape == (0, 5)
    for term, floor in ((1, 2.0), (2, 2.0), (2, 1e-5)):
        theta = alive.copy()
        theta[0, 0], theta[0, term] = floor, -40.0
        found = _dead_terms(axes, solution(np.concatenate([alive, theta]), np.array([1.0, 0.5])))
        assert len(found) == len(np.unique(found[:, term + 2])) > 5
        others = [k for k in range(5) if k not in (term, term + 2)]
        assert (found[:, others] == theta[0, others]).all()
        # At the smallest model, or the shortest run, where a term is largest: 1e-4 of the floor, or 1e-6.
        largest = np.exp(found[:, term] - found[:, term + 2] * axes.logs[term - 1].min())
        assert largest == pytest.approx(np.full(len(found), 1e-4 * max(floor, 1e-2)))


def solution(theta: np.ndarray, value: np.ndarray | None = None) -> Solution:
    """Ends of descents at theta (b, p)."""
    zeros = np.zeros(len(theta))
    return Solution(theta, zeros if value is None else value, zeros, zeros > 1, 1)


def test_a_batch_on_the_face_of_no_floor_equals_each_alone() -> None:
    """Some problems have their minimum at E = 0, others inside; each with its own weights and losses."""
    generator = np.random.default_rng(4)
    x = np.exp(generator.uniform(10, 14, 30))
    axes = Axes.of(x)
    floors = np.array([0.0, 0.3, 0.0, 1.0])
    loss = floors[:, None] + np.exp(-0.4 * axes.logs[0]) * np.exp(0.03 * generator.standard_normal((4, 30)))
    loss[[0, 2]] *= np.exp(-0.02 * axes.logs[0] ** 2)  # bends down: no floor fits
    weights = generator.random((4, 30))
    begin = np.repeat([[0.5, 0.0, 0.5]], 4, axis=0)
    objective = Objective("log_squares")
    whole = solve(axes, loss, objective, begin, weights=weights)
    assert (whole.theta[[0, 2], 0] == 0).all()
    assert (whole.theta[[1, 3], 0] > 0.1).all()
    for k in range(4):
        one = solve(axes, loss[k], objective, begin[:1], weights=weights[k : k + 1])
        assert whole.theta[k] == pytest.approx(one.theta[0], rel=1e-6)
        assert whole.value[k] == pytest.approx(one.value[0], rel=1e-9)
        pinned = solve(axes, loss[k], objective, begin[:1], weights=weights[k : k + 1], pinned=0.0)
        assert one.value[0] <= pinned.value[0] * (1 + 1e-9)
        assert whole.converged[k]


# ---- Newton's steps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theta", "gradient", "free"),
    [(0.0, 1.0, False), (0.0, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, True), (1.0, -1.0, False), (1.0, 1.0, True)],
)
def test_a_parameter_is_held_where_its_gradient_pushes_it_out(theta: float, gradient: float, free: bool) -> None:
    """Within [0, 1]: descent goes against the gradient."""
    found = _free(np.array([[theta]]), np.array([[gradient]]), np.zeros(1), np.ones(1))
    assert found.tolist() == [[free]]


def test_a_step_is_newtons_in_the_free_parameters() -> None:
    generator = np.random.default_rng(0)
    root = generator.standard_normal((5, 4, 4)) * np.array([1e-3, 1.0, 10.0, 1e3])
    matrix, gradient = np.swapaxes(root, 1, 2) @ root, generator.standard_normal((5, 4))
    free = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=bool)
    found = _step(gradient, matrix, free)
    for one, g, m, open_ in zip(found, gradient, matrix, free, strict=True):
        expected = np.zeros(4)
        expected[open_] = -np.linalg.solve(m[np.ix_(open_, open_)], g[open_])
        assert one == pytest.approx(expected, rel=1e-6)


def test_descents_take_few_steps_and_certify_themselves() -> None:
    """Quadratic convergence: a handful of steps without noise, each promise kept."""
    size, tokens, loss = _columns(rows=60, noise=0.01, generator=np.random.default_rng(6))
    axes = Axes.of(size, tokens)
    exact = parametric.fit(size, tokens, loss, Objective("log_squares"))
    begin = np.repeat(exact.theta[None, :5], 8, axis=0) * (1 + 0.1 * np.random.default_rng(0).standard_normal((8, 5)))
    found = solve(axes, loss, Objective("log_squares"), begin)
    assert found.converged.all()
    assert (found.gradient_norm <= 1e-13).all()
    assert found.value == pytest.approx(np.full(8, exact.objective), rel=1e-9)
    assert found.iterations <= 20


def test_a_wide_huber_loss_leads_into_a_narrow_one() -> None:
    """Widths fall by four to within twice the wanted one; squares have one stage."""
    stages = _deltas(Objective(delta=1e-3), 0.5, 1e-13)
    assert [width for width, _ in stages] == pytest.approx([0.5, 0.125, 0.03125, 0.0078125, 1e-3])
    assert [within for _, within in stages] == [1e-4] * 4 + [1e-13]
    assert _deltas(Objective(delta=1e-3), 1e-3, 1e-8) == [(1e-3, 1e-8)]
    assert len(_deltas(Objective("log_squares"), 0.5, 1e-8)) == 1


# ---- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flops_per_nd", [6.0, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_a_law_and_its_optimum_in_numbers(flops_per_nd: float, gamma: float) -> None:
    law = ParametricLaw(1.5, 60.0, 90.0, 0.3, 0.2, gamma)
    assert law.loss(1e6, 1e8) == pytest.approx(1.5 + (60 * 1e6**-0.3 + 90 * 1e8**-0.2) ** gamma)
    assert law.size_exponent == pytest.approx(0.4)
    assert law.compute_exponent == pytest.approx(gamma * 0.12)
    size, tokens = law.optimum(1e17, flops_per_nd)
    assert flops_per_nd * size * tokens == pytest.approx(1e17)
    # Stationary: both terms fall alike in a step along the budget.
    assert 0.3 * 60 * size**-0.3 == pytest.approx(0.2 * 90 * tokens**-0.2)
    assert law.frontier(1e17, flops_per_nd) == pytest.approx(law.loss(size, tokens))


def test_samples_name_what_theta_holds() -> None:
    centre = (2.0, 3.0)
    theta = np.array([[1.0, 0.1, 0.2, 0.3, 0.4], [1.5, -0.1, 0.5, 0.6, 0.2]])
    found = parametric.samples_of(theta, centre)
    assert found["E"].tolist() == [1.0, 1.5]
    assert np.log(found["A"]) == pytest.approx([0.1 + 0.3 * 2, -0.1 + 0.6 * 2])
    assert np.log(found["B"]) == pytest.approx([0.2 + 0.4 * 3, 0.5 + 0.2 * 3])
    assert found["size_exponent"] == pytest.approx([0.4 / 0.7, 0.2 / 0.8])
    assert found["compute_exponent"] == pytest.approx([0.12 / 0.7, 0.12 / 0.8])
    law = parametric.law_of(theta[1], centre)
    assert (law.E, law.A, law.B, law.alpha, law.beta, law.gamma) == pytest.approx(
        (1.5, found["A"][1], found["B"][1], 0.6, 0.2, 1.0)
    )
    assert parametric.law_of(np.append(theta[1], 0.7), centre, "powered").gamma == 0.7
    assert parametric.law_of(np.append(theta[1], 0.7), centre, "coupled").kappa == 0.7


def test_a_fit_reports_its_certificate() -> None:
    size, tokens, loss = _columns(rows=80, noise=0.01, generator=np.random.default_rng(3))
    weights = np.random.default_rng(0).random(80)
    fitted = parametric.fit(size, tokens, loss, Objective("log_squares"), weights=weights)
    x, y = np.log(size) - fitted.centre[0], np.log(tokens) - fitted.centre[1]
    floor, a, b, alpha, beta = fitted.theta
    left, right = np.exp(a - alpha * x), np.exp(b - beta * y)
    predicted = floor + left + right
    assert fitted.residuals == pytest.approx(np.log(predicted / loss))
    # d log L / d theta, rows weighted, columns of unit length.
    slopes = np.stack([np.ones(80), left, right, -x * left, -y * right], axis=1) / predicted[:, None]
    scaled = slopes * np.sqrt(weights)[:, None]
    scaled /= np.linalg.norm(scaled, axis=0)
    assert fitted.condition == pytest.approx(np.linalg.cond(scaled) ** 2, rel=1e-6)
    assert fitted.gradient_norm == pytest.approx(np.abs(slopes.T @ (weights * fitted.residuals)).max(), abs=1e-12)
    assert fitted.bound_distance == pytest.approx({"E": floor, "alpha": alpha - 1e-4, "beta": beta - 1e-4}, rel=1e-3)
    assert parametric._condition(np.array([[1.0, 0.0], [2.0, 0.0]]), np.ones(2)) == np.inf


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 1.0 + 1e-9, 2.0, 2.0 + 1e-9, 3.0, np.inf], (2.0, 3.0)),
        ([1.0], ()),
        ([0.0, 1e-16, 1e-3], (1e-3,)),
        ([1.0, 1.01, 1.02], (1.01, 1.02)),
    ],
)
def test_basins_are_distinct_objectives_above_the_best(values: list[float], expected: tuple[float, ...]) -> None:
    assert parametric._basins(np.array(values), values[0]) == expected


def test_a_start_of_the_powered_law_has_its_terms_to_the_root() -> None:
    theta = np.array([[1.5, -0.4, 0.3, 0.3, 0.2], [1.0, 0.1, -0.7, 0.5, 0.4]])
    moved = parametric._powered_starts(theta, 0.8)
    x = 1.7
    for before, after in zip(theta, moved, strict=True):
        assert (after[0], after[5]) == (before[0], 0.8)
        for term in (1, 2):
            value = np.exp(before[term] - before[term + 2] * x)
            assert np.exp(after[term] - after[term + 2] * x) ** 0.8 == pytest.approx(value)


def test_a_law_is_the_same_about_another_centre() -> None:
    size, tokens, loss = _columns(rows=60, noise=0.01, generator=np.random.default_rng(6))
    fitted = parametric.fit(size, tokens, loss)
    axes = Axes.of(size[:20] * 3, tokens[:20] / 7)
    again = parametric.law_of(parametric._recentred(fitted, axes), (axes.centre[0], axes.centre[1]))
    assert vars(again) == pytest.approx(vars(fitted.law))
