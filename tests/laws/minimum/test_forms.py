"""Models: exact derivatives, and two coordinates of one law."""

import numpy as np
import pytest

from structlin.laws.approaches.parametric import powered_model
from structlin.laws.minimum.anchored import Axes
from structlin.laws.minimum.forms import AnchoredSum, Model, PoweredSum, SumOfPowers


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
