"""Would a run go on with other code than it was begun with? launch.same_code=true refuses that."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from structlin.errors import UserError
from structlin.host.code import code_state, own_hash
from structlin.launch.reconcile import JobState

MOST_NAMED = 5


def refuse_other_code(states: Sequence[JobState[Any]]) -> None:
    """UserError where a run that is not done was begun by other code, or under another version of torch."""
    ours = _torch()
    begun = [(state, state.folder.provenance()) for state in states if not state.is_final and state.folder.exists()]
    other = [state.job.run_id for state, origins in begun if any(not _is_ours(origin, ours) for origin in origins)]
    if other:
        names = ", ".join(other[:MOST_NAMED]) + (", ..." if len(other) > MOST_NAMED else "")
        raise UserError(
            f"launch.same_code=true: {len(other)} run(s) were begun by other code or another torch than this one "
            f"({code_state()}, torch {ours}): {names}; check that code out, leave same_code out, or use another store"
        )


def _is_ours(origin: dict[str, Any], torch: str) -> bool:
    code = origin["code_hash"] == own_hash() if "code_hash" in origin else origin.get("code") == code_state()
    return code and str(origin.get("torch_version")) in (torch, "None")


def _torch() -> str:
    """The version of torch here, as torch itself says it (2.13.0+cu130), without importing it.

    The package's name leaves out what a default build is for, so it is not what runs have written down.
    """
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return "None"
    text = Path(found.origin).with_name("version.py").read_text()
    said = re.search(r"""^__version__ = ['"](.+)['"]""", text, re.MULTILINE)
    return said[1] if said else "None"
