"""Which process is this, and does one that was written down still live? Only its own machine can tell."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """Boot and process namespace: where both are equal, process ids mean the same. Empty where there is no Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def birth(pid: int) -> int | None:
    """Start of a living process in clock ticks after boot; None where there is none, or only its zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])
