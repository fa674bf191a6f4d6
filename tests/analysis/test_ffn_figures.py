"""Figures of structured feed-forward networks: planted gaps, slopes and ratios are recovered and stand in them."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis.catalogue import FIGURES
from analysis.figures import compressed, ffn_slopes, gaps, guided, overtraining, wide_structured

LUCK = {0: 0.5, 1: -0.2, 2: 0.1}
"""Of a seed: far larger than any gap, and the same for all structures."""
COMMON = {
    "status": "done", "data": "sotu", "schedule": "cosine", "d_model": 32, "inherited_flops": 0.0,
    "params_total": 100.0,
    "tokens": 1e5, "step": 100, "training_flops": 1e11, "config.guide.kind": "none", "config.start.share": math.nan,
    "config.start.conversion": "nearest", "config.model.kv_heads": math.nan, "config.model.attention_width": math.nan,
    "tokens_per_second": 1e3, "decode_ms_1": 1.0, "decode_ms_16": 0.25, "device_name": "a processor",
}  # fmt: skip


def table(*rows: dict) -> pd.DataFrame:
    """Runs of three seeds for every row: its loss, and the luck of the seed."""
    whole = [
        {**COMMON, **row, "val_loss": row["val_loss"] + LUCK[seed], "seed": seed, "run_id": f"{place}-{seed}"}
        for place, row in enumerate(rows)
        for seed in LUCK
    ]
    return pd.DataFrame(whole)


def test_paired_gaps_are_free_of_the_luck_of_seeds() -> None:
    runs = table({"structure": "dense", "val_loss": 2.0}, {"structure": "low_rank-d:4", "val_loss": 2.03})
    runs.loc[3:, "val_loss"] += [0.01, -0.01, 0.0]
    found = gaps.gap(runs[3:], runs[:3])
    assert found is not None
    # Student's t of two degrees of freedom at 95%, by a table.
    assert (found.mean, found.pairs) == (pytest.approx(0.03), 3)
    assert found.half == pytest.approx(2.920 * 0.01 / math.sqrt(3))
    assert found.said == "+0.030 ± 0.017"
    assert gaps.gap(runs[3:], runs[:0]) is None
    assert math.isnan(gaps.mean_of(np.array([1.0])).half)


def test_published_gaps_are_logarithms_of_perplexities_over_dense() -> None:
    assert gaps.published_gap("xl", "low_rank", 32) == pytest.approx(math.log(13.55 / 12.46))
    assert gaps.published_gap("xl", "block_shuffle", 32, "stochastic") == pytest.approx(math.log(13.06 / 12.46))
    assert gaps.published_gap("m", "wide") == pytest.approx(math.log(17.89 / 18.29))
    assert gaps.published_gap("l", "low_rank", 32) is None
    assert gaps.published()["source"].ne("").all()


def test_a_guide_changes_what_was_planted() -> None:
    structured = [
        {"structure": name, "config.guide.kind": guide, "val_loss": 2.0 + 0.001 * percent - 0.02 * (guide != "none")}
        for name, percent in gaps.PERCENT.items()
        for guide in ("none", "stochastic")
    ]
    drawing = guided.draw(table({"structure": "dense", "val_loss": 2.0}, *structured))
    none, stochastic, *published = drawing.panels[0].series
    assert none.y == pytest.approx([0.063] * 3 + [0.032] * 3)
    assert stochastic.y == pytest.approx(none.y - 0.02)
    assert [len(series.x) for series in published] == [6, 3]
    assert "BlockShuffle 32%, stochastic -0.020 ± 0.000" in drawing.caption


def test_the_gap_over_the_length_of_training_is_the_planted_one() -> None:
    rows = [
        {"structure": name, "tokens": 100.0 * ratio, "val_loss": 2.0 + above / ratio, "params_total": size}
        for ratio in (20, 60, 200)
        for name, above, size in (("dense", 1.0, 100.0), ("low_rank-d:4", 3.0, 70.0))
    ]
    drawing = overtraining.draw(table(*rows))
    (line,) = drawing.panels[1].series
    assert line.x == pytest.approx([20, 60, 200])
    assert line.y == pytest.approx([2 / 20, 2 / 60, 2 / 200])
    assert "it changes by -0.090 ± 0.000 from 20 to 200" in drawing.caption


def test_planted_slopes_are_recovered_beside_the_published_ones() -> None:
    falls = {"dense": 0.05, "low_rank-d:4": 0.06, "block_shuffle-b4": 0.04}
    rows = [
        {"structure": name, "d_model": width, "training_flops": 1e7 * width**3, "val_loss": 0.0}
        for name in falls
        for width in (16, 24, 32)
    ]
    runs = table(*rows)
    exponents = runs["structure"].map(falls)
    runs["val_loss"] = (2 + 0.1 * runs["seed"]) * (runs["training_flops"] / 1e11) ** -exponents
    drawing = ffn_slopes.draw(runs)
    *ours, published = drawing.panels[1].series
    assert {s.variant: s.y[0] for s in ours} == {
        name.split("-")[0]: pytest.approx(-fall) for name, fall in falls.items()
    }
    assert list(published.y) == [-0.053, -0.0554, -0.0554]
    assert "low rank -0.0100 ± 0.0000" in drawing.caption


def test_ways_are_told_apart_and_compared_at_their_ends() -> None:
    def of(structure: str, share: float, loss: float, conversion: str = "nearest") -> list[dict]:
        common = {"structure": structure, "config.start.share": share, "config.start.conversion": conversion}
        common["config.start.step"] = 50
        before = {"inherited_flops": share * 1e11, "training_flops": share * 1e11, "step": 0, "val_loss": loss + 1}
        return [{**common, **before}, {**common, "inherited_flops": share * 1e11, "val_loss": loss}]

    rows = [{"structure": "dense", "val_loss": 2.0}, {"structure": "low_rank-d:4", "val_loss": 2.05}]
    rows += [*of("low_rank-d:4", 0.5, 2.02), *of("low_rank-d:4", 0.5, 2.01, "aware"), *of("mpo-c2-r8", 0.8, 2.1)]
    rows += [*of("dense", 0.8, 1.99), {"structure": "dense", "schedule": "constant", "val_loss": 2.2, "step": 50}]
    runs = table(*rows)
    # The two evaluations of a run have one id.
    runs["run_id"] = runs[["structure", "config.start.share", "config.start.conversion", "seed", "schedule"]].agg(
        lambda row: "-".join(map(str, row)), axis=1
    )
    assert set(compressed.with_ways(runs)["way"]) == set(compressed.WAYS)
    drawing = compressed.draw(runs)
    found = {(s.label, round(x)): y for s in drawing.panels[1].series for x, y in zip(s.x, s.y, strict=True)}
    assert found == {
        ("from scratch", 0): pytest.approx(0.05), ("50% before", 1): pytest.approx(0.02),
        ("50% before", 2): pytest.approx(0.01), ("80% before", 3): pytest.approx(0.1),
        ("80% before", 4): pytest.approx(-0.01),
    }  # fmt: skip
    assert "to low rank, nearest, after 50% +0.820 ± 0.000" in drawing.caption
    assert "to MPO, TT-SVD, after 80% +0.900 ± 0.000" in drawing.caption


def test_wide_models_are_told_apart_and_their_speeds_are_over_those_of_dense() -> None:
    wide = {"config.model.attention_width": 24.0, "config.model.kv_heads": 1.0, "structure": "low_rank-d:4"}
    rows = [
        {"structure": "dense", "val_loss": 2.0},
        {"structure": "dense", "config.model.kv_heads": 1.0, "val_loss": 2.01, "params_total": 90.0},
        {"structure": "low_rank-d:4", "val_loss": 2.05, "params_total": 70.0},
        {**wide, "d_model": 40, "val_loss": 1.98, "params_total": 75.0, "tokens_per_second": 2e3, "decode_ms_1": 0.5},
    ]
    drawing = wide_structured.draw(table(*rows))
    assert drawing.panels[0].names == ("dense, grouped keys", "low rank", "wide, 0.75 of the parameters")
    assert drawing.panels[0].series[0].y == pytest.approx([0.01, 0.05, -0.02])
    training, one, sixteen, *published = drawing.panels[1].series
    assert (training.y[2], one.y[2], sixteen.y[2]) == pytest.approx((2, 2, 1))
    assert published[0].y == pytest.approx([84_202 / 30_229, 91_147 / 30_229])


@pytest.mark.parametrize("name", ["guided", "overtraining", "ffn-slopes", "compressed", "wide-structured"])
def test_the_catalogue_has_them_without_laws(name: str) -> None:
    figure = FIGURES[name]
    assert (figure.laws, figure.study) == (False, name.replace("-", "_"))
