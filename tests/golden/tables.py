"""How are many configs of runs kept in little space? As tables: what all rows have in common, and columns of the rest.

A row names the run's id and the steps of its cells, then the values of ``fields`` (dotted names). An id is the first 16
hexadecimal digits of the SHA-256 of the config's canonical text as it was when the run was made, and stays the run's
name under every later schema.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

ABSENT = "<absent>"
PARENT = "start.parent"
"""A config within a config, or none: one value of a table."""
Config = dict[str, Any]
Run = tuple[str, list[int], Config]
"""Id, steps, config."""


def pack(runs: Sequence[Run]) -> dict[str, Any]:
    """The table of runs; a key that a config lacks (of another model) is ABSENT there."""
    flats = [dict(flat(config, whole=(PARENT,))) for _, _, config in runs]
    keys = dict.fromkeys(key for one in flats for key in one)
    columns = {key: [one.get(key, ABSENT) for one in flats] for key in keys}
    fields = [key for key, values in columns.items() if any(value != values[0] for value in values)]
    rows = [[name, steps, *(columns[field][row] for field in fields)] for row, (name, steps, _) in enumerate(runs)]
    return {"base": runs[0][2], "fields": fields, "rows": rows}


def unpack(table: Mapping[str, Any]) -> list[Run]:
    """The runs of a table."""
    runs = []
    for name, steps, *values in table["rows"]:
        config = deepcopy(table["base"])
        for field, value in zip(table["fields"], values, strict=True):
            *groups, key = field.split(".")
            inner = config
            for group in groups:
                inner = inner[group]
            if value == ABSENT:
                inner.pop(key, None)
            else:
                inner[key] = value
        runs.append((name, steps, config))
    return runs


def id_by_text(config: Mapping[str, Any]) -> str:
    """The id of a config of any schema: of its own text, as whoever made the run hashed it."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flat(values: Mapping[str, Any], prefix: str = "", whole: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names; those named in ``whole`` stay one value."""
    for key, value in values.items():
        if isinstance(value, dict) and f"{prefix}{key}" not in whole:
            yield from flat(value, f"{prefix}{key}.", whole)
        else:
            yield f"{prefix}{key}", value


def text(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON with a line a run."""
    parts = []
    for name, table in tables.items():
        *heads, rows = table.items()
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in heads]
        runs = ",\n".join(f"   {json.dumps(row, separators=(',', ':'))}" for row in rows[1])
        lines.append(f'  "rows": [\n{runs}\n  ]')
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"
