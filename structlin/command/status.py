"""How far is a sweep? In the terminal, or as a page that stays up to date.

    structlin status                        the last sweep of runs/
    structlin status NAME                   that one
    structlin status watch=true             keep showing it; format=json: as data
    structlin status html=status.html       a page: progress, loss curves, what is left, failures
    structlin status html=status.html every=30      written anew every 30 s until nothing runs or waits any more

The page is one file that reloads itself: it works from a shared file system, without a server.
Keys: runs (runs), html, every (seconds), watch, format.
"""

from __future__ import annotations

from pathlib import Path

from structlin.errors import UserError, asks_help, key_values, whole_number

KEYS = ("runs", "html", "every", "watch", "format")


def main(arguments: list[str]) -> int:
    """Show the status of one sweep. UserError where the store has none, or none of that name."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    names = [word for word in arguments if "=" not in word]
    rest = [word for word in arguments if "=" in word]
    if len(names) > 1:
        raise UserError(f"status shows one sweep, not {', '.join(names)}; leave all but one away")
    if any(word.startswith(("html=", "every=")) for word in rest):
        return _page(names[0] if names else "", key_values(rest, {"runs": "runs", "html": "status.html", "every": "0"}))
    from structlin.command import sweep

    return sweep.main([f"status={names[0] if names else 'true'}", *rest])


def _page(name: str, values: dict[str, str]) -> int:
    """Write the page once, or again and again."""
    from structlin.launch import status_page

    every = whole_number("every", values["every"])
    return status_page.keep(Path(values["runs"]), name, Path(values["html"]), every)
