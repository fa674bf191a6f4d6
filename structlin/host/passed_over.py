"""What could not be read, and was left out of what a command shows? Named once each, and counted.

A store has thousands of files of several people: one that is broken, or that another user may not read, must neither
end a command nor be missing in silence.
"""

from __future__ import annotations

import sys
from pathlib import Path

from structlin.errors import one_line
from structlin.host.speech import say

MOST_NAMED = 20
"""Lines on stderr; the rest is counted."""

_found: dict[str, str] = {}


def pass_over(path: Path | str, why: object) -> None:
    """Name what is passed over on stderr, once for each path of this process."""
    if str(path) in _found:
        return
    reason = one_line(why) if isinstance(why, BaseException) else " ".join(str(why).split())
    reason = reason.removeprefix(f"{path} ")
    _found[str(path)] = reason
    if len(_found) <= MOST_NAMED:
        say(f"passed over: {path}: {reason}", sys.stderr)


def passed_over() -> dict[str, str]:
    """Why each path was passed over, by path, since the process began or ``forget_passed_over``."""
    return dict(_found)


def summary() -> str:
    """One line that counts what was passed over; empty where nothing was."""
    if not _found:
        return ""
    path, reason = next(iter(_found.items()))
    return f"{len(_found)} file(s) or folder(s) could not be read and were passed over, such as {path}: {reason}"


def forget_passed_over() -> None:
    """Begin to name and count anew."""
    _found.clear()
