"""Features move as much at every width under the structure-aware rates, and less and less under the naive ones.

A small edition of docs/figures/coordinate-check (widths to 256, one seed); the bounds leave room for one seed's noise.
"""

from functools import cache
from pathlib import Path

import pytest

from bench.coordinate_check import coordinate_science, feature_update, slope

WIDTHS = (64, 128, 256)


@cache
def measured_slope(structure: str, rule: str, data_root: Path) -> float:
    updates = [feature_update(coordinate_science(structure, width, rule, 0), data_root) for width in WIDTHS]
    return slope(WIDTHS, updates)


# Low rank starts with a slope of its own: its rank, sqrt(d), is 8 to 16 here (docs/lab-book.md).
@pytest.mark.parametrize(
    ("structure", "bound"),
    [("dense", 0.1), ("btt", 0.1), pytest.param("kronecker", 0.16, marks=pytest.mark.long), ("low_rank", 0.26)],
)
def test_structure_aware_rates_keep_feature_updates_flat(structure: str, bound: float, data_root: Path) -> None:
    assert abs(measured_slope(structure, "structure", data_root)) < bound


@pytest.mark.parametrize("structure", ["btt", "low_rank", pytest.param("kronecker", marks=pytest.mark.long)])
def test_naive_rates_let_them_fall(structure: str, data_root: Path) -> None:
    falling = measured_slope(structure, "naive", data_root)
    assert falling < -0.15
    assert falling < measured_slope(structure, "structure", data_root) - 0.12
