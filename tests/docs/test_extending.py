"""The walk-throughs of docs/extending/: their blocks are written into a copy of the tree, and their commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "extending").glob("*.md"))}
MOST_FILES = {"structure": 1, "figure": 1, "task": 4, "model": 4}
BLOCK = re.compile(r'```(\w+)(?: title="(.*?)")?\n(.*?)```', re.S)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """(language, title, content) of every block, in order."""
    return [(kind, title or "", content) for kind, title, content in BLOCK.findall(page.read_text())]


def put(tree: Path, title: str, content: str) -> Path:
    """Write a block: a whole file, or lines after, before or inside the line that its title quotes."""
    name, _, where = title.partition(", ")
    path = tree / name
    if not where:
        assert not path.exists(), f"{name} is there already"
        path.write_text(content)
        return path
    how, _, quoted = where.partition(": ")
    lines = path.read_text().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if line.startswith(quoted) or f" {quoted}" in line)
    if how == "in":
        lines[place] = lines[place].replace("{", "{" + content.strip("\n"), 1)
    elif how == "after" and lines[place].rstrip().endswith("}"):  # a mapping of one line
        lines[place] = lines[place].replace("{", "{" + content.strip(), 1)
    else:
        lines.insert(place + (how == "after"), content)
    path.write_text("".join(lines))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("structlin", "configs", "analysis"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    for name in ("train.py", "sweep.py", "fit_laws.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


# A whole sweep each; a structure of one's own and the rest stand for them in the shorter suite.
LONG = ("model", "task")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in PAGES])
def test_a_walk_through_does_what_it_says(name: str, tree: Path, data_root: Path) -> None:
    touched = set()
    for kind, title, content in blocks(PAGES[name]):
        if kind == "bash":
            # What stands before the first block of code works without it.
            for line in content.strip().splitlines():
                run(line, tree, data_root)
        else:
            touched.add(put(tree, title, content))
    assert len(touched) == MOST_FILES[name]
    assert f"**Files to touch: {MOST_FILES[name]}.**" in PAGES[name].read_text()


def run(line: str, tree: Path, data_root: Path) -> None:
    words = shlex.split(line)
    assert words[0] == "python"
    data = [f"data.root={data_root}"] if words[1] in ("train.py", "sweep.py") and "regression" not in line else []
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words[1:], *data],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()
