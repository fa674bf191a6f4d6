"""Which single linears have a rank of their own? A file, or its content, that names them: structure.ranks=@FILE.

    {"blocks.0.attention.q": 24, "blocks.0.ffn.up": 40, "blocks.0.ffn.down": null}      JSON, or the same in YAML

A number: a low-rank map of that rank in place of theta's; null: a dense one. Linears that are not named have theta's.
``python -m structlin.convert ranks`` writes such files. A run's identity knows the content, never the path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from structlin.config.checks import LARGEST_SIZE
from structlin.errors import UserError, one_line

NONE = "none"
"""The value that gives no linear a rank of its own."""
_WAY_OUT = 'write {"blocks.0.ffn.up": 40, "blocks.0.ffn.down": null}, null for dense'


def canonical(value: str) -> str:
    """``none``, or the content of @FILE or of a JSON text as JSON with sorted names. UserError for anything else."""
    if value == NONE:
        return NONE
    where = f"structure.ranks={value}" if value.startswith("@") else "structure.ranks"
    text = _content(value[1:]) if value.startswith("@") else value
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is no JSON and no YAML: {one_line(error)[:120]}; {_WAY_OUT}") from None
    if not isinstance(found, Mapping):
        said = value if len(value) < 40 else "its content"
        raise UserError(
            f"structure.ranks: {said} names no linear; {_WAY_OUT}, or none; a file is written structure.ranks=@FILE"
        )
    if not found:
        raise UserError(f"{where} is empty; {_WAY_OUT}, or use structure.ranks=none")
    return json.dumps({_name(where, name): _rank(where, name, rank) for name, rank in found.items()}, sort_keys=True)


@lru_cache(maxsize=4096)
def ranks_of(text: str) -> Mapping[str, int | None]:
    """Linear -> its rank, None where it is dense, of a canonical text; empty for ``none``."""
    return {} if text == NONE else json.loads(text)


@lru_cache(maxsize=4096)
def label(text: str) -> str:
    """A short name of a canonical text: ranks-1a2b3c4d."""
    return f"ranks-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _content(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"structure.ranks=@{path} is no text in UTF-8; {_WAY_OUT}") from None
    except OSError as error:
        raise UserError(f"structure.ranks=@{path} cannot be read: {error.strerror}") from None


def _name(where: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: {name!r} is no name of a linear; {_WAY_OUT}")
    return name


def _rank(where: str, name: str, rank: Any) -> int | None:
    if rank is None:
        return None
    is_number = isinstance(rank, int | float) and not isinstance(rank, bool)
    if not is_number or not float(rank).is_integer() or not 1 <= rank <= LARGEST_SIZE:
        raise UserError(f"{where}: {name} = {rank!r} is no rank; write a whole number of at least 1, or null for dense")
    return int(rank)
