"""Words to a plan: names and arguments mean what the families mean, a mistake is one line, and a plan can be read."""

import pytest

from structlin.structure import name_of, plan_theta, theta_of
from structlin.structure.theta import Theta
from structlin.structure.words import plan

MEANT = [
    ("btt", {}, {}),
    ("low_rank", {"rank": "d/4"}, {"rank": "d/4"}),
    ("low_rank", {"rank": 8}, {"rank": "8"}),
    ("monarch", {"blocks": 4}, {"blocks": 4}),
    ("btt", {"factors": 3}, {"factors": 3}),
    ("blast", {"blocks": 2, "rank": 4}, {"blocks": 2, "rank": "4"}),
    ("mpo", {"cores": 3, "bond": 2}, {"cores": 3, "bond": "2"}),
]


@pytest.mark.parametrize(("name", "given", "arguments"), MEANT)
def test_a_name_means_what_the_family_means(name: str, given: dict[str, object], arguments: dict[str, object]) -> None:
    assert plan(name, 64, 96, **given) == plan_theta(theta_of(name, arguments=arguments), 64, 96)


def test_a_text_and_a_theta_mean_the_same() -> None:
    text = "1/2|0|1/2|0|1/2|1/2|1/4"
    assert plan(text, 64, 64) == plan(Theta.parse(text), 64, 64) == plan("btt11", 64, 64)
    assert plan("x1=1 y2=1", 64, 64, rank=4) == plan("low_rank", 64, 64, rank=4)


def test_a_family_has_its_own_order_of_the_output() -> None:
    shuffled = plan("block_shuffle", 64, 64, blocks=4)
    assert shuffled.output_order == "efd"
    assert plan("monarch", 64, 64, blocks=4, output_order="efd") == shuffled
    assert plan("block_shuffle", 64, 64, blocks=4, output_order="fed") == plan("monarch", 64, 64, blocks=4)


MISTAKES = [
    (("bt", 64, 64), {}, "unknown structure 'bt'; did you mean 'btt'"),
    (("kronecker_sum", 64, 64), {}, "structure=kronecker_sum needs terms, such as terms=4"),
    (("monarch", 64, 64), {"blok": 4}, "unknown argument blok; did you mean 'blocks'"),
    (("monarch", 64, 64), {"rank": 4}, "structure=monarch takes no rank; it takes blocks"),
    (("low_rank", 64, 96), {"rank": 65}, "64 x 96.*above the 64 features.*the nearest that works there: rank=64"),
    (("low_rank", 64, 96), {"rank": "2*d"}, "rank = 2\\*d: write a whole number such as 64, or a part of d"),
    (("monarch", 6, 30), {"blocks": 4}, "monarch-b4 cannot serve a layer of 6 x 30.*the nearest that works there: bl"),
    (("1|2", 64, 64), {}, "theta '1|2' has 2 numbers, but needs 7"),
    (("1/2|0|1/2|0|1/2|1/2|0", 64, 64), {"blocks": 4}, "takes rank alone beside it, not blocks"),
    ((None, 64, 64), {}, "structure = None is neither a name"),
    (("btt", 64.0, 64), {}, "d_in = 64.0 is not a whole number of features"),
    (("btt", 64, 0), {}, "d_out = 0: a layer has at least 1 feature"),
    (("btt", 64, 64), {"rounding": "papr"}, "unknown rounding 'papr'; did you mean 'paper'"),
    (("btt", 64, 64), {"contraction": "last"}, "unknown contraction 'last'"),
    (("btt", 64, 64), {"factors": 3, "output_order": "efd"}, "output_order = efd orders the output of two factors"),
]


@pytest.mark.parametrize(("words", "more", "message"), MISTAKES)
def test_a_mistake_is_one_line(words: tuple[object, ...], more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        plan(*words, **more)
    assert "\n" not in str(error.value)
    assert "structure." not in str(error.value)


def test_a_plan_can_be_read() -> None:
    found = plan("btt", 768, 3072)
    assert repr(found) == (
        "LinearPlan(768 -> 3072, tga,fga,feg->tfe, rank at most 768, 110,592 parameters, 110,592 MACs a row)"
    )
    rows = {line[:16].strip(): line.split() for line in str(found).splitlines()}
    assert rows["parameters"][1:] == ["110,592", "2,359,296", "4.69%"]
    assert rows["MACs a row"][3:] == ["110,592", "2,359,296", "4.69%"]
    assert rows["rank at most"][3:] == ["768", "768", "100%"]
    assert rows["nu    compute"][2:] == [f"{found.sizes.taxonomy.nu:.3f}", "1"]
    assert [rows[name][1] for name in "AB"] == ["36,864", "73,728"]
    assert name_of(theta_of("btt")) == "btt"
