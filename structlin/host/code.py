"""Which code is this? The version, and the commit where it runs from a checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import structlin

PACKAGE = Path(structlin.__file__).resolve().parent


@cache
def commit() -> str:
    """The commit of the checkout that the package lies in, with a plus where it is changed; empty outside of one."""
    if not (PACKAGE.parent / ".git").exists():
        return ""
    found = _git("rev-parse", "--short=12", "HEAD")
    return f"{found}+" if found and _git("status", "--porcelain", "--untracked-files=no") else found


def said() -> str:
    """``structlin 0.1.0, commit 0123456789ab``."""
    return f"structlin {structlin.__version__}" + (f", commit {commit()}" if commit() else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(PACKAGE.parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
