"""The memory model gives the peaks of steps on fake CUDA tensors, kept as a table; what it advises fits."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.fake.cases import case
from bench.fake_cuda import COMPILED, PEAKS, STEPS
from structlin.anatomy.memory import GB, Peak, advice, fitted, peak
from structlin.config.placement import Placement

KEPT = Path(__file__).parents[2] / "bench" / "results" / "fake-cuda.json"
ROWS = {row["case"]: row for row in json.loads(KEPT.read_text())["rows"]}
REMEDY = "FAKE/bin/python -m bench.fake_cuda out=bench/results makes the table again"


def test_every_case_is_kept() -> None:
    assert ROWS.keys() == {*STEPS, *COMPILED, *PEAKS}, REMEDY
    kinds = {kind for text in PEAKS for kind in re.findall(r"moe=(\w+)", text)}
    assert kinds == {"btt", "ffn", "dense", "low_rank"}


@pytest.mark.parametrize("text", [text for text in ROWS if text not in COMPILED])
def test_the_model_is_within_a_tenth_of_a_step_on_fake_tensors(text: str) -> None:
    one, row = case(text), ROWS[text]
    assert peak(one.science, one.placement).total / GB == pytest.approx(row["peak_gb"], rel=0.1), REMEDY


def test_no_step_waits_for_the_device() -> None:
    assert {text: row["waits"] for text, row in ROWS.items() if row["waits"]} == {}


@pytest.mark.parametrize("text", STEPS)
def test_a_compiled_step_launches_and_moves_less(text: str) -> None:
    whole, compiled = ROWS[text], ROWS[f"{text}:compile"]
    assert compiled["kernels"] < whole["kernels"]
    assert compiled["gb_moved"] < 0.9 * whole["gb_moved"]


def test_a_btt_of_width_256_moves_1_8_times_fewer_bytes_than_before_blocks_were_fused() -> None:
    """It moved 22.1 GB when norms were widened three times and gradients read x and dy twice.

    As one dense product a layer it moves more, and is the faster for it on a GPU that was measured (docs/gpu.md).
    """
    assert ROWS["btt1:256:fused:compile"]["gb_moved"] <= 22.1 / 1.8 < ROWS["btt1:256:compile"]["gb_moved"] < 22.1 / 1.4


def test_byte_pairs_in_parts_of_65536_tokens_take_less_than_16_gb() -> None:
    assert ROWS["btt1:256:data=gpt2:micro=65536"]["peak_gb"] < 16


# ---- what follows from it -------------------------------------------------------------------------------------------

LARGE = case("dense:1024:moe=dense:experts=16:layers=9:norm=learned").science
PLAIN = Placement()


def test_groups_add_up_and_less_is_kept_of_less() -> None:
    whole = peak(LARGE, PLAIN)
    assert isinstance(whole, Peak)
    assert whole.total == sum(vars(whole).values())
    for smaller in (replace(PLAIN, recompute=True), replace(PLAIN, micro_tokens="16384")):
        assert peak(LARGE, smaller).total < whole.total
        assert peak(LARGE, smaller).weights == whole.weights
    assert peak(LARGE, PLAIN, 2).total < whole.total


def test_what_is_picked_fits_and_what_fits_is_left_alone() -> None:
    whole = peak(LARGE, PLAIN).needed
    assert fitted(LARGE, PLAIN, whole).said == ""
    assert fitted(LARGE, PLAIN, 0).said == ""
    for available in (0.9 * whole, 0.5 * whole, 0.4 * whole):
        found = fitted(LARGE, replace(PLAIN, fit="auto"), available)
        assert peak(LARGE, found.placement).needed <= available
        assert found.said.startswith("fit=auto: ")
    # Parts of a batch are tried before blocks are computed again.
    assert fitted(LARGE, PLAIN, 0.9 * whole).placement == replace(PLAIN, micro_tokens="32768")
    assert "still needs" in fitted(LARGE, PLAIN, 1.0).said


def test_advice_names_what_would_fit() -> None:
    needs = peak(LARGE, PLAIN).needed
    assert advice(LARGE, PLAIN, needs) == ""
    assert advice(LARGE, PLAIN, 0) == ""
    said = advice(LARGE, PLAIN, 80 * GB)
    assert re.fullmatch(r"needs 1\d\d of 80 GB: recompute=true, micro_tokens=\d+ or 2 GPUs", said)
    tokens = re.findall(r"micro_tokens=(\d+)", said)[0]
    for way in (replace(PLAIN, recompute=True), replace(PLAIN, micro_tokens=tokens)):
        assert peak(LARGE, way).needed <= 80 * GB
    assert peak(LARGE, replace(PLAIN, micro_tokens=str(2 * int(tokens)))).needed > 80 * GB
    assert peak(LARGE, PLAIN, 2).needed <= 80 * GB
    assert "no part of it fits" in advice(LARGE, PLAIN, 1e6)
