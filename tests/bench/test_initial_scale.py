"""Outputs are as large at every width when training begins, whatever the number of factors (docs/structures.md)."""

from statistics import mean

import pytest

from bench.coordinate_check import slope
from bench.initial_scale import STRUCTURES, scale_at_start

WIDTHS = (64, 128, 256, 512)


@pytest.mark.parametrize("label", STRUCTURES)
def test_outputs_and_norms_stay_level(label: str) -> None:
    found = [[scale_at_start(label, width, seed) for seed in (0, 1, 2)] for width in WIDTHS]
    for part in (0, 1):
        means = [mean(values[part] for values in of_width) for of_width in found]
        assert abs(slope(WIDTHS, means)) < 0.05
        assert max(means) / min(means) < 1.15
