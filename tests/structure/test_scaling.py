"""Initial scale and rates: the closed forms of arXiv 2406.06248, in the order of contraction."""

import math

import pytest
from structlin.structure.scaling import factor_scales

from structlin.errors import UserError
from structlin.structure import Sizes, factorise, lookup


@pytest.mark.parametrize(
    ("name", "d", "first", "second"),
    [
        ("low_rank", 256, 1 / 2, 256 / (2 * 16)),
        ("low_rank", 1024, 1 / 2, 1024 / (2 * 32)),
        ("l1", 256, 1 / 2, 256 / (2 * 64)),
        ("kronecker", 256, math.sqrt(256) / 2, math.sqrt(256) / 2),
        ("kronecker", 4096, 64 / 2, 64 / 2),
        ("monarch", 1024, 32 / 2, 32 / 2),
        ("btt11", 256, math.sqrt(256) / 2, math.sqrt(256) / (2 * 4)),
        ("btt11", 4096, 64 / 2, 64 / (2 * 8)),
        ("tensor_train", 256, math.sqrt(256) / 2, math.sqrt(256) / (2 * 4)),
        ("dense", 256, 1, None),
    ],
)
def test_kappa_in_closed_form(name: str, d: int, first: float, second: float | None) -> None:
    kappas = [scale.kappa for scale in factor_scales(factorise(lookup(name), d, d))]
    assert kappas == pytest.approx([first] if second is None else [first, second])


@pytest.mark.parametrize(
    ("name", "shape", "fans"),
    [
        ("btt", (64, 256), [("A", 8, 16), ("B", 8, 16)]),
        ("btt11", (256, 256), [("A", 16, 64), ("B", 64, 16)]),
        ("low_rank", (64, 256), [("A", 64, 8), ("B", 8, 256)]),
        ("tensor_train", (256, 256), [("A", 16, 64), ("B", 64, 16)]),
        ("dense", (64, 256), [("weight", 64, 256)]),
    ],
)
def test_fans_and_std(name: str, shape: tuple[int, int], fans: list[tuple[str, int, int]]) -> None:
    scales = factor_scales(factorise(lookup(name), *shape))
    assert [(scale.name, scale.fan_in, scale.fan_out) for scale in scales] == fans
    for scale, (_, fan_in, fan_out) in zip(scales, fans, strict=True):
        assert scale.std == pytest.approx(math.sqrt(min(fan_in, fan_out)) / fan_in)
    assert [scale.is_last for scale in scales] == [False] * (len(fans) - 1) + [True]


def test_b_first_swaps_the_roles() -> None:
    sizes = Sizes(a=2, b=8, g=3, d=8, e=2, f=5, r=7, d_in=48, d_out=80)
    first, last = factor_scales(sizes)
    assert (first.name, first.fan_in, first.fan_out) == ("B", 8, 2 * 5 * 7)
    assert (last.name, last.fan_in, last.fan_out) == ("A", 2 * 3 * 7, 8)


def test_adam_multipliers_of_both_rules() -> None:
    first, last = factor_scales(factorise(lookup("low_rank"), 256, 256))
    assert first.adam_multiplier(768) == 768 / (2 * 256)
    assert last.adam_multiplier(768) == 768 / (2 * 16)
    assert {scale.adam_multiplier(768, "naive") for scale in (first, last)} == {768 / 256}
    with pytest.raises(UserError, match="'mup'; valid: naive, structure"):
        first.adam_multiplier(768, "mup")


def test_at_the_base_width_a_dense_layer_learns_at_lr0() -> None:
    (scale,) = factor_scales(factorise(lookup("dense"), 768, 768))
    assert scale.adam_multiplier(768) == scale.adam_multiplier(768, "naive") == scale.sgd_multiplier(768) == 1


def test_sgd_multiplier() -> None:
    first, last = factor_scales(factorise(lookup("low_rank"), 64, 256))
    assert first.sgd_multiplier(256) == pytest.approx((8 / 64) / (256 / 64) / 2)
    assert last.sgd_multiplier(256) == pytest.approx((256 / 8) / (256 / 64) / 2)
