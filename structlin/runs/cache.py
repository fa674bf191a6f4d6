"""What did the last reader find in each run folder? A parquet file in the store, so that the next one need not look.

runs/table-cache.parquet   path of a run, a key of its files (names, times and sizes), what its rows follow from

A run is read again once one of its files has another time or size, or the package's code is another. Only runs that no
process is at are kept. The file is a copy of what stands in the folders: whoever deletes it loses time alone, and where
it cannot be written (a store of somebody else's) nothing is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from structlin.host.code import own_hash
from structlin.host.files import write_atomically
from structlin.runs import archive

FILE = "table-cache.parquet"
OF_RUN = ("config.json", "result.json")
OF_ATTEMPT = ("attempt.json", "metrics.jsonl", "provenance.json", "status.json")
GROUP = 500
"""Runs that are compressed together."""
_FIELDS = [
    ("run", pa.string()),
    ("key", pa.string()),
    ("names", pa.string()),
    ("values", pa.string()),
    ("seed", pa.int64()),
    ("steps", pa.list_(pa.int64())),
    ("losses", pa.list_(pa.float64())),
    ("more", pa.string()),
]
_OF_ENTRY = ("key", "names", "values", "seed", "steps", "losses", "more")
SETTLING_SECONDS = 0.1
"""A file that has only just changed may change again without another time: file systems count in ticks."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run as it was read."""

    key: str
    names: str
    """JSON: what its rows have in common, the names; the same text for most runs."""
    values: str
    """JSON: and the values, but for the run's id and seed; the same text for all seeds."""
    seed: int
    steps: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    more: str = "{}"
    """JSON: what its evaluations say besides (runs/measures.py), a list a name."""


def key_of(folder: str) -> str | None:
    """A name for the state of a run's files; None where they have changed this moment. OSError where none can be read.

    ``folder``: that of the run; where there is none, the archive beside it counts.
    """
    newest, seen = 0, []
    for path in _files(folder):
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        newest = max(newest, status.st_mtime_ns)
        seen.append(f"{path[len(folder) :]};{status.st_mtime_ns};{status.st_size}")
    if newest > (time.time() - SETTLING_SECONDS) * 1e9:
        return None
    return hashlib.blake2b("\0".join(seen).encode(), digest_size=16).hexdigest()


def _files(folder: str) -> list[str]:
    attempts = f"{folder}/attempts"
    try:
        numbers = sorted(os.listdir(attempts))
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(folder):
            return [folder + archive.ENDING]
        numbers = []
    found = [f"{folder}/{name}" for name in OF_RUN]
    return found + [f"{attempts}/{number}/{name}" for number in numbers for name in OF_ATTEMPT]


def read(root: Path) -> dict[str, Entry]:
    """What is kept of a store, by the names of its runs; nothing where it is of other code, broken or missing."""
    try:
        table = pq.read_table(root / FILE, read_dictionary=["names", "values"])
        if (table.schema.metadata or {}).get(b"code") != own_hash().encode():
            return {}
        columns = [table.column(name).to_pylist() for name in ("run", "key", "seed", "more")]
        texts = [_texts(table.column(name)) for name in ("names", "values")]
        lists = [_lists(table.column(name)) for name in ("steps", "losses")]
        return {
            run: Entry(key, names, values, seed, steps, losses, more)
            for run, key, seed, more, names, values, steps, losses in zip(*columns, *texts, *lists, strict=True)
        }
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return {}


def _texts(column: pa.ChunkedArray) -> list[str]:
    """One text for thousands of runs that have the same."""
    whole = column.unify_dictionaries().combine_chunks()
    shared = whole.dictionary.to_pylist()
    return [shared[index] for index in whole.indices.to_pylist()]


def _lists(column: pa.ChunkedArray) -> list[Any]:
    """Arrays of numpy for a column of lists: as Python lists they would take ten times the memory."""
    whole = column.combine_chunks()
    ends, values = whole.offsets.to_numpy(), whole.values.to_numpy()
    return [values[low:high] for low, high in itertools.pairwise(ends)]


class Keeper:
    """Gathers what is to be kept; nothing is written where it is what was known.

    A few hundred runs at a time are compressed, so that a large store does not stand in memory twice.
    """

    def __init__(self, known: Mapping[str, Entry]) -> None:
        self._known = known
        self._same: list[str] = []
        """Runs as they were known, as long as nothing else is."""
        self._waiting: dict[str, Entry] = {}
        self._buffer = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None

    def add(self, run: str, entry: Entry) -> None:
        """Keep a run."""
        if not self._waiting and self._writer is None and entry is self._known.get(run):
            self._same.append(run)
            return
        for other in self._same:
            self._add(other, self._known[other])
        self._same.clear()
        self._add(run, entry)

    def _add(self, run: str, entry: Entry) -> None:
        self._waiting[run] = entry
        if len(self._waiting) == GROUP:
            self._compress()

    def _compress(self) -> None:
        if self._writer is None:
            schema = pa.schema(_FIELDS, metadata={"code": own_hash()})
            self._writer = pq.ParquetWriter(self._buffer, schema, compression="zstd")
        values = list(self._waiting.values())
        columns = {"run": list(self._waiting), **{name: [getattr(one, name) for one in values] for name in _OF_ENTRY}}
        self._writer.write_table(pa.table(columns, schema=self._writer.schema))
        self._waiting.clear()

    def write(self, root: Path) -> None:
        """Write the cache anew where anything is new or gone, as far as the store lets."""
        if self._writer is None and not self._waiting and len(self._same) == len(self._known):
            return
        for run in self._same:
            self._waiting[run] = self._known[run]
        self._compress()
        assert self._writer is not None
        self._writer.close()
        with contextlib.suppress(OSError):
            write_atomically(root / FILE, self._buffer.getvalue())
