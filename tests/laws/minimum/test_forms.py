"""Models: exact derivatives, and two coordinates of one law."""

import numpy as np
import pytest
from scipy.stats import norm

from structlin.laws import synthetic
from structlin.laws.approaches.parametric import ParametricLaw, powered_model
from structlin.laws.minimum.anchored import Axes
from structlin.laws.minimum.forms import AnchoredSum, Model, PoweredSum, SumOfPowers

LAW = ParametricLaw(1.8, 480.0, 2000.0, 0.35, 0.36)


def _models() -> list[tuple[Model, np.ndarray]]:
    generator = np.random.default_rng(0)
    axes = Axes.of(np.exp(generator.uniform(10, 14, 7)), np.exp(generator.uniform(12, 18, 7)))
    return [
        (axes.anchored(), np.array([[2.0, 0.5, 0.7, 1.3, 2.1], [1.5, 0.2, 0.1, 0.3, 4.0]])),
        (axes.powers(), np.array([[2.0, -0.5, 0.3, 0.3, 0.4], [1.0, 0.1, -1.0, 0.5, 0.2]])),
        (powered_model(axes), np.array([[2.0, -0.5, 0.3, 0.3, 0.4, 0.7], [1.0, 0.1, -1.0, 0.5, 0.2, 1.6]])),
    ]


@pytest.mark.parametrize(("model", "theta"), _models(), ids=["anchored", "powers", "powered"])
def test_derivatives_equal_finite_differences(model: AnchoredSum | SumOfPowers | PoweredSum, theta: np.ndarray) -> None:
    at = model.evaluate(theta)
    assert np.allclose(at.predicted, model.predict(theta), rtol=1e-13)
    weights = np.random.default_rng(1).normal(size=at.predicted.shape)
    curvature = model.curvature(at, weights)
    for k in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[k] = 1e-6
        up, down = model.evaluate(theta + step), model.evaluate(theta - step)
        assert np.allclose(at.jacobian[:, k], (up.predicted - down.predicted) / 2e-6, rtol=1e-6, atol=1e-8)
        slope = np.einsum("bpn,bn->bp", (up.jacobian - down.jacobian) / 2e-6, weights)
        assert np.allclose(curvature[:, k], slope, rtol=1e-5, atol=1e-7)


def test_anchored_and_plain_coordinates_are_one_law() -> None:
    generator = np.random.default_rng(2)
    axes = Axes.of(np.exp(generator.uniform(10, 14, 20)), np.exp(generator.uniform(12, 18, 20)))
    theta = np.array([[1.7, 0.2, -0.3, 0.31, 0.42]])
    anchored = axes.to_anchored(theta)
    assert np.allclose(axes.anchored().predict(anchored), axes.powers().predict(theta), rtol=1e-13)
    assert np.allclose(axes.from_anchored(anchored), theta, rtol=1e-10)


# ---- synthetic sweeps -----------------------------------------------------------------------------------------------


def test_synthetic_trunks_are_the_law_and_two_kinds_of_noise() -> None:
    table = synthetic.trunks(LAW, sizes=(1e6, 1e8), seeds=range(300), evaluations=5, run_noise=0.02, row_noise=0.005,
                             generator=np.random.default_rng(0))  # fmt: skip
    assert len(table) == 3000
    assert table.index.tolist() == list(range(3000))
    assert table["flops"].tolist() == pytest.approx((6 * table["params"] * table["tokens"]).tolist())
    ends = table.groupby("run")["flops"].agg(["min", "max"])
    assert (ends["min"].to_numpy(), ends["max"].to_numpy()) == (pytest.approx(1e16), pytest.approx(1e19))
    noise = np.log(table["loss"] / LAW.loss(table["params"], table["tokens"]))
    means = noise.groupby(table["run"]).mean()
    assert means.std() == pytest.approx(np.hypot(0.02, 0.005 / np.sqrt(5)), rel=0.1)
    assert (noise - means[table["run"]].to_numpy()).std() == pytest.approx(0.005 * np.sqrt(4 / 5), rel=0.1)
    exact = synthetic.trunks(LAW, run_noise=0, row_noise=0, generator=np.random.default_rng(0))
    assert exact["loss"].to_numpy() == pytest.approx(LAW.loss(exact["params"], exact["tokens"]))


def test_synthetic_grids_have_so_many_outliers() -> None:
    options = {"rows": 4000, "noise": 0.001, "generator": np.random.default_rng(0)}
    table = synthetic.grid(LAW, outliers=0.2, **options)
    off = np.log(table["loss"] / LAW.loss(table["params"], table["tokens"])) / 0.001
    # A fifth is ten times noisier: 0.8 + 0.2 x 100 in variance; three sigma leave out nearly no others.
    assert off.var() == pytest.approx(20.8, rel=0.1)
    assert (np.abs(off) > 3).mean() == pytest.approx(0.2 * 2 * norm.sf(0.3), rel=0.1)
    assert table["flops"].tolist() == pytest.approx((6 * table["params"] * table["tokens"]).tolist())
    assert table["params"].min() >= 5e7
    assert table["tokens"].min() >= 1e7
    usual = synthetic.grid(LAW, rows=4000, generator=np.random.default_rng(0))
    assert np.log(usual["loss"] / LAW.loss(usual["params"], usual["tokens"])).std() == pytest.approx(0.005, rel=0.05)
    plain = synthetic.grid(LAW, **options)
    assert np.abs(np.log(plain["loss"] / LAW.loss(plain["params"], plain["tokens"]))).max() < 0.006


def test_synthetic_isoflops_stand_about_their_optimum() -> None:
    table = synthetic.isoflop(LAW, budgets=(1e17, 1e18), ratios=(0.5, 1.0, 2.0), generator=np.random.default_rng(0))
    assert table["flops"].tolist() == [1e17] * 3 + [1e18] * 3
    assert table["flops"].tolist() == pytest.approx((6 * table["params"] * table["tokens"]).tolist())
    best = [float(LAW.optimum(budget)[0]) for budget in (1e17, 1e18)]
    assert table["params"].to_numpy() == pytest.approx(np.outer(best, [0.5, 1, 2]).ravel())
    assert table["loss"].to_numpy() == pytest.approx(LAW.loss(table["params"], table["tokens"]))
    assert table["run"].is_unique


def test_the_published_law() -> None:
    """arXiv 2404.10102, table 1."""
    law = synthetic.CHINCHILLA
    assert (law.E, law.A, law.B, law.alpha, law.beta, law.gamma) == (1.8172, 482.01, 2085.43, 0.3478, 0.3658, 1.0)
