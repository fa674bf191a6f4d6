"""The surrogate finds a planted valley, new arms are new, bounded and the same each time."""

import numpy as np
import pytest

from structlin.config.doors import sweep_request
from structlin.config.request import SweepRequest
from structlin.search.arms import Arm, arms_of
from structlin.search.proposals import improvement, propose, surrogate

NU = 2


def request(*words: str) -> SweepRequest:
    return sweep_request(
        ["grid=search", "target=1e12", "budget=1e12", "scale=small", "tracking=journal", "structure.count=24", *words]
    )


@pytest.fixture(scope="module")
def arms() -> tuple[Arm, ...]:
    return arms_of(request())


def planted(arms) -> np.ndarray:
    """Log loss falls with the compute intensity nu as realised, and with nothing else."""
    return np.array([0.7 + 0.1 * arm.place()[NU] for arm in arms])


def test_the_surrogate_foretells_a_slope_and_a_bump_better_than_the_mean() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((40, 3))
    y = 0.1 * x[:, 0] - 0.05 * x[:, 1] + 0.05 * np.exp(-20 * (x[:, 2] - 0.5) ** 2)
    model = surrogate(x[:30], y[:30] + 1e-3 * generator.standard_normal(30), np.full(30, 1e-6))
    expected, spread = model.at(x[30:])
    assert np.std(expected - y[30:]) < 0.4 * np.std(y[30:])
    assert (np.abs(expected - y[30:]) < 4 * spread).all()


def test_where_nothing_is_planted_the_surrogate_says_the_mean_and_is_unsure() -> None:
    generator = np.random.default_rng(1)
    x, y = generator.random((20, 3)), 0.05 * generator.standard_normal(20)
    expected, spread = surrogate(x, y, np.full(20, 0.05**2)).at(generator.random((50, 3)))
    assert np.abs(expected - y.mean()).max() < 0.08
    assert spread.min() > 0.005


def test_expected_improvement_equals_its_integral() -> None:
    draws = np.random.default_rng(0).standard_normal(1_000_000)
    for mean, spread, best in ((0.0, 1.0, 0.0), (1.0, 0.5, 0.0), (-1.0, 2.0, 0.5)):
        integral = np.mean(np.maximum(best - (mean + spread * draws), 0.0))
        assert improvement(np.array([mean]), np.array([spread]), best)[0] == pytest.approx(integral, abs=3e-3)


def test_new_arms_lie_where_the_planted_loss_is_low(arms: tuple[Arm, ...]) -> None:
    y = planted(arms)
    found = propose(arms, y, np.full(len(arms), 1e-6), request().search.sampled, 3, lambda arm: 1.0, arms)
    assert len(found) == 3
    known = {str(arm.theta) for arm in arms}
    assert not known & {str(one.arm.theta) for one in found}
    assert max(one.place[NU] for one in found) <= np.quantile([arm.place()[NU] for arm in arms], 0.25)
    assert all(one.arm.origin == "proposed" for one in found)


def test_what_costs_less_is_proposed_first(arms: tuple[Arm, ...]) -> None:
    sampled = request().search.sampled

    def price(arm: Arm) -> float:
        return 1.0 if arm.theta.num_factors == 3 else 1e6

    found = propose(arms, planted(arms), np.full(len(arms), 1e-4), sampled, 2, price, arms)
    assert {one.arm.theta.num_factors for one in found} == {3}


def test_proposals_are_the_same_each_time_and_at_most_as_many_as_asked(arms: tuple[Arm, ...]) -> None:
    sampled = request().search.sampled
    one, other = (
        [
            p.to_mapping()
            for p in propose(arms, planted(arms), np.full(len(arms), 1e-4), sampled, 5, lambda arm: 2.0, arms)
        ]
        for _ in range(2)
    )
    assert one == other
    assert len(one) == 5
    assert propose(arms, planted(arms), np.full(len(arms), 1e-4), sampled, 0, lambda arm: 2.0, arms) == []
    assert propose(arms[:5], planted(arms[:5]), np.full(5, 1e-4), sampled, 5, lambda arm: 2.0, arms) == []


@pytest.mark.long
def test_bounds_of_the_sample_hold_for_new_arms() -> None:
    bounded = request("structure.psi=[0.9,1]", "structure.nu=[0.4,0.8]")
    arms = arms_of(bounded)
    found = propose(arms, planted(arms), np.full(len(arms), 1e-4), bounded.search.sampled, 8, lambda arm: 1.0, arms)
    assert found
    for one in found:
        place = one.arm.theta.taxonomy
        assert 0.9 - 1e-9 <= place.psi <= 1 + 1e-9
        assert 0.4 - 1e-9 <= place.nu <= 0.8 + 1e-9
