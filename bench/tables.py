"""How is a table measured, shown and kept? One row a case, to the terminal, and as text and JSON into a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import workers
from structlin.errors import key_values, whole_number

Medians = dict[str, dict[str, float]]
"""Seconds by allocator and variant."""
Row = dict[str, Any]


def measure(
    name: str,
    arguments: list[str],
    cases: Sequence[workers.Case],
    rows_of: Callable[[workers.Case, Medians], Iterator[Row]],
    line: Callable[[Row], str],
    header: str,
    *,
    tokens: int,
    repeats: int,
) -> None:
    """Measure the cases of ``bench.NAME`` whose first field contains ``only=``; print and keep their rows."""
    options = key_values(arguments, {"tokens": str(tokens), "repeats": str(repeats), "only": "", "out": ""})
    tokens, repeats = (whole_number(key, options[key], 1) for key in ("tokens", "repeats"))
    chosen = [{**case, "tokens": tokens} for case in cases if options["only"] in str(next(iter(case.values())))]
    description = workers.machine()
    lines, rows = [heading(description), header], []
    print("\n".join(lines), flush=True)
    for case, medians in workers.measure(f"bench.{name}", chosen, repeats):
        for row in rows_of(case, medians):
            rows.append(row)
            lines.append(line(row))
            print(lines[-1], flush=True)
    keep(options["out"], name, description, lines, rows=rows)


def heading(description: dict[str, Any]) -> str:
    """The machine in a line."""
    return ", ".join(f"{key} {value}" for key, value in description.items())


def keep(out: str, name: str, description: dict[str, Any], lines: Sequence[str], **values: Any) -> None:
    """Write NAME-DATE.txt and NAME-DATE.json (the description and ``values``) below ``out``; nowhere if it is empty."""
    if not out:
        return
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name}-{description['date']}"
    place.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    place.with_suffix(".json").write_text(json.dumps({**description, **values}, indent=1))
