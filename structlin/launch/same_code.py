"""Would a run go on with other code than it was begun with? launch.same_code=true refuses that."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
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
    """The version of torch here, as torch itself says it, without importing it."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "None"
