"""Which runs lie in folders named by the id of an older schema? An index, so that a config is opened once and for all.

runs/old-ids.json   {"schema": the schema of the index, "seen": [folder names], "old": {id of now: folder name}}

Without it every process that asks for a run that does not exist yet would read all configs of the store. It is made
anew where it is missing, broken or of another schema; writing it is worth a try, no more (the store may be read-only).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from structlin.config.science import SCHEMA
from structlin.errors import UserError
from structlin.host.files import read_json, write_json

FILE = "old-ids.json"


def old_ids(root: Path, names: Iterable[str], identify: Callable[[str], str]) -> dict[str, str]:
    """Id of now -> folder name, for those of the run folders ``names`` whose name is an older id.

    ``identify`` reads the id of now of a folder, raising UserError where its config cannot be read (yet).
    """
    index = _read(root / FILE)
    unseen = sorted(set(names) - set(index["seen"]))
    for name in unseen:
        try:
            identity = identify(name)
        except UserError:
            continue
        index["seen"].append(name)
        if identity != name:
            index["old"][identity] = name
    if unseen:
        with contextlib.suppress(OSError):
            write_json(root / FILE, index)
    return dict(index["old"])


def _read(path: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"schema": SCHEMA, "seen": [], "old": {}}
    if not os.path.exists(path):
        return empty
    try:
        index = read_json(path)
        valid = index["schema"] == SCHEMA and isinstance(index["seen"], list) and isinstance(index["old"], dict)
    except (UserError, KeyError, TypeError):
        return empty
    return index if valid else empty
