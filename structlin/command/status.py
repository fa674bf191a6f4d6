"""How far is a sweep?

    structlin status                        the last sweep of runs/
    structlin status NAME                   that one
    structlin status watch=true             keep showing it; format=json: as data

Keys: runs (runs), watch, format.
"""

from __future__ import annotations

from structlin.errors import UserError, asks_help

KEYS = ("runs", "watch", "format")


def main(arguments: list[str]) -> int:
    """Show the status of one sweep. UserError where the store has none, or none of that name."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    names = [word for word in arguments if "=" not in word]
    rest = [word for word in arguments if "=" in word]
    if len(names) > 1:
        raise UserError(f"status shows one sweep, not {', '.join(names)}; leave all but one away")
    from structlin.command import sweep

    return sweep.main([f"status={names[0] if names else 'true'}", *rest])
