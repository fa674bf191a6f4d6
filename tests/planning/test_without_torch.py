"""A dry run answers without torch and without data; and this test would notice if it did not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DRY = ["scale=small", "structure=btt,dense", "budget=1e12", "dry_run=true"]


def run(code: str, tmp_path: Path) -> tuple[list[str], str]:
    """Top-level modules that a fresh process has imported after ``code``, and what it printed."""
    program = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stderr.split(), found.stdout


def dry_run(tmp_path: Path, *more: str, before: str = "") -> tuple[list[str], str]:
    arguments = [*DRY, f"runs={tmp_path}/runs", f"data.root={tmp_path}/data", *more]
    return run(f"{before}\nimport sweep\nassert sweep.main({arguments!r}) == 0", tmp_path)


@pytest.mark.parametrize("shown", ["table", "json"])
def test_a_dry_run_imports_no_torch_and_makes_nothing(shown: str, tmp_path: Path) -> None:
    modules, printed = dry_run(tmp_path, f"format={shown}")
    assert "structlin" in modules
    assert not {"torch", "wandb", "datasets", "tiktoken"} & set(modules)
    assert not list(tmp_path.iterdir())
    if shown == "json":
        assert {cell["structure"] for cell in json.loads(printed)["cells"]} == {"btt", "dense"}
    else:
        assert "a guess" in printed


def test_help_imports_no_torch(tmp_path: Path) -> None:
    modules, printed = run("import sweep, train\nsweep.main(['--help'])\ntrain.main(['--help'])", tmp_path)
    assert "torch" not in modules
    assert "structure=" in printed


def test_an_import_of_torch_would_be_noticed(tmp_path: Path) -> None:
    modules, _ = dry_run(tmp_path, before="import structlin.nn.linear")
    assert "torch" in modules
