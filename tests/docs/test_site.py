"""The site builds strict and asks nothing of a network; every bash block of its guides is a command that runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GUIDES = ["quickstart", "commands"]
BLOCK = re.compile(r"```bash\n(.*?)```", re.S)
LINES = [
    (guide, line)
    for guide in GUIDES
    for block in BLOCK.findall((ROOT / "docs" / f"{guide}.md").read_text())
    for line in block.strip().splitlines()
]


@pytest.mark.parametrize(("guide", "line"), LINES)
def test_a_command_of_a_guide_runs(guide: str, line: str, tmp_path: Path) -> None:
    script = line.replace("structlin", f"{sys.executable} -m structlin", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def pages(nav: list) -> set[str]:
    """Files that the navigation names."""
    found: set[str] = set()
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found |= pages(value) if isinstance(value, list) else {value}
    return found


def test_the_navigation_names_pages_that_are_there() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    for page in pages(nav):
        assert (ROOT / "docs" / page).is_file(), page


def test_the_site_builds_strict(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(r'<(?:link|script|img)[^>]*?(?:href|src)="(https?://[^"]+)"', page.read_text())
        assert not [url for url in fetched if "canonical" not in url], page
