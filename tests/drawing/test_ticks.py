"""Labels of logarithmic axes."""

import pytest

from structlin.drawing.ticks import power_label


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(2e18, 1, "2e18"), (1e-5, 1, "1e-5"), (500.0, 1, "500"), (5e10, 1, "5e10"), (2.5e18, 2, "2.5e18")],
)
def test_ticks_are_short(value: float, digits: int, said: str) -> None:
    assert power_label(value, digits) == said
