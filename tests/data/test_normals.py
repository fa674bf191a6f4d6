"""Fresh numbers: normal, independent, and a pure function of their position."""

import numpy as np
import pytest
from scipy import stats

from structlin.data.normals import normals


def test_they_are_standard_normal() -> None:
    numbers = normals(3, 0, 0, 200_000)
    assert numbers.dtype == np.float32
    assert stats.kstest(numbers, "norm").pvalue > 1e-3
    assert stats.kurtosis(numbers) == pytest.approx(0, abs=0.05)
    assert abs(numbers).max() > 4


@pytest.mark.parametrize("first", [0, 1, 7, 1_000, 2**40 + 1])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_a_slice_is_a_slice_of_any_longer_one(first: int, count: int) -> None:
    around = normals(0, 2, max(0, first - 5), count + 20)
    offset = first - max(0, first - 5)
    assert np.array_equal(normals(0, 2, first, count), around[offset : offset + count])


def test_neighbours_streams_and_seeds_are_unrelated() -> None:
    base = normals(0, 0, 0, 100_000)
    others = (base[1:], base[2:], base[8:], normals(0, 1, 0, 100_000), normals(1, 0, 0, 100_000))
    for other in others:
        n = min(len(base), len(other))
        assert abs(np.corrcoef(base[:n], other[:n])[0, 1]) < 5 / np.sqrt(n)


def test_the_stream_never_changes() -> None:
    """Labels are kept, and their inputs are made again: other numbers would silently not fit them."""
    expected = [1.9549744, -0.35891959, 1.3099996, -0.91944128]
    assert normals(0, 0, 0, 4).tolist() == pytest.approx(expected, rel=1e-6)
