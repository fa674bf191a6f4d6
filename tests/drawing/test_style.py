"""The scale of numbers is matplotlib's viridis, without matplotlib."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from structlin.drawing.style import shade


@pytest.mark.parametrize("part", np.linspace(0, 1, 41))
def test_the_scale_is_viridis(part: float) -> None:
    expected = colormaps["viridis"](0.9 * part)[:3]
    np.testing.assert_allclose(to_rgb(shade(part)), expected, atol=6 / 255)


def test_a_scale_ends_where_its_numbers_do() -> None:
    assert shade(7.0, 2.0, 3.0) == shade(3.0, 2.0, 3.0) == shade(1.0)
    assert shade(1.0, 2.0, 3.0) == shade(0.0)
    assert shade(5.0, 5.0, 5.0) == shade(0.5)
