"""Head-aware sizes: the axes the layout names, the cost they give, and which side of attention is transposed."""

import pytest

from structlin.structure import lookup, plan_linear
from structlin.structure.heads import head_aware_sizes, input_is_transposed, output_is_transposed


@pytest.mark.parametrize(("layout", "macs"), [("nddn", 1280), ("dndn", 512), ("ndnd", 2048), ("dnnd", 1280)])
def test_four_heads_of_sixteen(layout: str, macs: int) -> None:
    sizes = head_aware_sizes(layout, 4, 16, lookup("btt"))
    assert [sizes.a, sizes.g, sizes.e, sizes.f] == [{"n": 4, "d": 16}[axis] for axis in layout]
    assert (sizes.used_in, sizes.used_out, sizes.d_in, sizes.d_out) == (64, 64, 64, 64)
    plan = plan_linear(sizes)
    assert plan.macs == plan.params == macs


def test_the_rank_is_that_of_theta() -> None:
    assert head_aware_sizes("dnnd", 4, 64, lookup("btt11")).r == 4


def test_the_outer_axis_says_what_is_transposed() -> None:
    sides = {name: (input_is_transposed(name), output_is_transposed(name)) for name in ("none", "nddn", "dndn", "ndnd")}
    assert sides == {"none": (False, False), "nddn": (True, False), "dndn": (False, False), "ndnd": (True, True)}
