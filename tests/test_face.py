"""The names of the package: loaded when asked for, without torch where none is needed, with types."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import structlin

ROOT = Path(__file__).parents[1]
# A module of this name stands in sys.modules as None: an import of it fails.
BLOCK = "import sys\nsys.modules['torch'] = None\n"
TABLE = """
import numpy as np, pandas as pd
size, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e8, 1e10, 5)))
table = pd.DataFrame({"N": size, "D": tokens, "L": 1.7 + 400 / size**0.34 + 410 / tokens**0.28})
"""
WITHOUT_TORCH = {
    "import": "import structlin as sl\nassert sl.__version__ and 'Linear' in dir(sl)",
    "plan": "import structlin as sl\nassert sl.plan('btt', 768, 3072).params == 110592",
    "fit": f"{TABLE}import structlin as sl\nassert sl.fit(table, params='N', tokens='D', loss='L').parametrics",
}


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("what", sorted(WITHOUT_TORCH))
def test_what_needs_no_torch_runs_without_it(what: str) -> None:
    done = run(BLOCK + WITHOUT_TORCH[what])
    assert done.returncode == 0, done.stderr


def test_an_import_of_torch_would_be_noticed() -> None:
    done = run(f"{BLOCK}import structlin as sl\nsl.Linear")
    assert done.returncode != 0
    assert "torch" in done.stderr


def test_importing_the_package_loads_nothing_else() -> None:
    done = run("import sys\nimport structlin\nprint(*sorted({'torch', 'numpy', 'pandas', 'scipy'} & set(sys.modules)))")
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_every_name_is_there() -> None:
    assert set(structlin.__all__) <= set(dir(structlin))
    for name in structlin.__all__:
        assert getattr(structlin, name).__name__ == name
        assert getattr(structlin, name).__doc__


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Linar'; it has Linear, cost"):
        structlin.Linar  # noqa: B018
    assert not hasattr(structlin, "Linar")


def test_the_page_of_the_layers_says_what_happens() -> None:
    page = str(ROOT / "docs" / "layers.md")
    done = doctest.testfile(page, module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted > 20
    assert done.failed == 0


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(structlin.__file__).parent / "py.typed").is_file()
