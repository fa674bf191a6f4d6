"""Every command of the README runs through bash, as a reader would paste it, at a size that takes seconds.

Sweeps stop at their bill, runs are made tiny by keys added behind (what is said last counts); the quoting is the
README's own.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from structlin.errors import UserError
from tests.tiny import ARGUMENTS, tiny, train

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A few runs to fit."""
    runs = tmp_path_factory.mktemp("readme") / "runs"
    for structure in ("dense", "btt"):
        for width in (8, 16, 32):
            train(tiny(structure, width), (8, 12, 18, 27, 40), runs, data_root)
    return runs


def shortened(command: str, store: Path, data_root: Path, tmp_path: Path) -> str:
    if "sweep.py" in command:
        return f"{command} dry_run=true runs={tmp_path}/runs data.root={data_root}"
    if "train.py" in command:
        tiny_keys = [*ARGUMENTS, "model.d_model=16", "tokens=640", f"runs={tmp_path}/runs", f"data.root={data_root}"]
        return " ".join([command, *tiny_keys])
    if "fit_laws.py" in command:
        return f"{command} runs={store} out={tmp_path}/laws bootstrap=50"
    if "analysis.make" in command:
        return f"{command.replace('runs=runs', f'runs={store}')} out={tmp_path}/figures"
    if "structlin.runs.table" in command:
        return command.replace("runs=runs", f"runs={store}").replace("out=", f"out={tmp_path}/")
    if "structlin.data" in command:
        return f"{command} root={tmp_path}/data"
    raise UserError(f"the README has a command this test cannot run: {command}")


def test_the_readme_has_its_commands() -> None:
    for needed in (
        "python sweep.py structure=btt budget=1e17",
        "python sweep.py structure=dense,btt,low_rank budget=1e15,1e16 seed=0,1 model.num_layers=6",
        "python sweep.py structure=einsum structure.theta=1/3,0,2/3,0,2/3,1/3,1/4 budget=1e16 dry_run=true",
        "python train.py structure=btt model.d_model=512 tokens=1e7",
        "python fit_laws.py",
    ):
        assert needed in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_readme_command_runs_in_bash(command: str, store: Path, data_root: Path, tmp_path: Path) -> None:
    script = shortened(command, store, data_root, tmp_path).replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_an_unquoted_theta_is_one_theta(tmp_path: Path) -> None:
    command = next(line for line in COMMANDS if "structure.theta" in line)
    script = f"{command} format=json runs={tmp_path}/none".replace("python", sys.executable, 1)
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r'"theta": "(.*?)"', done.stdout)) == {"(1/3|0|2/3|0|2/3|1/3|1/4)"}


def test_every_path_of_the_readme_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
