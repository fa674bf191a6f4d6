"""Which code does a submitted run execute? A copy of the package as it was at submission.

runs/sweeps/<sweep>/snapshot/<hash>/structlin/     on PYTHONPATH of every element
                                    code.json      {"commit", "diff_sha256"}: provenance of the runs
                                    changes.diff   what differed from that commit
An edit or a checkout afterwards changes nothing of what waits; equal code is copied once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from structlin.host.files import write_json

PACKAGE = Path(__file__).resolve().parents[2]
HASH_LENGTH = 12


def freeze(sweep: Path, package: Path = PACKAGE) -> Path:
    """Copy the package below the sweep's folder unless it is there; returns the folder for PYTHONPATH."""
    folder = sweep / "snapshot" / code_hash(package)
    if folder.exists():
        return folder
    # A folder, and the first of two to end keeps its place: a rename onto a filled folder fails.
    beside = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    for path in _files(package):
        copy = beside / package.name / path.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    commit, diff = _state(package.parent)
    (beside / "changes.diff").write_bytes(diff)
    write_json(beside / "code.json", {"commit": commit, "diff_sha256": hashlib.sha256(diff).hexdigest()})
    try:
        beside.rename(folder)
    except OSError:  # another command froze the same code first
        shutil.rmtree(beside)
    return folder


def code_hash(package: Path) -> str:
    """Of the names and bytes of all files of a package."""
    digest = hashlib.sha256()
    for path in _files(package):
        digest.update(f"{path.relative_to(package)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:HASH_LENGTH]


def _files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _state(root: Path) -> tuple[str, bytes]:
    """The commit and the difference from it, new files included; unknown outside a checkout."""
    try:
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
        diff = _git(root, "diff", "--binary", "HEAD", "--", PACKAGE.name)
        new = _git(root, "ls-files", "--others", "--exclude-standard", "--", PACKAGE.name).decode()
    except (OSError, subprocess.SubprocessError):
        return "unknown", b""
    return commit, diff + "".join(f"new file {name}\n" for name in new.splitlines()).encode()


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, timeout=30, check=True).stdout
