"""The check of a GPU on a CPU: what can be done there is right, what breaks off stops nothing, time is shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench import gpu_check
from bench.gpu import layers
from bench.gpu.check import Check
from bench.gpu_check import page, run

CPU = torch.device("cpu")


def record(check: Check) -> dict[str, Any]:
    return {"name": "CPU", **{key: getattr(check, key) for key in ("failures", "far", "left_out", "found")}}


def test_what_a_cpu_can_show() -> None:
    kept: list[set[str]] = []
    check = Check(CPU, 0.5, keep=lambda one: kept.append(set(one.found)))
    run(check, {"environment", "groups", "syncs"})
    assert not check.failures
    assert not check.left_out
    assert max(check.found["groups"].values()) < 1e-5
    # Kept before and after every part.
    assert [len(found) for found in kept] == [0, 2, 2, 3, 3, 4]
    text = page(record(check))
    assert text.startswith("# CPU\n")
    assert f"| torch | {torch.__version__} |" in text


def test_errors_of_layers_and_groups_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "layer_error", lambda *_: 1e-3)
    check = Check(CPU, 0.5)
    run(check, {"layers"})
    said = [one for one in check.failures if "float32" in one]
    assert said
    assert all("error 1.00e-03 is above 1e-05" in one for one in said)
    assert not [one for one in check.failures if "bfloat16" in one]


def test_a_part_that_breaks_off_stops_no_other_and_time_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(check: Check, found: dict[str, Any]) -> None:
        found["half"] = 1
        raise ValueError("no such device")

    def slow(check: Check, found: dict[str, Any]) -> None:
        for number in range(10**6):
            if not check.has_time(f"number {number}"):
                return
            found["last"] = number

    def last(check: Check, found: dict[str, Any]) -> None:
        found["ran"] = True

    monkeypatch.setattr(gpu_check, "SECTIONS", ((breaks, 1), (slow, 1), (last, 8)))
    check = Check(CPU, 1 / 60)
    run(check, set())
    assert check.found["breaks"]["half"] == 1
    assert "no such device" in check.found["breaks"]["broke"]
    assert check.failures == ["breaks broke: ValueError: no such device"]
    assert check.found["last"] == {"ran": True}
    assert len(check.left_out) == 1
    assert check.left_out[0].startswith("number ")
    # A ninth of a second, not the whole of it.
    assert check.seconds_left > 0.5


def test_numbers_far_from_their_prediction_are_named() -> None:
    check = Check(CPU, 1.0)
    check.compare("a step, ms", 10.0, 5.0)
    check.compare("another", 7.0, 5.0)
    assert check.far == ["a step, ms: 10, predicted 5 (x 2.00)"]
