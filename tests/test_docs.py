"""What the documents name is there: files of the newcomer's index, rooms of the README's tree, paths of the guides."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "lab-book.md")
_PATH = re.compile(r"(?:structlin|analysis|bench|configs|tests|slurm|docs)/[\w/.-]*\w/?")


def named(text: str) -> set[str]:
    """Paths of the project in a text, without what a command writes."""
    return {path.rstrip(".") for path in _PATH.findall(text) if not path.startswith("docs/figures/")}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_paths_of_a_guide_exist(guide: Path) -> None:
    text = re.sub(r"\w+=[\w/.-]+", "", guide.read_text())
    missing = [path for path in named(text) if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists()]
    assert not missing


def test_the_index_has_forty_things_or_more() -> None:
    rows = [line for line in (ROOT / "docs" / "where.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 40


def test_the_tree_of_the_readme_is_the_tree() -> None:
    tree = (ROOT / "README.md").read_text().split("## The house")[1].split("```")[0]
    rooms = set(re.findall(r"^      (\w+)/ ", tree, re.M))
    assert rooms == {path.parent.name for path in (ROOT / "structlin").glob("*/__init__.py")}
