"""The mean of a multiplier: uniform in log C whatever was observed where, or that of the observations, as published."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares

from structlin.errors import UserError
from structlin.laws.approaches.multiplier import MEANS, Multiplier, average, compare
from structlin.laws.choices import Choices, help_text, parse
from tests.laws.approaches.test_frontier import hull_height
from tests.laws.tables import laws_of, two

LOW, HIGH = 1e15, 1e20
# Laws E + A C^-a of dense and of x. At equal exponents x needs half of the compute; else ever less of it.
DENSE = (1.2, 20.0, 0.10)
PLANTED = {"constant": (1.2, 20.0 * 0.5**0.10, 0.10), "growing": (1.2, 20.0 * 1e16**0.02, 0.12)}
# Where the evaluations of x crowd: equally spaced in log C, at its beginning, at its end.
CROWDS = {"even": 1.0, "early": 2.5, "late": 0.4}


def curve(name: str, flops: np.ndarray) -> np.ndarray:
    """Planted C_dense(L) / C_x(L) at computes of dense."""
    E, A, a = PLANTED[name]
    loss = DENSE[0] + DENSE[1] * flops ** -DENSE[2]
    return np.asarray(flops / ((loss - E) / A) ** (-1 / a))


def planted_mean(name: str, found: Multiplier) -> tuple[float, float]:
    """Its mean and standard deviation over log C_dense between the ends of the curve, by a fine sum."""
    log_flops = np.linspace(np.log(found.flops[0]), np.log(found.flops[-1]), 100_001)
    values = curve(name, np.exp(0.5 * (log_flops[1:] + log_flops[:-1])))
    return float(values.mean()), float(values.std())


def sweep(name: str, crowd: float = 1.0, noise: float = 0.0) -> pd.DataFrame:
    """80 evaluations of dense and of x on their frontiers, 8 runs of ten each, some lifted off them by ``noise``."""
    generator = np.random.default_rng(0)
    frames = []
    for variant, (E, A, a) in (("dense", DENSE), ("x", PLANTED[name])):
        place = np.linspace(0, 1, 80) ** (crowd if variant == "x" else 1.0)
        flops = LOW * (HIGH / LOW) ** place
        loss = (E + A * flops**-a) * np.exp(noise * generator.random(80))
        run = [f"{variant}-{k // 10}" for k in range(80)]
        frames.append(pd.DataFrame({"flops": flops, "loss": loss, "run": run, "variant": variant}))
    return pd.concat(frames).assign(params=1e6)


def multiplier(table: pd.DataFrame, **options: object) -> Multiplier:
    return laws_of(table, bootstrap=20, **options).multipliers["x"]


@pytest.mark.parametrize("crowd", CROWDS)
@pytest.mark.parametrize("name", PLANTED)
def test_the_uniform_mean_is_the_planted_one_over_log_compute(name: str, crowd: str) -> None:
    found = multiplier(sweep(name, CROWDS[crowd]))
    mean, std = planted_mean(name, found)
    assert found.mean == pytest.approx(mean, rel=2e-3)
    assert found.std == pytest.approx(std, rel=1e-2, abs=1e-3)
    # All that both reached: nothing of the range is left out.
    ends = (LOW, HIGH) if name == "constant" else (LOW * 2, HIGH)
    assert found.flops[-1] / found.flops[0] > 0.2 * ends[1] / ends[0]


def test_the_published_mean_follows_the_crowd_where_the_multiplier_grows() -> None:
    early, late = (multiplier(sweep("growing", CROWDS[crowd]), procedure="published") for crowd in ("early", "late"))
    assert late.mean > 1.5 * early.mean
    mean, _ = planted_mean("growing", late)
    assert early.mean < mean < late.mean


def test_replicates_are_paired_as_far_as_both_have_some() -> None:
    found = laws_of(sweep("growing", noise=0.01), bootstrap=20)
    law, base = found.frontiers["x"], found.frontiers["dense"]
    observed = (np.array([1e16]), law.loss(np.array([1e16])))
    fewer, both = (replace(one, replicates=one.replicates[:11]) for one in (law, base))
    one, other = (compare("x", fewer, observed, "dense", of) for of in (base, both))
    assert one is not None
    assert other is not None
    assert np.array_equal(one.low, other.low)
    assert np.array_equal(one.high, other.high)


def test_the_published_mean_is_that_of_the_observations_in_the_shared_range() -> None:
    """With the spread of a sample; one observation has none, and none at all leaves the curve."""
    found = laws_of(sweep("growing"), bootstrap=20).frontiers
    law, base = found["x"], found["dense"]
    losses = np.linspace(law.losses[1], max(law.losses[0], base.losses[0]) + 1e-9, 4)[1:]
    flops = 0.5 * base.flops(losses) * np.array([1.0, 0.8, 1.3])
    ratios = base.flops(losses) / flops
    assert average(law, (flops, losses), base, "published") == pytest.approx((ratios.mean(), ratios.std(ddof=1)))
    assert average(law, (flops[:1], losses[:1]), base, "published") == pytest.approx((2.0, 0.0))
    mean, std = average(law, (flops, losses + 100), base, "published")
    assert std == 0
    assert 1.2 < mean < average(law, (flops, losses), base, "uniform")[0]


@pytest.mark.parametrize("name", PLANTED)
def test_the_uniform_mean_hardly_hangs_on_the_tolerance(name: str) -> None:
    """Lifts of up to 2% put ever more evaluations near the hull; the mean moves by less than 6% from first to last."""
    table = sweep(name, CROWDS["early"], noise=0.02)
    means, points = [], []
    for tolerance in (0.002, 0.005, 0.01, 0.02):
        found = multiplier(table, tolerance=tolerance)
        means.append(found.mean / planted_mean(name, found)[0])
        points.append(found.observations)
    assert points[-1] > 3 * points[0]
    assert max(means) / min(means) < 1.06
    assert means == pytest.approx([1.0] * 4, rel=0.1)


def test_real_trunks_have_one_mean_at_any_tolerance_and_density() -> None:
    means = [
        laws_of(two(run_noise=0.0, row_noise=0.0, evaluations=count), bootstrap=20, tolerance=tolerance)
        .multipliers["btt"]
        .mean
        for count in (15, 60)
        for tolerance in (0.002, 0.02)
    ]
    assert max(means) / min(means) < 1.05


def law_by_scipy(flops: np.ndarray, loss: np.ndarray) -> tuple[float, float, float]:
    """E, A, a of least squares of log loss."""
    x = np.log(flops)

    def off(theta: np.ndarray) -> np.ndarray:
        return np.log(theta[0] + np.exp(theta[1] - theta[2] * (x - x.mean()))) - np.log(loss)

    best = least_squares(off, (0.9 * loss.min(), np.log(loss.min()), 0.1), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    E, log_scale, a = best.x
    return E, np.exp(log_scale + a * x.mean()), a


@pytest.mark.parametrize("name", PLANTED)
def test_the_published_procedure_is_the_released_one(name: str) -> None:
    """Members: all at most 0.02 above the lower hull in log loss. Mean and std of C_dense(L) / C at those of x."""
    table = sweep(name, CROWDS["early"], noise=0.05)
    members = {}
    for variant, part in table.groupby("variant"):
        flops, loss = part["flops"].to_numpy(), part["loss"].to_numpy()
        near = np.log(loss) - hull_height(np.log(flops), np.log(loss)) <= 0.02
        members[variant] = (flops[near], loss[near])
    E, A, a = law_by_scipy(*members["dense"])
    flops, loss = members["x"]
    lowest, highest = (end([losses for _, losses in members.values()]) for end in (low_of, high_of))
    shared = (loss >= max(lowest, 1.0001 * E)) & (loss <= highest)
    ratios = ((loss[shared] - E) / A) ** (-1 / a) / flops[shared]
    assert 10 < shared.sum() < 80
    found = multiplier(table, procedure="published")
    assert found.observations == shared.sum()
    assert (found.mean, found.std) == pytest.approx((ratios.mean(), ratios.std(ddof=1)), rel=1e-4)


def low_of(losses: list[np.ndarray]) -> float:
    """Lowest loss that all reached."""
    return float(max(loss.min() for loss in losses))


def high_of(losses: list[np.ndarray]) -> float:
    """Highest loss that all have."""
    return float(min(loss.max() for loss in losses))


def test_the_procedure_brings_its_tolerance_unless_one_is_given() -> None:
    given = [Choices(), Choices(procedure="published"), Choices(procedure="published", tolerance=0.005)]
    assert [one.hull_tolerance for one in given] == [0.002, 0.02, 0.005]
    assert [one.record()["tolerance"] for one in given] == [0.002, 0.02, 0.005]
    assert parse(["procedure=published", "tolerance=0.01"]).hull_tolerance == 0.01
    for word, said in (("procedure=publishd", "did you mean 'published'"), ("tolerance=wide", "takes a number"),
                       ("tolerance=-1", "must lie in")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            parse([word])
    assert "procedure=uniform" in help_text()


@pytest.mark.parametrize("procedure", MEANS)
def test_what_the_mean_goes_over_is_said(procedure: str) -> None:
    from structlin.laws.report import console, drawings, page
    from structlin.laws.report import laws_json as record

    laws = laws_of(sweep("growing"), bootstrap=20, procedure=procedure)
    found = record.plain(record.record(laws))
    assert found["multipliers"]["x"]["mean_over"] == MEANS[procedure]
    captions = [drawing.caption for drawing in drawings.drawings(laws) if drawing.name == "multipliers"]
    assert [MEANS[procedure] in caption for caption in captions] == [True]
    assert MEANS[procedure] in page.tables(found)
    title = console._multipliers(found, "90%").title
    assert MEANS[procedure] in str(title)
