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

from structlin.host.code import PACKAGE, code_hash, code_state, git, own_commit, package_files
from structlin.host.files import write_json


def freeze(sweep: Path, package: Path = PACKAGE) -> Path:
    """Copy the package below the sweep's folder unless it is there; returns the folder for PYTHONPATH."""
    folder = sweep / "snapshot" / code_hash(package)
    if folder.exists():
        return folder
    # A folder, and the first of two to end keeps its place: a rename onto a filled folder fails.
    beside = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    for path in package_files(package):
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


def _state(root: Path) -> tuple[str, bytes]:
    """The package's own commit and the difference from it, new files included; unknown outside its checkout."""
    commit = own_commit(root, PACKAGE.name)
    if commit is None:
        return code_state(root / PACKAGE.name), b""
    try:
        diff = git(root, "diff", "--binary", "HEAD", "--", PACKAGE.name)
        new = git(root, "ls-files", "--others", "--exclude-standard", "--", PACKAGE.name).decode()
    except (OSError, subprocess.SubprocessError):
        return "unknown", b""
    return commit, diff + "".join(f"new file {name}\n" for name in new.splitlines()).encode()
