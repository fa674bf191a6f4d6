"""Is a value of a config valid? The checks that all groups share; each refuses with one line that names the key."""

from __future__ import annotations

import math
from typing import Any

from structlin.errors import UserError, suggest


def one_of(name: str, value: Any, valid: tuple[str, ...]) -> None:
    """UserError unless the value is one of the valid names."""
    if value not in valid:
        raise UserError(f"{name} = '{value}' is unknown; {suggest(str(value), valid)}")


LARGEST = 10**12
"""No count of a config is larger: beyond it planning would take for ever before a machine refuses."""
LARGEST_SIZE = 10**7
"""Nor is a width, a context or a number of experts."""


def at_least(name: str, value: int, least: int, most: int = LARGEST) -> None:
    """UserError for a value below the least, or beyond what any machine trains."""
    if value < least:
        raise UserError(f"{name} = {value} must be at least {least}")
    if value > most:
        raise UserError(f"{name} = {value:.3g} is beyond anything that trains; at most {most:g}")


def above_zero(name: str, value: float) -> None:
    """UserError unless the value is a finite number above 0."""
    if not 0 < value < math.inf:
        raise UserError(f"{name} = {value} must be a number above 0")
