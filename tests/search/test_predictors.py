"""The predictor that foretells is taken, probabilities are those of the draws, and an answer is the same each time."""

import numpy as np
import pytest

from structlin.search import predictors
from structlin.search.measurements import Measured
from structlin.search.predictors import Score, best_of, forecast
from tests.search.planted import best, measured, pooled

FLOPS, ETA = 1e17, 3.0
TARGET = 100 * FLOPS


def test_crossing_frontiers_are_foretold_and_raw_is_not_taken() -> None:
    """Arm 0 leads at every measured compute and loses at the target."""
    log_a, log_b, alpha, beta = pooled(6, spread=0.01)
    alpha[0], beta[0] = 0.30, 0.31
    log_a[0] -= (0.35 - 0.30) * np.log(1e8) + 0.02
    log_b[0] -= (0.37 - 0.31) * np.log(6e9)
    seen = measured(log_a, log_b, alpha, beta, luck=0.001, noise=0.001)
    truth = best(log_a, log_b, alpha, beta, TARGET)
    now = seen.frontier(FLOPS)
    assert min(now, key=lambda arm: now[arm]) == 0
    assert np.argmax(truth) == 0
    found = forecast(seen, FLOPS, TARGET, ETA)
    assert found.predictor != "raw"
    assert found.log_loss[0] == max(found.log_loss)
    assert found.best[0] < 0.2


def test_where_only_coefficients_differ_the_pooled_law_is_expected_to_err_least_or_nearly() -> None:
    found = forecast(measured(*pooled(12), luck=0.01, noise=0.003), FLOPS, TARGET, ETA)
    assert found.scores["pooled"].error <= 1.1 * min(score.error for score in found.scores.values())
    assert found.scores["pooled"].error < found.scores["raw"].error


def test_p_best_is_the_share_of_draws() -> None:
    draws = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    assert best_of(draws).tolist() == [0.75, 0.25, 0.0]


@pytest.mark.long
def test_p_best_is_calibrated_over_worlds() -> None:
    """The arm of a world that is the best has, on average, the probability that was said of it."""
    said, held = [], []
    for seed in range(16):
        arms = pooled(6, spread=0.03, seed=seed)
        found = forecast(measured(*arms, luck=0.01, noise=0.003, seed=seed), FLOPS, 10 * FLOPS, ETA)
        first = int(np.argmax(found.best))
        said.append(found.best[first])
        held.append(np.argmin(best(*arms, 10 * FLOPS)) == found.arms[first])
    assert abs(np.mean(said) - np.mean(held)) < 0.3


def test_the_same_rows_in_another_order_give_the_same_answer() -> None:
    seen = measured(*pooled(5), luck=0.01, noise=0.003)
    mixed = np.random.default_rng(1).permutation(len(seen))
    again = Measured(*(getattr(seen, name)[mixed] for name in Measured.__dataclass_fields__))
    one, other = (forecast(rows, FLOPS, TARGET, ETA) for rows in (seen, again))
    assert one.predictor == other.predictor
    assert one.log_loss == pytest.approx(other.log_loss, rel=1e-6)


def test_what_lies_above_the_rung_changes_nothing() -> None:
    arms = pooled(5)
    longer = measured(*arms, luck=0.01, noise=0.003)
    rung = FLOPS * 100 ** (-3 / 14)  # where every run is evaluated
    shorter = longer.below(rung)
    assert len(shorter) < len(longer)
    one, other = (forecast(rows, rung, TARGET, ETA) for rows in (longer, shorter))
    assert one.draws.shape[1] == 5
    assert np.array_equal(one.draws, other.draws)


def test_one_width_allows_raw_alone() -> None:
    found = forecast(measured(*pooled(4), widths=1), FLOPS, TARGET, ETA)
    assert found.predictor == "raw"
    assert set(found.scores) <= {"raw"}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"raw": 1.0, "pooled": 0.9, "own": 0.88, "powered": 0.9}, "pooled"),
        ({"raw": 1.0, "pooled": 0.9, "own": 0.5, "powered": 0.9}, "own"),
        ({"raw": 0.5, "pooled": 0.9, "own": 0.88, "powered": 0.9}, "raw"),
        ({"raw": 1.0, "pooled": 0.9, "own": 0.88, "powered": 0.4}, "powered"),
    ],
)
def test_more_to_fit_has_to_be_better_by_something(scores: dict[str, float], expected: str) -> None:
    assert predictors._chosen({name: Score(0.0, error, 0.0) for name, error in scores.items()}) == expected


def test_a_frontier_is_read_off_between_evaluations_and_of_runs_that_got_there() -> None:
    flops = np.array([1.0, 100.0, 1.0, 10.0])
    seen = Measured(np.array([0, 0, 0, 0]), np.array([1, 1, 2, 2]), flops, flops, flops, np.array([4.0, 1.0, 3.0, 1.9]))
    assert seen.frontier(10.0)[0] == pytest.approx(1.9)
    assert seen.frontier(30.0)[0] == pytest.approx(np.exp(np.interp(np.log(30), [0, np.log(100)], [np.log(4), 0])))
    assert seen.frontier(500.0) == {}
