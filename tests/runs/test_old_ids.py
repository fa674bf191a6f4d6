"""The index of old ids: a run of an older schema is found, and a store is read once."""

import json
from pathlib import Path
from typing import Any

import pytest

from structlin.config.identity import run_id, to_mapping
from structlin.config.science import SCHEMA
from structlin.host.files import write_json
from structlin.runs.old_ids import FILE
from structlin.runs.store import RunFolder, Store
from tests.schemas import id_of, stored_by
from tests.tiny import tiny

OLD = "0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with a run of schema 1 and one of today."""
    write_json(tmp_path / OLD / "config.json", stored_by(1, tiny()))
    today = tiny("dense")
    write_json(tmp_path / run_id(today) / "config.json", to_mapping(today))
    return tmp_path


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders whose config was opened to identify them."""
    opened: list[str] = []
    whole = RunFolder.stored_id

    def stored_id(self: RunFolder) -> str:
        opened.append(self.run_id)
        return whole(self)

    monkeypatch.setattr(RunFolder, "stored_id", stored_id)
    return opened


def test_a_run_of_an_older_schema_is_found_and_its_config_opened_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = counting(monkeypatch)
    assert Store(root).folder(tiny()).run_id == OLD
    assert len(opened) == 2
    assert Store(root).folder(tiny()).run_id == OLD
    assert len(opened) == 2
    new = tiny("low_rank")
    write_json(root / run_id(new) / "config.json", to_mapping(new))
    assert Store(root).folder(tiny()).run_id == OLD
    assert opened[2:] == [run_id(new)]


BROKEN = ["{", "[]", f'{{"schema": {SCHEMA - 1}, "seen": [], "old": {{}}}}', f'{{"schema": {SCHEMA}, "seen": 3}}']


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_or_older_index_is_made_anew(root: Path, content: str) -> None:
    (root / FILE).write_text(content)
    assert Store(root).folder(tiny()).run_id == OLD
    index: dict[str, Any] = json.loads((root / FILE).read_text())
    assert sorted(index["seen"]) == sorted([OLD, run_id(tiny("dense"))])
    assert list(index["old"].values()) == [OLD]


def test_a_run_of_schema_2_is_found_under_the_id_it_had(tmp_path: Path) -> None:
    older = tiny(numerics=1)
    stored = stored_by(2, older)
    write_json(tmp_path / id_of(stored) / "config.json", stored)
    assert id_of(stored) == "de7a2883f468f26c"
    assert Store(tmp_path).folder(older).run_id == id_of(stored) != run_id(older)


def test_a_run_of_older_numerics_is_not_continued(tmp_path: Path) -> None:
    stored = stored_by(2, tiny(numerics=1))
    write_json(tmp_path / id_of(stored) / "config.json", stored)
    assert Store(tmp_path).folder(tiny()).run_id == run_id(tiny())
    assert not Store(tmp_path).folder(tiny()).exists()


def test_a_config_that_cannot_be_read_yet_is_looked_at_again(root: Path) -> None:
    broken = root / "fedcba9876543210" / "config.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert Store(root).folder(tiny()).run_id == OLD
    other = tiny("kronecker")
    write_json(broken, stored_by(1, other))
    assert Store(root).folder(other).run_id == broken.parent.name
