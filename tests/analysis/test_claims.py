"""Claims: a verdict follows from an interval, comparisons from names and places, and planted gains are found."""

import pandas as pd
import pytest

from analysis import claims
from analysis.claims import CLAIMS, FAILS, HOLDS, UNDECIDED, Claim, findings, judge, overall, page
from analysis.make import Maker
from structlin.errors import UserError
from structlin.laws.choices import Choices
from tests.analysis import tables
from tests.analysis.planted import planted

NAN = float("nan")


def claim(beginning: str) -> Claim:
    """The one that begins so."""
    (found,) = (one for one in CLAIMS if one.text.startswith(beginning))
    return found


@pytest.mark.parametrize(
    ("side", "low", "high", "verdict"),
    [
        ("less", 1.1, 1.4, HOLDS),
        ("less", 0.9, 1.4, UNDECIDED),
        ("less", 0.5, 0.9, FAILS),
        ("more", 0.5, 0.9, HOLDS),
        ("more", 0, 0.9, HOLDS),
        ("more", 0.5, 1.2, UNDECIDED),
        ("more", 1.2, 1.5, FAILS),
        ("alike", 0.8, 1.3, HOLDS),
        ("alike", 0.6, 1.3, UNDECIDED),
        ("alike", 0.8, 1.6, UNDECIDED),
        ("alike", 1.1, 1.2, FAILS),
        ("alike", 0.3, 0.6, FAILS),
        ("less", NAN, NAN, UNDECIDED),
    ],
)
def test_a_verdict_is_on_which_side_of_one_the_interval_lies(side: str, low: float, high: float, verdict: str) -> None:
    assert judge(side, low, high) == verdict


def test_a_claim_holds_where_all_comparisons_do() -> None:
    assert overall([HOLDS, HOLDS]) == HOLDS
    assert overall([HOLDS, FAILS, HOLDS, UNDECIDED]) == "of 4: 2 holds, 1 does not hold, 1 undecided"


def test_comparisons_follow_from_names() -> None:
    names = [
        "dense", "moe-btt8+learned-norm+shared-cap", "moe-btt16+learned-norm+shared-cap",
        "moe-btt8-ffn+learned-norm+shared-cap", "moe-ffn8-random+learned-norm", "moe-ffn8-all-random+learned-norm",
        "moe-dense8+learned-norm", "moe-low_rank16+learned-norm",
    ]  # fmt: skip
    runs = pd.DataFrame({"variant": names})
    pairs = {one.text: set(one.pairs(runs)) for one in CLAIMS if "fig7" in one.studies}
    btt8, ffn8 = names[1], names[4]
    assert pairs[claim("A mixture").text] == {(btt8, "dense"), (names[2], "dense"), (ffn8, "dense")}
    assert pairs[claim("BTT-MoE needs less compute than the").text] == {(btt8, ffn8)}
    assert pairs[claim("BTT-MoE needs less compute than dense").text] == {(btt8, names[6]), (names[2], names[7])}
    assert pairs[claim("Routing").text] == {(btt8, names[3]), (names[5], ffn8)}


def test_planted_gains_are_found_in_their_places() -> None:
    """Sharing and low rank are planted as dearer than dense, btt as cheaper."""
    runs, _ = planted("taxonomy")
    found = findings(Maker(Choices(bootstrap=20), runs.assign(moe="none")), ["fig4"])
    by_claim = {one.text: [f for f in found if f.claim is one] for one in CLAIMS}
    shared = by_claim[claim("Sharing").text]
    assert {one.variant for one in shared} == {"kronecker", "tensor_train", "g1"}
    low_rank = by_claim[claim("So does").text]
    assert {"low_rank", "btt7"} <= {one.variant for one in low_rank}
    (btt,) = by_claim[claim("BTT needs").text]
    assert btt.verdict == HOLDS
    # At a loss the least N D goes as A^(1 / alpha), and a gain divides A.
    assert btt.value == pytest.approx(tables.TAXONOMY["btt"] ** (1 / tables.DENSE.alpha), rel=0.1)
    assert {one.verdict for one in shared} == {HOLDS}
    assert {one.variant: one.verdict for one in low_rank}["btt7"] == FAILS


def test_the_page_names_every_comparison() -> None:
    runs, _ = planted("heads", "btt")
    found = findings(Maker(Choices(bootstrap=20), runs), ["fig10"])
    said = page(found)
    assert said.count("| fig10 |") == len(found) == 4
    assert "**fig10: " in said


def test_forecasts_are_summed_up_by_name() -> None:
    scores = [
        {"forecast": "a", "error": 0.01, "inside": True, "multiplier": {"inside": False}},
        {"forecast": "a", "error": -0.03, "inside": False, "multiplier": None},
        {"forecast": "b", "error": 0.02, "inside": None, "multiplier": None},
    ]
    winners = [{"forecast": "a", "predicted": "btt", "measured": "dense"}]
    said = page([], {"scores": scores, "winners": winners})
    assert "| a | 1 of 2 | 2.0% | 0 of 1 | 0 of 1 |" in said
    assert "| b | 0 of 0 | 2.0% | 0 of 0 | 0 of 0 |" in said


def test_an_unknown_study_is_one_line() -> None:
    with pytest.raises(UserError, match="study=fig3 bears on no claim"):
        claims.main(["study=fig3"])


def test_runs_of_ones_own_are_compared_once_a_claim() -> None:
    runs, _ = planted("taxonomy")
    maker = Maker(Choices(bootstrap=20, confidence=0.5), runs.assign(moe="none"))
    found = findings(maker)
    assert {one.study for one in found} == {claims.OWN}
    assert len({(one.claim.text, one.variant, one.baseline) for one in found}) == len(found)
    said = page(found, confidence=0.5)
    assert "C_baseline / C, 50% |" in said
    assert "analysis/data" not in said


def test_a_comparison_that_cannot_be_made_says_why() -> None:
    runs, _ = planted("taxonomy")
    runs = runs.assign(moe="none")
    few = runs[(runs["variant"] != "btt") | (runs.groupby("variant").cumcount() < 1)]
    (btt,) = (one for one in findings(Maker(Choices(bootstrap=20), few), ["fig4"]) if one.claim.text.startswith("BTT"))
    assert btt.verdict == UNDECIDED
    assert btt.reason
    assert f"| - | {btt.reason} | undecided |" in page([btt])


@pytest.mark.parametrize("word", ["--runs=/nonexistent", "runs=/nonexistent"])
def test_a_store_is_looked_for_however_its_key_is_written(word: str) -> None:
    with pytest.raises(UserError, match="no run store at /nonexistent"):
        claims.main([word])


def test_runs_that_bear_on_nothing_and_two_names_for_one_store(tmp_path) -> None:
    runs, _ = planted("taxonomy")
    runs.assign(moe="none").to_parquet(tmp_path / "t.parquet")
    words = ["source=table", f"table={tmp_path / 't.parquet'}", "bootstrap=20"]
    with pytest.raises(UserError, match="are those of one study; name one, or none"):
        claims.main(["study=fig4,pixels", *words])
    with pytest.raises(UserError, match="these runs bear on no claim"):
        claims.main(["study=fig7", *words])
