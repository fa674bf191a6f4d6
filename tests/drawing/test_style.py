"""The scale of numbers is viridis, without matplotlib; variants have an order and looks of their own."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from structlin.drawing.style import colour_of, marker_of, ordered, shade


@pytest.mark.parametrize("part", np.linspace(0, 1, 41))
def test_the_scale_is_viridis(part: float) -> None:
    expected = colormaps["viridis"](0.9 * part)[:3]
    np.testing.assert_allclose(to_rgb(shade(part)), expected, atol=6 / 255)


def test_a_scale_ends_where_its_numbers_do() -> None:
    assert shade(7.0, 2.0, 3.0) == shade(3.0, 2.0, 3.0) == shade(1.0)
    assert shade(1.0, 2.0, 3.0) == shade(0.0)
    assert shade(5.0, 5.0, 5.0) == shade(0.5)


def test_no_two_of_many_variants_look_alike() -> None:
    """Seven colours and seven markers tell 49 apart, and dense from all of them."""
    names = ["dense", "dense/paper", *(f"v{place}" for place in range(49))]
    looks = {(colour_of(names, name), marker_of(names, name)) for name in names}
    assert len(looks) == 50
    assert {(colour_of(names, name), marker_of(names, name)) for name in names[:2]} == {("#000000", "^")}
    few = names[:9]
    assert len({colour_of(few, name) for name in few}) == len({marker_of(few, name) for name in few}) == 8


def test_colours_do_not_depend_on_which_run_came_first() -> None:
    names = ["moe-btt8", "btt11", "dense/paper", "low_rank", "btt3", "dense", "btt+moe-ffn8", "btt3/paper", "btt"]
    said = ["dense", "dense/paper", "btt", "btt3", "btt3/paper", "btt11", "low_rank", "btt+moe-ffn8", "moe-btt8"]
    assert ordered(names) == ordered(names[::-1]) == said
    for look in (colour_of, marker_of):
        assert [look(names, name) for name in names] == [look(names[::-1], name) for name in names]
