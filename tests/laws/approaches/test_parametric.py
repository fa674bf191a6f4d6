"""Parametric fits: planted laws come back exactly, minima are certified, and no multi-start finds a lower one."""

import numpy as np
import pytest
from scipy.optimize import minimize

from structlin.laws import synthetic
from structlin.laws.approaches import parametric
from structlin.laws.approaches.parametric import ParametricLaw
from structlin.laws.minimum.objective import KINDS, Objective


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
