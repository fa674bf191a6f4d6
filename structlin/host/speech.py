"""How is a line said whose failure must not matter? Printed, if the disk of the log takes it."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO


def say(line: str, stream: TextIO | None = None) -> None:
    """Print a line (to stdout) at once; a log on a full disk, or none at all, is no reason to end."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=stream or sys.stdout, flush=True)
