"""May a sweep spend so much? Asked on a terminal, refused elsewhere, where it is more than launch.max_hours."""

from __future__ import annotations

import sys

from structlin.errors import UserError


def agree(cost: str, hours: float, most: float) -> None:
    """Return where ``hours`` are allowed; ``cost`` says them as a sentence. UserError where they are refused."""
    if hours <= most:
        return
    text = f"{cost}, more than launch.max_hours={most:g}"
    if sys.stdin.isatty() and sys.stdout.isatty() and input(f"{text}; go on? [y/N] ").strip().lower() in ("y", "yes"):
        return
    raise UserError(f"{text}; raise it (launch.max_hours={hours * 1.2:.0f}) or lower the budget")
