"""The catalogue: the paper's 23 thetas against a table of their own, the names, the published decimals."""

import re
from fractions import Fraction as F
from pathlib import Path

import pytest
import yaml

from structlin.config.compose import group_options
from structlin.errors import UserError
from structlin.structure import CATALOG, FAMILIES, PAPER_IDS, Theta, factorise, lookup, name_of, theta_of

# Typed from the description of the sweep of arXiv 2410.02117, not from the catalogue.
TABLE = """
btt1 (1/2,0,1/2,0,1/2,1/2,0)  btt2 (1/3,0,2/3,0,2/3,1/3,0)  btt3 (1/4,0,3/4,0,3/4,1/4,0)  btt5 (2/3,0,1/3,0,1/3,2/3,0)
btt6 (3/4,0,1/4,0,1/4,3/4,0)  btt7 (2/3,0,1/3,0,2/3,1/3,0)  btt8 (1/3,0,2/3,0,1/3,2/3,0)  btt9 (3/4,0,1/4,0,3/4,1/4,0)
btt10 (1/4,0,3/4,0,1/4,3/4,0)  btt11 (1/2,0,1/2,0,1/2,1/2,1/4)  btt12 (1/2,0,1/2,0,1/2,1/2,1/3)
btt13 (1/3,0,2/3,0,2/3,1/3,1/4)  btt14 (2/3,0,1/3,0,1/3,2/3,1/4)  btt15 (2/3,0,1/3,0,2/3,1/3,1/4)
btt16 (1/3,0,2/3,0,1/3,2/3,1/4)  tt1 (1/2,1/2,0,1/2,1/2,0,0)  tt2 (1/3,2/3,0,1/3,2/3,0,0)  tt3 (1/2,1/2,0,1/2,1/2,0,1/4)
tt4 (1/3,2/3,0,1/3,2/3,0,1/4)  l1 (1,0,0,0,1,0,3/4)  l2 (1,0,0,0,1,0,1/2)  g1 (1/2,1/4,1/4,1/4,1/2,1/4,0)
g2 (1/2,1/4,1/4,1/4,1/2,1/4,1/4)
"""
PAPER = {name: tuple(map(F, numbers.split(","))) for name, numbers in re.findall(r"(\w+) \(([^)]*)\)", TABLE)}
CONFIGS = Path(__file__).parents[2] / "configs" / "structure"


def test_the_catalogue_holds_the_papers_23_and_no_other_ids() -> None:
    assert len(PAPER) == 23
    assert set(PAPER_IDS) == set(PAPER)
    families = {"dense", "low_rank", "kronecker", "tensor_train", "monarch", "btt"}
    assert set(CATALOG) == families | set(PAPER)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_a_paper_id_is_the_papers_theta(name: str) -> None:
    assert lookup(name).exponents == PAPER[name]
    theta_of(name)  # neither redundant nor degenerate


@pytest.mark.parametrize(
    ("family", "identifier"),
    [("low_rank", "l2"), ("kronecker", "tt1"), ("tensor_train", "tt3"), ("monarch", "btt1"), ("btt", "btt1")],
)
def test_a_family_is_the_id_it_stands_for(family: str, identifier: str) -> None:
    assert lookup(family).exponents == PAPER[identifier]


def test_dense_joins_every_feature_to_both_factors() -> None:
    assert lookup("dense").exponents == (0, 0, 1, 0, 0, 1, 0)
    assert lookup("dense").is_dense


@pytest.mark.parametrize(
    ("name", "shown"),
    [("monarch", "btt"), ("btt1", "btt"), ("l2", "low_rank"), ("tt1", "kronecker"), ("tt3", "tensor_train")]
    + [(name, name) for name in ("dense", "btt2", "btt13", "g2", "l1", "tt4")],
)
@pytest.mark.parametrize("rounding", ["exact", "paper"])
def test_a_theta_is_shown_by_its_first_name(name: str, shown: str, rounding: str) -> None:
    assert name_of(theta_of(name, rounding=rounding)) == shown


def test_a_theta_without_a_name_is_its_text() -> None:
    assert name_of(Theta.parse("1/5,0,4/5,0,1/5,4/5,0")) == "(1/5|0|4/5|0|1/5|4/5|0)"


def test_the_papers_rounding_takes_the_published_decimals() -> None:
    published = theta_of("btt2", rounding="paper")
    assert published.exponents == (F("0.33"), 0, F("0.67"), 0, F("0.67"), F("0.33"), 0)
    kept = factorise(published, 256, 256, "paper")
    assert (kept.a, kept.g) == (6, 41)
    assert kept.used_in == 246
    thirds = factorise(lookup("btt2"), 256, 256, "paper")
    assert (thirds.a, thirds.g, thirds.used_in) == (6, 40, 240)


def test_an_explicit_theta_is_kept_as_written_under_the_papers_rounding() -> None:
    assert theta_of("einsum", theta="1/3|0|2/3|0|2/3|1/3|0", rounding="paper") == lookup("btt2")


def test_rho_overrides_the_rank() -> None:
    assert theta_of("btt", rho="1/4") == lookup("btt11")
    assert theta_of("einsum", theta="1/2,0,1/2,0,1/2,1/2,0", rho="0.25") == lookup("btt11")
    with pytest.raises(ValueError, match="degenerate"):
        theta_of("btt", rho="0.6")


@pytest.mark.parametrize(("name", "hint"), [("bt", "btt"), ("lowrank", "low_rank"), ("kronecer", "kronecker")])
def test_an_unknown_name_suggests_the_nearest_and_lists_all(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{hint}'.*tensor_train"):
        lookup(name)


def test_the_config_group_is_names_einsum_and_sample() -> None:
    """No file restates a name: one option stands for all of them, and the group lists them."""
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"named", "einsum", "sample"}
    assert yaml.safe_load((CONFIGS / "named.yaml").read_text())["name"] in CATALOG
    assert set(group_options("structure")) == set(CATALOG) | set(FAMILIES) | {"einsum", "sample"}
