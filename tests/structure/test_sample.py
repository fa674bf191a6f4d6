"""The sampler: seeded, a longer sample contains the shorter one, useful thetas within bounds, evenly spread."""

import random
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import qmc

from structlin.errors import UserError
from structlin.structure import Theta
from structlin.structure.sample import sample_thetas
from structlin.structure.taxonomy import taxonomy


def test_a_sample_is_its_seed() -> None:
    assert sample_thetas(20, seed=3) == sample_thetas(20, seed=3)
    assert not set(sample_thetas(20, seed=3)) & set(sample_thetas(20, seed=4))


@pytest.mark.parametrize("bounds", [None, {"psi": (1.0, 1.0)}])
def test_a_longer_sample_contains_the_shorter_one(bounds: dict[str, tuple[float, float]] | None) -> None:
    assert sample_thetas(64, 1, bounds)[:10] == sample_thetas(10, 1, bounds)


def test_every_theta_is_useful_distinct_and_can_be_typed_again() -> None:
    sample = sample_thetas(300)
    assert len(set(sample)) == 300
    for theta in sample:
        theta.check_useful()
        assert sum(theta.exponents[:3]) == sum(theta.exponents[3:6]) == 1
        assert Theta.parse(str(theta)) == theta
        assert not theta.is_dense


@pytest.mark.parametrize(
    "bounds", [{"psi": (1, 1)}, {"omega": (0, 0.1)}, {"nu": (0.4, 0.6), "psi": (0.9, 1.0), "omega": (0.1, 0.3)}]
)
def test_bounds_are_kept(bounds: dict[str, tuple[float, float]]) -> None:
    for theta in sample_thetas(20, 0, bounds):
        for name, (low, high) in bounds.items():
            assert low - 1e-9 <= getattr(taxonomy(theta), name) <= high + 1e-9


@pytest.mark.parametrize(
    ("count", "bounds", "named"),
    [
        (0, None, "structure.count = 0"),
        (4, {"mu": (0, 1)}, "bound mu"),
        (4, {"psi": (1, 0.5)}, "low <= high"),
        (4, {"nu": (2.5, 3)}, "widen the bounds"),
    ],
)
def test_what_cannot_be_sampled_is_refused(count: int, bounds: dict[str, tuple[float, float]], named: str) -> None:
    with pytest.raises(UserError, match=named):
        sample_thetas(count, 0, bounds)


@pytest.mark.parametrize("seed", [0, 7, 19])
def test_a_sample_is_haltons_sequence_shifted_and_mapped_to_the_simplices(seed: int) -> None:
    """The first of the sequence is at 1: 19 is a seed whose shift alone, index 0, would be a useful theta too."""
    shift = [random.Random(seed * 8191 + axis).random() for axis in range(5)]
    points = (qmc.Halton(5, scramble=False).random(400)[1:] + shift) % 1
    expected = []
    for u1, u2, v1, v2, w in points:
        inner, outer = u1**0.5, v1**0.5
        alpha, beta, delta, epsilon, rho = (
            Fraction(round(1000 * x), 1000) for x in (1 - inner, inner * (1 - u2), 1 - outer, outer * (1 - v2), w)
        )
        # Two exponents that are rounded up may pass one by a thousandth: the second gives way.
        beta, epsilon = min(beta, 1 - alpha), min(epsilon, 1 - delta)
        theta = Theta(alpha, beta, 1 - alpha - beta, delta, epsilon, 1 - delta - epsilon, rho)
        if not (theta.is_dense or theta.is_redundant or theta.is_degenerate):
            expected.append(theta)
    assert len(expected) > 40
    assert sample_thetas(len(expected), seed) == expected


def useful_uniform(count: int, seed: int) -> np.ndarray:
    """Independent draws from the same space: uniform on both simplices and rho, useless ones passed over."""
    draw = np.random.default_rng(seed)
    theta = np.hstack([draw.dirichlet([1, 1, 1], 40 * count), draw.dirichlet([1, 1, 1], 40 * count)])
    theta = np.hstack([theta, draw.random((40 * count, 1))])
    least = np.minimum(theta[:, 0], theta[:, 4])
    kept = theta[(least >= np.minimum(theta[:, 1], theta[:, 3])) & (theta[:, 6] <= least)]
    assert len(kept) >= count
    return kept[:count]


def discrepancy(points: np.ndarray, reference: np.ndarray) -> float:
    """Mean over the axes of the largest gap between the distribution functions of a sample and of the space."""
    levels = np.linspace(0, 1, 101)
    gaps = [
        np.abs((points[:, [axis]] <= levels).mean(0) - (reference[:, [axis]] <= levels).mean(0)).max()
        for axis in range(points.shape[1])
    ]
    return float(np.mean(gaps))


def test_a_sample_is_more_even_than_chance_and_fills_the_same_space() -> None:
    reference = useful_uniform(50_000, seed=100)
    even = [
        discrepancy(np.array([list(map(float, theta.exponents)) for theta in sample_thetas(256, seed)]), reference)
        for seed in range(3)
    ]
    chance = [discrepancy(useful_uniform(256, seed), reference) for seed in range(12)]
    assert np.mean(even) < 0.75 * np.mean(chance), (even, chance)
