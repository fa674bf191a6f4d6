"""``python fit_laws.py``: end to end in a process of its own, wrong commands in one line, and no torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.laws.tables import two

ROOT = Path(__file__).parents[2]


def _fit_laws(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "fit_laws.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_table_from_the_command_line(tmp_path: Path) -> None:
    table = two().rename(
        columns={"params": "N", "tokens": "D", "loss": "L", "flops": "C", "variant": "arch", "run": "name"}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    done = _fit_laws(
        "source=table",
        f"table={tmp_path / 't.csv'}",
        "columns={params: N, tokens: D, loss: L, flops: C, structure: arch, run: name, seed: seed}",
        "where=D > 1e7 and arch in ['dense', 'btt']",
        f"out={tmp_path / 'laws'}",
        "bootstrap=100",
    )
    assert done.returncode == 0, done.stderr
    assert "Compute multiplier" in done.stdout
    found = json.loads((tmp_path / "laws" / "laws.json").read_text())
    assert set(found["parametric"]) == {"dense", "btt"}
    assert found["choices"]["where"] == "D > 1e7 and arch in ['dense', 'btt']"
    written = {path.name for path in (tmp_path / "laws").iterdir()}
    assert {"laws.json", "report.html", "frontier.png", "frontier.pdf", "multipliers.png", "isoflop.pdf"} <= written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sorce=table"], "did you mean 'source'"),
        (["source=tabel"], "did you mean 'table'"),
        (["delta=small"], "delta=small is not understood; it takes a number"),
        (["delta=-1"], "delta is -1.0"),
        (["objective=hubr"], "did you mean 'huber'"),
        (["confidence=90"], "confidence=90.0 must lie in"),
        (["source=table"], "needs table="),
        (["source=table", "table=none.csv"], "is not a file"),
        (["runs=nowhere/"], "nowhere"),
        (["baseline"], "is not key=value"),
        (["source=table", "table=x.csv", "columns={params"], "is not understood"),
        (["offset=low"], "valid: fit, zero"),
        (["budgets=1e16,x"], "numbers such as"),
    ],
)
def test_wrong_commands_get_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import fit_laws
    from structlin.errors import door

    monkeypatch.setattr(sys, "argv", ["fit_laws.py", *arguments])
    with pytest.raises(SystemExit) as left:
        door(fit_laws.main)
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_help() -> None:
    done = _fit_laws("--help")
    assert done.returncode == 0
    assert "baseline=dense" in done.stdout


def test_fitting_imports_no_torch() -> None:
    code = "import sys; import structlin.laws.run, structlin.laws.report.console; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0
    spoiled = code.replace("import sys;", "import sys; sys.modules['torch'] = sys;")
    assert subprocess.run([sys.executable, "-c", spoiled], cwd=ROOT, check=False, timeout=60).returncode == 1
