"""The scale of numbers is viridis, without matplotlib; variants have an order and looks of their own."""

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from structlin.drawing.style import colour_of, look_of, marker_of, ordered, shade
from structlin.structure import CATALOG


@pytest.mark.parametrize("part", np.linspace(0, 1, 41))
def test_the_scale_is_viridis(part: float) -> None:
    expected = colormaps["viridis"](0.9 * part)[:3]
    np.testing.assert_allclose(to_rgb(shade(part)), expected, atol=6 / 255)


def test_a_scale_ends_where_its_numbers_do() -> None:
    assert shade(7.0, 2.0, 3.0) == shade(3.0, 2.0, 3.0) == shade(1.0)
    assert shade(1.0, 2.0, 3.0) == shade(0.0)
    assert shade(5.0, 5.0, 5.0) == shade(0.5)


def test_no_two_of_many_variants_look_alike() -> None:
    """Twelve colours and twelve markers tell 144 apart, and dense from all of them; of a few neither is shared."""
    names = ["dense", "dense/paper", *(f"v{place}" for place in range(100))]
    looks = {(colour_of(names, name), marker_of(names, name)) for name in names}
    assert len(looks) == 101
    assert {(colour_of(names, name), marker_of(names, name)) for name in names[:2]} == {("#000000", "^")}
    few = names[:9]
    assert len({colour_of(few, name) for name in few}) == len({marker_of(few, name) for name in few}) == 8


@pytest.mark.parametrize("others", [[], ["dense"], ["btt3", "l1", "dense"], ["v1", "v2", "moe-btt8"]])
def test_a_variant_looks_the_same_in_every_figure(others: list[str]) -> None:
    for name in ("btt", "low_rank", "tensor_train", "moe-ffn8", "g2", "btt@nddn"):
        assert look_of((*others, name), name) == look_of((name,), name)
        # Options that all of a figure have change nothing.
        assert look_of((f"{name}+fixed-norm",), f"{name}+fixed-norm") == look_of((name,), name)


def test_an_option_beside_the_plain_variant_has_a_look_of_its_own() -> None:
    names = ("btt", "btt+fixed-norm", "btt+head", "dense")
    assert len({look_of(names, name) for name in names}) == 4
    assert look_of(names, "btt") == look_of(("btt",), "btt")


def test_the_structures_of_the_paper_look_different() -> None:
    names = tuple(CATALOG)
    looks = {look_of(names, name) for name in names}
    assert len(looks) == len(names)
    shown = ("dense", "btt", "btt3", "btt7", "btt11", "low_rank", "l1", "g1", "kronecker", "tensor_train")
    assert len({look_of(shown, name)[0] for name in shown}) == len({look_of(shown, name)[1] for name in shown}) == 10


def test_colours_do_not_depend_on_which_run_came_first() -> None:
    names = ["moe-btt8", "btt11", "dense/paper", "low_rank", "btt3", "dense", "btt+moe-ffn8", "btt3/paper", "btt"]
    said = ["dense", "dense/paper", "btt", "btt3", "btt3/paper", "btt11", "low_rank", "btt+moe-ffn8", "moe-btt8"]
    assert ordered(names) == ordered(names[::-1]) == said
    for look in (colour_of, marker_of):
        assert [look(names, name) for name in names] == [look(names[::-1], name) for name in names]
