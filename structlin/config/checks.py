"""Is a value of a config valid? The checks that all groups share; each refuses with one line that names the key."""

from __future__ import annotations

from typing import Any

from structlin.errors import UserError, suggest


def one_of(name: str, value: Any, valid: tuple[str, ...]) -> None:
    """UserError unless the value is one of the valid names."""
    if value not in valid:
        raise UserError(f"{name} = '{value}' is unknown; {suggest(str(value), valid)}")


def at_least(name: str, value: int, least: int) -> None:
    """UserError for a value below the least."""
    if value < least:
        raise UserError(f"{name} = {value} must be at least {least}")
