"""docs/tutorials/laws.ipynb runs from its first cell to its last, on the runs that are kept here."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "tutorials" / "laws.ipynb"


def test_every_cell_of_the_tutorial_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As plain Python in one namespace: a kernel would take seconds and start a server."""
    monkeypatch.chdir(ROOT)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert "btt needs" in capsys.readouterr().out
    predictions = names["laws"].predict(1e13)  # type: ignore[attr-defined]
    assert {one["variant"] for one in predictions} == {"dense", "btt"}
    assert all(one["loss"] > 0 for one in predictions)
