"""Names among others say what differs, stay apart, and what is left out stands in a title once."""

from __future__ import annotations

import itertools

import pytest

from structlin.drawing.names import mixture_of, readable, shared, short, shortened, titled

CAPPED = ("dense", "btt/paper+fixed-norm", "low_rank/paper+fixed-norm")

CASES = [
    (CAPPED, ("dense", "btt", "low rank"), "all but dense: fixed-norm, paper's rounding"),
    (("dense", "btt+fixed-norm"), ("dense", "btt"), "all but dense: fixed-norm"),
    (("btt+fixed-norm", "btt+fixed-norm+naive"), ("btt", "btt, naive"), "all: fixed-norm"),
    (("btt", "btt+fixed-norm"), ("btt", "btt, fixed-norm"), ""),
    (("btt/paper", "btt"), ("btt (paper)", "btt"), ""),
    (("dense", "dense+fixed-norm"), ("dense", "dense, fixed-norm"), ""),
    (("btt/paper+moe-ffn8+own-cap", "moe-ffn8+own-cap", "dense"),
     ("btt (paper), standard MoE (8)", "standard MoE (8)", "dense"), "all but dense: own-cap"),
    (("btt+moe-ffn8", "low_rank+moe-ffn8"), ("btt, standard MoE (8)", "low rank, standard MoE (8)"), ""),
    (("btt+fixed-norm",), ("btt, fixed-norm",), ""),
]  # fmt: skip


@pytest.mark.parametrize(("variants", "said", "common"), CASES)
def test_a_name_says_what_differs(variants: tuple[str, ...], said: tuple[str, ...], common: str) -> None:
    assert tuple(readable(variant, variants) for variant in variants) == said
    assert shared(variants) == common
    assert titled("Losses", variants) == ("Losses" if not common else f"Losses ({common})")


def test_no_two_names_are_alike_whatever_is_shown_together() -> None:
    structures = ("dense", "btt", "btt/paper", "moe-btt8", "btt+moe-ffn8")
    options = ("", "+fixed-norm", "+learned-norm", "+naive", "+fixed-norm+naive")
    every = [f"{one}{option}" for one in structures for option in options]
    for shown in itertools.combinations(every, 3):
        assert len({short(one, shown) for one in shown}) == 3, shown


def test_a_record_is_read_under_short_names_and_stays_as_it_was() -> None:
    record = {
        "choices": {"where": "x"},
        "multipliers": {CAPPED[1]: {"mean": 1.0}},
        "warnings": [{"variant": CAPPED[2]}],
    }
    found = shortened(record, CAPPED)
    assert found["multipliers"] == {"btt": {"mean": 1.0}}
    assert found["warnings"] == [{"variant": "low_rank"}]
    assert list(record["multipliers"]) == [CAPPED[1]]


def test_a_kind_of_mixture_is_named_among_others() -> None:
    among = ("dense", "moe-ffn8+own-cap", "moe-ffn16+own-cap")
    assert [mixture_of(one, among) for one in among[1:]] == ["standard MoE", "standard MoE"]
