"""The joint law finds what was planted, says how sure it is, and pools what the data do not tell apart."""

import numpy as np
import pytest

from structlin.search import jointly
from tests.search.planted import best, measured, pooled

FLOPS, TARGET = 1e17, 1e19


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


@pytest.mark.parametrize(("kind", "wide", "gamma"), [("pooled", 0.0, 1.0), ("own", 0.05, 1.0), ("powered", 0.0, 0.7)])
def test_without_noise_the_planted_order_and_exponents_come_back(kind: str, wide: float, gamma: float) -> None:
    log_a, log_b, alpha, beta = pooled(9, wide=wide)
    arms = (log_a / gamma, log_b / gamma, alpha / gamma, beta / gamma)
    joint = jointly.fit(measured(*arms, gamma=gamma, noise=5e-4), kind)
    truth = best(*arms, TARGET, gamma=gamma)
    assert np.std(centred(joint.log_loss(TARGET) - truth)) < 0.15 * np.std(truth)
    if kind == "own":
        assert np.corrcoef(joint.exponents()[:, 0], arms[2])[0, 1] > 0.8


def test_the_best_ratio_is_that_of_the_lowest_loss() -> None:
    arms = pooled(5)
    joint = jointly.fit(measured(*arms, noise=1e-4), "pooled")
    sizes = np.geomspace(1e5, 1e11, 20_001)
    for s, ratio in enumerate(joint.best_ratio(TARGET)):
        log_a, log_b, alpha, beta = (values[s] for values in arms)
        losses = np.exp(log_a - alpha * np.log(sizes)) + np.exp(log_b - beta * np.log(TARGET / 6 / sizes))
        best_size = sizes[np.argmin(losses)]
        assert ratio == pytest.approx(TARGET / 6 / best_size**2, rel=0.35)


def test_draws_are_as_wide_as_errors_are() -> None:
    """Over worlds, the spread of draws about the forecast is that of the forecast about the truth."""
    ratios = []
    for seed in range(12):
        arms = pooled(12, seed=seed)
        joint = jointly.fit(measured(*arms, luck=0.01, noise=0.003, seed=seed), "pooled")
        error = np.std(centred(joint.log_loss(TARGET) - best(*arms, TARGET)))
        draws = joint.draws(TARGET, 300, np.random.default_rng(seed)) - joint.log_loss(TARGET)
        ratios.append(error / np.sqrt(np.mean([np.var(centred(one)) for one in draws])))
    assert 0.7 < np.sqrt(np.mean(np.square(ratios))) < 1.4


def test_own_exponents_are_pooled_where_the_data_do_not_tell_them_apart() -> None:
    joint = jointly.fit(measured(*pooled(8), luck=0.01, noise=0.003), "own")
    assert np.std(np.log(joint.exponents()[:, 0])) < 0.03


def test_the_multiplier_is_the_compute_at_which_the_other_reaches_the_same_loss() -> None:
    arms = pooled(6, spread=0.2)
    joint = jointly.fit(measured(*arms, noise=1e-4), "pooled")
    found = jointly.multipliers(joint, 1, 0, TARGET, 0.0, 50, np.random.default_rng(0))
    computes = TARGET * np.geomspace(1e-2, 1e2, 401)
    curve = np.array([best(*(values[:1] for values in arms), one)[0] for one in computes])
    wanted = best(*(values[1:2] for values in arms), TARGET)[0]
    expected = np.exp(np.interp(-wanted, -curve, np.log(computes / TARGET)))
    assert np.median(found) == pytest.approx(expected, rel=0.1)
