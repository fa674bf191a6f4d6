"""Who goes on: the likeliest, as many as the budget carries; nobody leaves for less than a stated probability."""

import numpy as np
import pytest

from structlin.search.predictors import Forecast
from structlin.search.promotion import FORCED, UNLIKELY, chosen, promote


def foretold(chances: list[float]) -> Forecast:
    """Arms 10, 11, .. of these P(best), exactly, the likelier of the lower loss."""
    counts = np.round(1000 * np.array(chances)).astype(int)
    draws = np.ones((1000, len(chances)))
    draws[np.arange(1000), np.repeat(np.arange(len(chances)), counts)] = 0.0
    return Forecast(1.0, 2.0, "raw", {}, np.arange(10, 10 + len(chances)), -np.array(chances), draws)


@pytest.mark.parametrize(
    ("chances", "most", "always", "stay", "leave"),
    [
        ([0.5, 0.3, 0.19, 0.01], 2, (), (10, 11), {12: FORCED, 13: FORCED}),
        ([0.5, 0.3, 0.195, 0.005], 4, (), (10, 11, 12), {13: UNLIKELY}),
        ([0.01, 0.3, 0.69], 1, (), (12,), {11: FORCED, 10: FORCED}),
        ([0.0, 0.3, 0.7], 2, (10,), (12, 10), {11: FORCED}),
        ([0.0, 0.3, 0.7], 3, (10,), (12, 11, 10), {}),
        ([1.0, 0.0, 0.0], 3, (), (10, 11), {12: UNLIKELY}),
    ],
)
def test_promotion(chances: list[float], most: int, always: tuple[int, ...], stay, leave) -> None:
    found = promote(foretold(chances), most, 0.01, always)
    assert found.stay == stay
    assert found.leave == leave


def test_the_arm_of_the_lowest_expected_loss_stays_and_is_chosen() -> None:
    one = foretold([0.6, 0.4])
    other = Forecast(1.0, 2.0, "raw", {}, one.arms, np.array([0.2, 0.1]), one.draws)
    assert promote(other, 1, 0.01).stay == (11,)
    assert chosen(other) == 11
