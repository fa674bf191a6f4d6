"""Quantiles and tails equal scipy's."""

import pytest
from scipy import special

from structlin.laws.sampling.quantiles import chi2_tail, normal_quantile, student_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 10, 17, 100, 501])
def test_student(degrees: int) -> None:
    for probability in (0.75, 0.95, 0.975, 0.995):
        assert student_quantile(degrees, probability) == pytest.approx(special.stdtrit(degrees, probability), rel=1e-9)
        assert normal_quantile(probability) == pytest.approx(special.ndtri(probability), rel=1e-9)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 8, 21])
def test_chi2(degrees: int) -> None:
    for value in (0.0, 0.1, 1.0, 4.0, 30.0, 200.0):
        assert chi2_tail(value, degrees) == pytest.approx(special.chdtrc(degrees, value), rel=1e-9, abs=1e-300)
