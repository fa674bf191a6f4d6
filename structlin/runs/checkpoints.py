"""Which checkpoints does a folder hold, and how does a new attempt come by the older ones? By hard links.

A checkpoint is written beside its place and renamed, never changed: an older process that writes on makes a new file
under its own name and cannot reach what was inherited.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from structlin.host.files import replacing


def steps(folder: Path) -> list[int]:
    """Steps that have a checkpoint, rising."""
    return sorted(step_of(path) for path in folder.glob("step-*.pt"))


def step_of(path: Path) -> int:
    """The step that a file's name says."""
    return int(path.stem.removeprefix("step-"))


def path_of(folder: Path, step: int) -> Path:
    """The file of a step."""
    return folder / f"step-{step:08d}.pt"


def merged(folders: Iterable[Path]) -> dict[int, Path]:
    """The file of each step by rising step; of several folders, oldest first, the last that has one."""
    found = {step: path_of(folder, step) for folder in folders for step in steps(folder)}
    return dict(sorted(found.items()))


def prune(folder: Path, keep: set[int]) -> None:
    """Remove all checkpoints but the newest and those to keep."""
    for step in steps(folder)[:-1]:
        if step not in keep:
            path_of(folder, step).unlink(missing_ok=True)


def inherit(files: Iterable[Path], folder: Path) -> None:
    """Give the folder its own names of the files: hard links, or copies where the file system refuses links."""
    folder.mkdir(exist_ok=True)
    for path in files:
        try:
            _link(path, folder / path.name)
        except FileNotFoundError:  # an older process, still alive, has just pruned it
            continue


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        with replacing(target) as beside:
            shutil.copyfile(source, beside)
