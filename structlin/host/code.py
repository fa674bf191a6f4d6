"""Which code is this? A hash of the package's files, and the commit they come from where that is known.

The commit is the package's own: that of a checkout whose top folder holds the package, that of an installation from a
repository, or what was written down when the code was frozen for a cluster. A repository that merely surrounds an
installed package (an environment inside a user's own project) says nothing about it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from structlin import __version__
from structlin.errors import UserError
from structlin.host.files import read_json

PACKAGE = Path(__file__).resolve().parents[1]
HASH_LENGTH = 12


def package_files(package: Path = PACKAGE) -> list[Path]:
    """All files of a package but compiled ones, sorted."""
    return sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def code_hash(package: Path = PACKAGE) -> str:
    """Of the names and bytes of all files of a package: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in package_files(package):
        digest.update(f"{path.relative_to(package)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:HASH_LENGTH]


@cache
def own_hash() -> str:
    """``code_hash`` of the running package, read once."""
    return code_hash()


def code_state(package: Path = PACKAGE) -> str:
    """The package's own commit and whether it was changed since; its version where no commit is known.

    Code frozen for a submission carries its state in code.json beside the package.
    """
    root = package.parent
    try:
        frozen = read_json(root / "code.json")
        return f"{frozen['commit']}, frozen with the changes {frozen['diff_sha256'][:HASH_LENGTH]}"
    except (UserError, KeyError, TypeError):
        pass
    commit = own_commit(root, package.name)
    if commit is None:
        return _installed_commit(package) or f"version {__version__}, of no known commit"
    changed = bool(git(root, "status", "--porcelain", "--untracked-files=no", "--", package.name).strip())
    return f"{commit}{' with changes' if changed else ''}"


def is_mixed(origins: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the attempts of a run, by their provenance, were made by several codes or torch versions."""
    return len({_computed_by(origin) for origin in origins}) > 1


def _computed_by(origin: Mapping[str, Any]) -> tuple[str, str]:
    """What computed an attempt; older records have no hash of the code, and their commit stands for it."""
    return str(origin.get("code_hash") or origin.get("code")), str(origin.get("torch_version"))


def own_commit(root: Path, package: str) -> str | None:
    """The commit of a checkout at ``root`` that tracks the package; None where ``root`` is no such checkout."""
    try:
        top = Path(git(root, "rev-parse", "--show-toplevel").decode().strip())
        if top.resolve() != root.resolve():
            return None
        git(root, "ls-files", "--error-unmatch", "--", f"{package}/__init__.py")
        return git(root, "rev-parse", "HEAD").decode().strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _installed_commit(package: Path) -> str | None:
    """The commit that pip has installed the package from (PEP 610)."""
    try:
        found = importlib.metadata.distribution(package.name)
        if Path(str(found.locate_file(package.name))).resolve() != package:
            return None
        return str(json.loads(found.read_text("direct_url.json") or "{}")["vcs_info"]["commit_id"])
    except (importlib.metadata.PackageNotFoundError, KeyError, TypeError, ValueError):
        return None


def git(root: Path, *arguments: str) -> bytes:
    """What git says in a folder. OSError or SubprocessError where there is no git, or it refuses."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, timeout=30, check=True).stdout


@cache
def said() -> str:
    """For people: ``structlin 0.1.0, commit 0123456789ab``, with a plus where the code was changed since."""
    state = code_state()
    if state.startswith("version "):
        return f"structlin {__version__}"
    commit, _, changed = state.partition(" ")
    return f"structlin {__version__}, commit {commit[:HASH_LENGTH]}{'+' if changed else ''}"
