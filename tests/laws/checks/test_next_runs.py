"""What a pilot knows of noise is what was planted, within runs and between them."""

import numpy as np
import pytest

from structlin.laws import synthetic
from structlin.laws.checks import next_runs
from tests.laws.tables import DENSE, laws_of, laws_of_runs, own


@pytest.mark.parametrize(("run_noise", "row_noise"), [(0.01, 0.001), (0.002, 0.004)])
def test_a_pilot_measures_both_noises(run_noise: float, row_noise: float) -> None:
    seeds = tuple(range(4))
    laws = laws_of_runs(own(seeds=seeds, run_noise=run_noise, row_noise=row_noise), bootstrap=20)
    for variant, pilot in next_runs.pilots(laws).items():
        residuals, index = laws.parametrics[variant].fit.residuals, laws.draws[variant].index
        means = np.bincount(index, weights=residuals) / np.bincount(index)
        within = np.sqrt(np.sum((residuals - means[index]) ** 2) / (len(index) - len(means)))
        assert pilot["row_noise"] == pytest.approx(max(within, next_runs._MIN_ROW_NOISE))
        assert pilot["row_noise"] == pytest.approx(row_noise, rel=0.25)
        assert pilot["run_noise"] == pytest.approx(run_noise, rel=0.7)


def test_what_is_unknown_yet_is_learnt_from_the_run_that_tells_most() -> None:
    """Nothing is known of beta: of two runs of one price the one that tells more is taken."""
    known = np.diag([1e6, 1e6, 1e6, 1e6, 0.0])
    pilot = next_runs.Pilot(DENSE, known, (np.log(1.6e7), np.log(1e9)), 0.003, 0.001, 6.0)
    sizes, tokens = [1e7, 1e9, 1e8], [1e10, 1e8, 1e9]
    widths = {
        (n, d): next_runs.expected(pilot, [n], [d], evaluations=1)["beta"] for n, d in zip(sizes, tokens, strict=True)
    }
    first = next_runs.design(pilot, sizes, tokens, budget_flops=6.1e17, target="beta")[0]
    assert first.interval_before == np.inf
    assert (first.size, first.tokens) == min(widths, key=lambda pair: widths[pair])
    assert first.interval_after == pytest.approx(min(widths.values()), rel=1e-6)


def test_one_evaluation_a_run_has_no_noise_within() -> None:
    table = synthetic.isoflop(DENSE, noise=0.002, generator=np.random.default_rng(0))
    laws = laws_of(table, bootstrap=20)
    assert {pilot["row_noise"] for pilot in next_runs.pilots(laws).values()} == {next_runs._MIN_ROW_NOISE}
