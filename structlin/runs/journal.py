"""What happened in a run, step by step? metrics.jsonl: one JSON object a line, only ever appended.

Each attempt of a run has a journal of its own, and a reader merges them. A killed attempt leaves at most one torn last
line; a resumed one writes some steps again. So readers skip what is torn, let the last row of each (kind, step) of an
attempt count, and let a newer attempt count over an older one at the steps that it has trained again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_WHOLE = re.compile(rb'\{"kind": "\w+", "step": \d+[,}][^{}]*\}?')
"""A row as it is written here: a line cut short does not end with a brace."""


@dataclass(frozen=True)
class Part:
    """What one attempt wrote, as far as it counts."""

    path: Path
    resumed_step: int = 0
    """Where the attempt went on from: its rows stand for the steps after this one."""
    fence: int | None = None
    """Bytes of the file that count; what a process wrote after it was superseded does not. None for all."""

    def lines(self) -> list[bytes]:
        """Lines that are not blank, none where there is no file."""
        try:
            with self.path.open("rb") as stream:
                text = stream.read(-1 if self.fence is None else self.fence)
        except FileNotFoundError:
            return []
        return [line for line in text.split(b"\n") if line and not line.isspace()]


class MergedJournal:
    """The journal of a run: that of its attempts, oldest first."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts

    def rows(self, kind: str | None = None) -> list[Row]:
        """Readable rows (of a kind) in the order of their steps, one of each (kind, step).

        A newer attempt counts for the steps (its resumed step, its last row]; before and beyond, the older one does.
        """
        found: dict[tuple[str, int], Row] = {}
        for part in self.parts:
            lines = part.lines()
            if found:
                # Over rows of all kinds: a step that was trained again counts so, whether it was evaluated or not.
                last = _last_step(lines)
                found = {key: row for key, row in found.items() if not part.resumed_step < key[1] <= last}
            for row in _rows(lines, kind):
                found[row["kind"], row["step"]] = row
        return sorted(found.values(), key=lambda row: row["step"])

    def written(self) -> list[Row]:
        """All rows in the order in which each (kind, step) was first written, each with its last values.

        A row's place never changes while rows are added, so the W&B mirror can say by one number what W&B holds.
        """
        found: dict[tuple[str, int], Row] = {}
        for part in self.parts:
            for row in _rows(part.lines(), None):
                found[row["kind"], row["step"]] = row
        return list(found.values())

    def evaluations(self) -> list[Row]:
        """Rows of evaluations with a finite validation loss, by step."""
        return [row for row in self.rows("eval") if isinstance(row.get("val_loss"), int | float)]

    def torn_lines(self) -> int:
        """Lines that cannot be read."""
        return sum(_is_torn(line) for part in self.parts for line in part.lines())


class Journal(MergedJournal):
    """The journal of one attempt, which its process appends to."""

    def __init__(self, path: Path) -> None:
        super().__init__((Part(path),))
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; values that are not finite become null, which JSON can hold."""
        line = json.dumps({key: _finite(value) for key, value in row.items()}) + "\n"
        with self.path.open("ab+") as stream:
            # A torn last line must not swallow this row: begin a new line after it.
            if stream.tell() > 0:
                stream.seek(-1, 2)
                if stream.read(1) != b"\n":
                    line = "\n" + line
            stream.write(line.encode())


def _rows(lines: Iterable[bytes], kind: str | None) -> Iterator[Row]:
    """Parsed rows; a line that does not name the kind is not even parsed."""
    name = b"" if kind is None else json.dumps(kind).encode()
    for line in lines:
        row = _parse(line) if name in line else None
        if row is not None and (kind is None or row["kind"] == kind):
            yield row


def _last_step(lines: Sequence[bytes]) -> int:
    """The step of the last readable row: steps only rise within an attempt. -1 for none."""
    for line in reversed(lines):
        row = _parse(line)
        if row is not None:
            return int(row["step"])
    return -1


def _is_torn(line: bytes) -> bool:
    return not (line.endswith(b"}") and _WHOLE.fullmatch(line)) and _parse(line) is None


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    if isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("kind"), str):
        return row
    return None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
