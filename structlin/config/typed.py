"""Is a word what its key wants: a path, numbers, a time? UserError with the key and the value where it is not."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from structlin.config.checks import LARGEST
from structlin.errors import UserError


def path(name: str, value: Any) -> Path:
    """A folder, with ~ for the user's own."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value):
        raise UserError(f"{name} = {value!r} should be a path")
    return Path(str(value)).expanduser()


def numbers(name: str, value: Any) -> list[float]:
    """A number, or a list of them; none at all of None."""
    values = [] if value is None else value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"{name} = {number!r} is not a number such as 1e15")
        if isinstance(number, int) and abs(number) > LARGEST**3:
            raise UserError(f"{name} is a number of {len(str(abs(number)))} digits; write it such as 1e15")
    return [float(number) for number in values]


def whole(name: str, value: Any, least: int = 1, most: float = math.inf) -> int:
    """One whole number between two others."""
    found = numbers(name, value)
    if len(found) != 1 or not found[0].is_integer() or found[0] < least:
        raise UserError(f"{name} = {value!r} should be a whole number of at least {least}")
    if found[0] > most:
        raise UserError(f"{name} = {value:.3g} is too large; at most {most:,}")
    return int(found[0])


def flag(name: str, value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise UserError(f"{name} = {value!r} should be true or false")
    return value


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers, [low, high]."""
    found = numbers(name, value)
    if len(found) != 2:
        raise UserError(f"{name} = {value!r} should be [low, high]")
    return found[0], found[1]


def minutes(key: str, value: Any) -> Any:
    """Minutes of SLURM's d-hh:mm:ss, d-hh, hh:mm:ss or mm:ss; what is no such text as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", value)
    if found is None:
        raise UserError(
            f"{key} = {value!r} should be minutes, or a time such as 2-00:00:00 (days-hours:minutes:seconds)"
        )
    days, *clock = found.groups()
    numbers = [int(number) for number in clock if number is not None]
    if days is not None or len(numbers) == 3:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:
        hours, minutes, seconds = 0, numbers[0], [*numbers, 0][1]
    total = int(days or 0) * 1440 + hours * 60 + minutes
    return total + (1 if seconds else 0)
