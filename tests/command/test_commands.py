"""``structlin COMMAND``: the doors' own functions, also installed and in an empty folder; errors of one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from structlin import errors
from structlin.command import completion, explain, help, main
from structlin.config.compose import CONFIG_DIR, group_options
from structlin.errors import UserError
from structlin.structure import CATALOG

ROOT = Path(__file__).parents[2]
DOORS = {"sweep": "sweep.py", "train": "train.py", "fit": "fit_laws.py"}
DRY = ["structure=dense,btt", "budget=1e11", "scale=small", "dry_run=true", "format=json"]


def run(*words: str, cwd: Path = ROOT, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=400
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as setup.py installs it: configs and analysis inside."""
    folder = tmp_path_factory.mktemp("site")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "structlin", folder / "structlin", ignore=ignore)
    for name in ("configs", "analysis"):
        shutil.copytree(ROOT / name, folder / "structlin" / name, ignore=ignore)
    return folder


def test_an_installed_package_plans_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = run("-m", "structlin", "sweep", *DRY, cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout == run("sweep.py", *DRY).stdout


def test_an_installed_package_draws(installed: Path, tmp_path: Path) -> None:
    done = run("-m", "structlin", "figures", "figure=fig2", cwd=tmp_path, path=installed)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "fig2.png").stat().st_size > 10_000


@pytest.mark.parametrize("command", DOORS)
def test_a_door_of_the_tree_is_the_same_function(command: str) -> None:
    text = (ROOT / DOORS[command]).read_text()
    assert f"from structlin.command.{command} import main" in text
    assert main.main_of(main.COMMANDS[command][0]).__module__ == f"structlin.command.{command}"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in main.COMMANDS:
        assert main.main([command, "--help"]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 2, command


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["swep", "structure=btt"], "did you mean 'sweep'"),
        (["structure=btt"], "a command comes first"),
        (["status", "one", "two"], "one sweep"),
        (["completion", "csh"], "valid: bash, fish, zsh"),
        (["explain"], "structure=btt"),
        (["explain", "structure=bt"], "did you mean 'btt'"),
        (["explain", "structure=btt", "d_in=0"], "d_in=0"),
        (["explain", "structure=monarch", "structure.blocks=4", "d_in=8"], "blocks"),
        (["sweep", "--help", "colour"], "no such group"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], named: str) -> None:
    with pytest.raises(UserError) as refused:
        main.main(words)
    assert named in str(refused.value)


# --- an import that fails -----------------------------------------------------------------------------------------

BLOCKED = """import sys
sys.modules[{name!r}] = None
sys.argv = ['structlin', {words}]
from structlin.command.main import run
run()
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hydra", "'sweep', 'budget=1e11'"),
        ("pandas", "'fit'"),
        ("matplotlib", "'figures', 'figure=fig2'"),
        ("rich", "'train', 'tokens=1e5', 'model.d_model=64'"),
    ],
)
def test_a_library_that_is_not_there_is_one_line(name: str, words: str, tmp_path: Path) -> None:
    done = run("-c", BLOCKED.format(name=name, words=words), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert f"has no {name}" in done.stderr


def test_the_way_out_of_a_tree_is_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/usr")
    said = errors.without_module(ModuleNotFoundError("No module named 'hydra'", name="hydra"))
    assert ". .venv/bin/activate" in said
    monkeypatch.setattr(sys, "prefix", str(ROOT / ".venv"))
    for name, extra in errors.EXTRAS.items():
        said = errors.without_module(ModuleNotFoundError(f"No module named '{name}'", name=name))
        assert said.endswith(f"pip install 'structlin[{extra}]'" if extra else "pip install structlin")
    assert errors.without_module(ModuleNotFoundError("", name="structlin.gone")) == ""


def test_every_extra_that_is_named_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for extra in set(errors.EXTRAS.values()) - {""}:
        assert f"\n{extra} = [" in text


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["sweep", "train"])
def test_every_key_has_a_line_and_every_line_a_key(root: str) -> None:
    said = {key for rows in help.lines().values() for key in rows}
    known = set(help.defaults(root))
    inner = {key for key in known if any(other.startswith(f"{key}.") for other in known)}
    assert known - said == set() or known - said <= inner
    assert said - known <= set(help.defaults("sweep")) | set(help.defaults("train"))
    assert all(text for rows in help.lines().values() for _, text in rows.values())


def test_help_shows_groups_defaults_units_and_options() -> None:
    text = help.page("sweep")
    assert "???" not in text
    assert "required: training FLOPs of a cell" in text
    assert "\nTHE MODEL\n" in text
    assert "[FLOPs]" in text
    assert "scale=paper" in text
    assert "structure.count=32" in text
    assert "(with structure=sample)" in text
    assert all(len(line) <= help.WIDTH for line in text.splitlines())
    for option in group_options("structure"):
        assert f" {option}" in text.split("OPTIONS")[1]
    assert "model.d_model" not in text
    assert "model.d_model=" in help.page("train")
    assert "grid.points" not in help.page("train")


def test_help_of_one_group_shows_it_alone() -> None:
    text = help.page("sweep", ["--help", "model"])
    assert "model.num_layers=3" in text
    assert "data.root" not in text


# --- completion and explain ---------------------------------------------------------------------------------------


def completed(line: str) -> list[str]:
    script = completion.bash(completion.words())
    ask = (
        f'COMP_LINE="{line}" COMP_POINT={len(line)}\ncompopt() {{ :; }}\n_structlin\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_keys_and_options() -> None:
    assert completed("structlin sw") == ["sweep"]
    assert completed("structlin sweep grid.po") == ["grid.points="]
    assert set(completed("structlin sweep budget=1e12 task=")) == {"classification", "language", "pixels", "regression"}
    assert "kronecker" in completed("structlin explain structure=kr")
    assert completed("structlin fit basel") == ["baseline="]


def test_the_other_shells_have_every_command() -> None:
    known = completion.words()
    assert set(known) == set(main.COMMANDS)
    for script in (completion.zsh(known), completion.fish(known)):
        assert all(command in script for command in main.COMMANDS)
        assert "grid.points=" in script


def test_explain_says_einsum_costs_taxonomy_and_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["structure=btt", "structure.rank=4", "d_in=64", "d_out=64", f"picture={tmp_path / 'a.png'}"]
    assert explain.main(words) == 0
    said = capsys.readouterr().out
    assert "tga,frga,ferg->tfe" in said
    # 64 = 8 x 8: A has 4 * 8^3 weights, B as many, and each is used once a row.
    assert "4,096" in said
    assert f"{2 * 4 * 8**3:,}" in said
    assert "nu 0.5" in said
    rows = [line.split() for line in said.splitlines() if "●" in line]
    assert [row[0] for row in rows] == ["x", "A", "B", "y"]
    assert [row.count("●") for row in rows] == [2, 4, 4, 2]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_explain_reads_a_rank_in_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main(["structure=btt4", "d_in=64", "d_out=64"]) == 0
    assert "structure.rank=4" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_explain_knows_every_structure(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main([f"structure={name}", "d_in=256", "d_out=256"]) == 0
    assert "MACs a row" in capsys.readouterr().out


def test_configs_are_found() -> None:
    assert (CONFIG_DIR / "sweep.yaml").is_file()
