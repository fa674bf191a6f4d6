"""Compute per dimension of every family, by hand: forward MACs of a square layer over its width."""

from dataclasses import replace

import pytest

from structlin.anatomy.ledger import ledger
from structlin.anatomy.shapes import linear_shape
from structlin.config.model import MlpConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.data import DataRecipe
from structlin.data.recipe import LABELS
from structlin.structure import theta_of

D = 256
BY_HAND = {
    ("dense", ()): D,
    ("low_rank", ("rank=8",)): 2 * 8,
    ("low_rank", ("rank=d/4",)): 2 * D / 4,
    ("btt", ()): 2 * 16,
    ("btt", ("rank=4",)): 2 * 4 * 16,
    ("monarch", ("blocks=4",)): 2 * D / 4,
    ("monarch", ("blocks=16",)): 2 * D / 16,
    ("block_shuffle", ("blocks=4",)): 2 * D / 4,
    ("kronecker", ()): 2 * 16,
    ("mpo", ("cores=2", "bond=8")): 2 * 16 * 8,
    ("blast", ("blocks=4", "rank=8")): 8 * (2 * D + 16) / D,
}


def science_of(name: str, arguments: tuple[str, ...], **model: object) -> Science:
    given = dict(word.split("=") for word in arguments)
    whole = {key: int(value) if value.isdigit() else value for key, value in given.items()}
    return Science(
        structure=StructureConfig(str(theta_of(name, arguments=whole))),
        model=MlpConfig(d_model=D, **model),
        data=DataRecipe("digits", LABELS),
        task="classification",
    )


@pytest.mark.parametrize(("name", "arguments"), BY_HAND)
def test_xi_of_a_square_layer(name: str, arguments: tuple[str, ...]) -> None:
    shape = linear_shape(science_of(name, arguments), "blocks.0.up", D, D, D)
    assert shape.plan.macs / D == pytest.approx(BY_HAND[name, arguments])


def test_three_factors_of_64_features_each_of_4() -> None:
    """x_1 joins factor 1 alone, r 2: 64 * 4 * 2 + 2 * 64 * 4 * 2 + 64 * 4 * 2 by the cheapest order of equal cores."""
    science = replace(science_of("btt", ("factors=3", "rank=2")))
    plan = linear_shape(science, "blocks.0.up", 64, 64, 64).plan
    assert plan.macs / 64 == 2 * 4 * 4


@pytest.mark.parametrize(("name", "arguments"), BY_HAND)
def test_xi_of_a_model_is_that_of_its_structured_layers(name: str, arguments: tuple[str, ...]) -> None:
    """Of the layers D x 4 D and 4 D x D; a low rank of R has 2 R again, and a dense one 4 D D over 5 D / 2."""
    science = science_of(name, arguments, num_layers=2)
    macs = [linear_shape(science, "blocks.0.up", a, b, D).plan.macs for a, b in ((D, 4 * D), (4 * D, D))]
    assert ledger(science).xi == pytest.approx(sum(macs) / (5 * D))
    if name == "low_rank":
        assert ledger(science).xi == pytest.approx(BY_HAND[name, arguments])
    if name == "dense":
        assert ledger(science).xi == pytest.approx(1.6 * D)
