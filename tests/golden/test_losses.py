"""The mathematics is that of the stored losses: bit by bit on the build that stored them, to 1e-12 on any other."""

import json
import math
from pathlib import Path

import pytest

from structlin.config.identity import science_from
from structlin.config.science import NUMERICS, Science
from tests.golden import losses as golden

STORED = golden.read()
SAME_BUILD = STORED["build"] == golden.build()


@pytest.mark.parametrize("name", STORED["cases"])
def test_the_losses_are_the_golden_ones(name: str) -> None:
    case = STORED["cases"][name]
    found = golden.losses(science_from(case["config"]))
    wrong = golden.difference(case["losses"], found, bits=SAME_BUILD)
    assert not wrong, f"{wrong}; {golden.REMEDY}"


def test_the_losses_are_of_this_numerics() -> None:
    assert STORED["numerics"] == NUMERICS, "NUMERICS was raised: `python -m tests.golden.losses` writes its losses"


def test_every_case_is_stored() -> None:
    assert golden.cases().keys() == STORED["cases"].keys(), "`python -m tests.golden.losses` adds new cases"


def test_every_kind_is_among_the_cases() -> None:
    sciences = [science_from(case["config"]) for case in STORED["cases"].values()]
    assert {science.task for science in sciences} == {"language", "pixels", "regression"}
    assert {science.moe.kind for science in sciences} == {"none", "btt", "ffn", "dense", "low_rank"}
    for kind in ("none", "btt", "ffn", "dense", "low_rank"):
        pairs = {(one.model.weight_norm, one.schedule.kind) for one in sciences if one.moe.kind == kind}
        assert {norm for norm, _ in pairs} == {"none", "fixed", "learned"}
        assert {schedule for _, schedule in pairs} == {"constant", "cosine", "cooldown"}
    for structure in ("dense", "btt", "g2", "low_rank"):
        norms = {one.model.weight_norm for one in sciences if one.structure.name == structure}
        assert norms == {"none", "fixed", "learned"}


def test_readable_losses_are_the_same_numbers() -> None:
    for case in STORED["cases"].values():
        assert [float.fromhex(text) for text in case["losses"]] == case["readable"]


# ---- the check itself -----------------------------------------------------------------------------------------------


def test_one_bit_is_a_difference_on_the_same_build_and_1e_11_on_any() -> None:
    stored = next(iter(STORED["cases"].values()))["losses"]
    losses = [float.fromhex(text) for text in stored]
    for bits in (True, False):
        assert golden.difference(stored, losses, bits=bits) == ""
    losses[7] = math.nextafter(losses[7], 9.0)
    assert golden.difference(stored, losses, bits=True).startswith("step 7: ")
    assert golden.difference(stored, losses, bits=False) == ""
    losses[3] *= 1 + 1e-11
    assert golden.difference(stored, losses, bits=False).startswith("step 3: ")
    losses[3] = math.nan
    assert golden.difference(stored, losses, bits=False).startswith("step 3: ")


FIRST, SECOND = "regression dense moe=none norm=none cosine", "regression btt moe=none norm=fixed constant"


def wanted(*names: str) -> dict[str, Science]:
    return {name: golden.cases()[name] for name in names}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of one case."""
    golden.write(tmp_path / "losses.json", wanted(FIRST))
    return tmp_path / "losses.json"


def test_the_writer_adds_new_cases_and_leaves_the_others(path: Path) -> None:
    before = golden.read(path)
    golden.write(path, wanted(SECOND, FIRST))
    after = golden.read(path)
    assert list(after["cases"]) == [SECOND, FIRST]
    assert after["cases"][FIRST] == before["cases"][FIRST]
    golden.write(path, wanted(SECOND))
    assert golden.read(path)["cases"] == after["cases"]


def test_the_writer_refuses_other_losses_under_the_same_numerics(path: Path) -> None:
    stored = golden.read(path)
    first = stored["cases"][FIRST]["losses"]
    first[4] = math.nextafter(float.fromhex(first[4]), 9.0).hex()
    path.write_text(json.dumps(stored))
    text = path.read_text()
    with pytest.raises(SystemExit, match="NUMERICS must be raised"):
        golden.write(path, wanted(FIRST, SECOND))
    assert path.read_text() == text


def test_the_writer_stores_the_bits_of_another_build_that_agrees(path: Path) -> None:
    stored = golden.read(path)
    true = stored["cases"][FIRST]["losses"]
    text = path.read_text()
    stored["build"]["torch"] = "another"
    stored["cases"][FIRST]["losses"] = [*true[:4], math.nextafter(float.fromhex(true[4]), 9.0).hex(), *true[5:]]
    path.write_text(json.dumps(stored))
    golden.write(path, wanted(FIRST))
    assert path.read_text() == text
    stored["cases"][FIRST]["losses"][4] = (float.fromhex(true[4]) * (1 + 1e-11)).hex()
    path.write_text(json.dumps(stored))
    with pytest.raises(SystemExit, match="NUMERICS must be raised"):
        golden.write(path, wanted(FIRST))


def test_the_writer_writes_all_anew_under_a_raised_numerics(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = golden.read(path)
    stored["cases"][FIRST]["losses"][4] = (1.0).hex()
    path.write_text(json.dumps(stored))
    monkeypatch.setattr(golden, "NUMERICS", NUMERICS + 1)
    golden.write(path, wanted(FIRST, SECOND))
    assert golden.read(path)["numerics"] == NUMERICS + 1
    assert golden.read(path)["cases"].keys() == {FIRST, SECOND}
    assert golden.read(path)["cases"][FIRST]["losses"][4] != (1.0).hex()
    monkeypatch.setattr(golden, "NUMERICS", NUMERICS)
    with pytest.raises(SystemExit, match="NUMERICS only rises"):
        golden.write(path, wanted(FIRST))
