"""The sampler: seeded, a longer sample contains the shorter one, useful thetas within bounds, evenly spread."""

import random
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import qmc

from structlin.errors import UserError
from structlin.structure import Theta, sample
from structlin.structure.sample import sample_thetas

FIRST = {
    0: [
        "(181/500|529/1000|109/1000|27/250|407/1000|97/200|27/500)",
        "(487/500|3/1000|23/1000|659/1000|147/500|47/1000|31/500)",
        "(499/1000|87/500|327/1000|141/500|401/1000|317/1000|253/1000)",
        "(2/5|379/1000|221/1000|223/1000|751/1000|13/500|261/1000)",
        "(167/250|99/1000|233/1000|103/1000|369/500|159/1000|44/125)",
    ],
    1: [
        "(617/1000|111/500|161/1000|189/1000|149/250|43/200|139/500)",
        "(33/50|149/500|21/500|419/1000|83/250|249/1000|13/1000)",
        "(99/250|119/500|183/500|141/1000|49/200|307/500|39/200)",
        "(51/100|357/1000|133/1000|579/1000|421/1000|0|377/1000)",
        "(9/20|17/250|241/500|209/1000|129/200|73/500|14/125)",
    ],
}
"""The first thetas of two factors by seed, as the sampler gave them when it knew two factors only."""


@pytest.mark.parametrize("seed", FIRST)
def test_the_thetas_of_a_seed_are_the_same_for_ever(seed: int) -> None:
    assert [str(theta) for theta in sample_thetas(5, seed)] == FIRST[seed]


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
            assert low - 1e-9 <= getattr(theta.taxonomy, name) <= high + 1e-9


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
        theta = Theta.two(alpha, beta, 1 - alpha - beta, delta, epsilon, 1 - delta - epsilon, rho)
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


# --- three factors ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_three() -> list[Theta]:
    return sample_thetas(64, seed=0, factors=3)


def test_three_factors_are_useful_distinct_and_can_be_typed_again(of_three: list[Theta]) -> None:
    assert len(set(of_three)) == 64
    for theta in of_three:
        theta.check_useful()
        assert (theta.num_factors, theta.is_dense, theta.is_degenerate) == (3, False, False)
        assert theta.taxonomy.nu <= 1 + 1e-9
        assert sum(theta.exponents[:7]) == sum(theta.exponents[7:14]) == 1
        assert sum(theta.exponents[14:]) <= 1
        assert Theta.parse(str(theta)) == theta


@pytest.mark.parametrize("base", sample._BASES)
def test_a_digit_becomes_another_and_zero_stays(base: int) -> None:
    for seed in range(3):
        become = list(map(sample._digits(seed, base, plain=False), range(base)))
        assert become[0] == 0
        assert sorted(become) == list(range(base))
        assert list(map(sample._digits(seed, base, plain=True), range(base))) == list(range(base))


def test_a_longer_sample_of_three_contains_the_shorter_one(of_three: list[Theta]) -> None:
    assert of_three[:10] == sample_thetas(10, 0, factors=3)
    assert not set(of_three[:10]) & set(sample_thetas(10, 1, factors=3))


def test_bounds_of_three_factors_are_kept() -> None:
    for theta in sample_thetas(5, 0, {"psi": (0.9, 1.0), "nu": (0.5, 0.9)}, factors=3):
        assert theta.taxonomy.psi >= 0.9 - 1e-9
        assert 0.5 - 1e-9 <= theta.taxonomy.nu <= 0.9 + 1e-9


@pytest.mark.parametrize("factors", [1, 4])
def test_only_two_and_three_factors_are_sampled(factors: int) -> None:
    with pytest.raises(UserError, match=f"structure.factors={factors}: thetas of 2 or 3 factors are sampled"):
        sample_thetas(2, factors=factors)
