"""What happened in a run, step by step? metrics.jsonl: one JSON object a line, only ever appended.

Each attempt of a run has a journal of its own, and a reader merges them. A killed attempt leaves at most one torn last
line; a resumed one writes some steps again; a disk may change a digit, which the checksum at the end of each row tells.
So readers skip what is torn or changed, let the last row of each (kind, step) of an
attempt count, and let a newer attempt count over an older one at the steps that it has trained again.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_SEAL, _SEAL_BYTES = b', "sum": "', 20
"""How the last key of a row begins, and the bytes from there to its end: 8 hexadecimal digits, a quote and a brace."""


@dataclass(frozen=True)
class Part:
    """What one attempt wrote, as far as it counts."""

    path: Path
    resumed_step: int = 0
    """Where the attempt went on from: its rows stand for the steps after this one."""
    fence: int | None = None
    """Bytes of the file that count; what a process wrote after it was superseded does not. None for all."""
    read: Callable[[Path], bytes] = Path.read_bytes
    """How its bytes are come by: a packed run's lie in an archive."""

    def lines(self) -> list[bytes]:
        """Lines that are not blank, none where there is no file."""
        try:
            text = self.read(self.path)[: self.fence]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [line for line in text.split(b"\n") if line and not line.isspace()]


OF_RANKS = "eval_"
"""How the kind of a row begins that evaluates a share of the ranks: eval_1_8, a name for trackers too."""


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
            lines = _bodies(part.lines())
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
            for row in _rows(_bodies(part.lines()), None):
                found[row["kind"], row["step"]] = row
        return list(found.values())

    def evaluations(self) -> list[Row]:
        """Rows of evaluations with a finite validation loss, by step."""
        return [row for row in self.rows("eval") if isinstance(row.get("val_loss"), int | float)]

    def rank_evaluations(self) -> list[Row]:
        """The same of shares of the ranks, where a run nests them, and of the whole rank, by step and share."""
        whole = self.evaluations()
        if not any("rank_share" in row for row in whole):
            return whole
        steps = {row["step"] for row in whole}
        others = [row for row in self.rows() if row["kind"].startswith(OF_RANKS) and row["step"] in steps]
        others = [row for row in others if isinstance(row.get("val_loss"), int | float)]
        return sorted([*others, *whole], key=lambda row: (row["step"], row["rank_share"]))

    def torn_lines(self) -> int:
        """Lines that cannot be read, or are others than were written."""
        return sum(body is None or _parse(body) is None for part in self.parts for body in _bodies(part.lines()))

    def unsealed_rows(self) -> int:
        """Rows written before rows had checksums: they are believed."""
        return sum(not _is_sealed(line) and _parse(line) is not None for part in self.parts for line in part.lines())


class Journal(MergedJournal):
    """The journal of one attempt, which its process appends to."""

    def __init__(self, path: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> None:
        super().__init__((Part(path, read=read),))
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; values that are not finite become null, which JSON can hold."""
        line = sealed(json.dumps({key: _finite(value) for key, value in row.items()})) + "\n"
        with self.path.open("ab+") as stream:
            # A torn last line must not swallow this row: begin a new line after it.
            if stream.tell() > 0:
                stream.seek(-1, 2)
                if stream.read(1) != b"\n":
                    line = "\n" + line
            stream.write(line.encode())


def sealed(text: str) -> str:
    """A JSON object with the checksum of its text as its last key."""
    return f'{text[:-1]}, "sum": "{zlib.crc32(text.encode()):08x}"}}'


def _is_sealed(line: bytes) -> bool:
    return line[-_SEAL_BYTES : len(_SEAL) - _SEAL_BYTES] == _SEAL


def _bodies(lines: Iterable[bytes]) -> list[bytes | None]:
    """Each line without its checksum; None for one that has changed, or lacks the checksum that earlier lines have."""
    found: list[bytes | None] = []
    has_sums = False
    for line in lines:
        if _is_sealed(line):
            has_sums = True
            body = line[:-_SEAL_BYTES] + b"}"
            found.append(body if b"%08x" % zlib.crc32(body) == line[-10:-2] else None)
        else:
            found.append(None if has_sums else line)
    return found


def _rows(lines: Iterable[bytes | None], kind: str | None) -> Iterator[Row]:
    """Parsed rows; a line that does not name the kind is not even parsed."""
    name = b"" if kind is None else json.dumps(kind).encode()
    for line in lines:
        row = _parse(line) if line is not None and name in line else None
        if row is not None and (kind is None or row["kind"] == kind):
            yield row


def _last_step(lines: Sequence[bytes | None]) -> int:
    """The step of the last readable row: steps only rise within an attempt. -1 for none."""
    for line in reversed(lines):
        row = None if line is None else _parse(line)
        if row is not None:
            return int(row["step"])
    return -1


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
