"""Which local files does a path mean, what text is in them, and are they still the same?

A path is a file, a folder (searched downwards) or a glob. Parquet and JSON lines hold a document a row. A
text file is cut at blank lines into documents of about ``DOCUMENT_CHARACTERS``; a shorter file is one
document.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from structlin.errors import UserError, one_line

TEXT_SUFFIXES = (".txt", ".text", ".md")
JSON_SUFFIXES = (".jsonl", ".ndjson")
PARQUET_SUFFIXES = (".parquet",)

DOCUMENT_CHARACTERS = 8_192
"""A document cut from a text file ends at the first blank line after so many characters."""

LONGEST_DOCUMENT_CHARACTERS = 65_536
"""Where no blank line comes, it ends at a line end, or anywhere, by so many characters (bounds memory)."""

_SAMPLE_BLOCKS, _BLOCK_BYTES = 16, 65_536


def kind(path: Path) -> str:
    """parquet, json or text, by suffix (.gz is looked through); an empty string for an unknown one."""
    suffixes = path.suffixes[-2:-1] if path.suffix == ".gz" else path.suffixes[-1:]
    suffix = suffixes[0].lower() if suffixes else ""
    if suffix in PARQUET_SUFFIXES:
        return "parquet"
    if suffix in JSON_SUFFIXES:
        return "json"
    return "text" if suffix in TEXT_SUFFIXES else ""


def expand(path: str) -> list[Path]:
    """The files a path means, sorted by name; ``UserError`` if there are none.

    Of a folder only files of known suffixes count; a file given by name or glob is text if its suffix is
    unknown.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        found = [file for file in given.rglob("*") if file.is_file() and kind(file)]
    elif given.is_file():
        found = [given]
    else:
        found = [Path(match) for match in glob.glob(str(given), recursive=True) if Path(match).is_file()]
    if not found:
        known = ", ".join(TEXT_SUFFIXES + JSON_SUFFIXES + PARQUET_SUFFIXES)
        raise UserError(f"data.path={path}: no file there; give a file, a folder of {known} (or .gz), or a glob")
    return sorted(found)


def fingerprint(files: list[Path]) -> str:
    """A name for the content of files in their order, 16 hexadecimal digits, read in milliseconds.

    Hashes each size and 16 evenly spaced blocks of 64 KiB (all of a file up to 1 MiB). Names and folders do
    not count, so the identity of data survives a move. An edit between the blocks that keeps the size goes
    unseen here; the manifest's hash, made from every token, tells it.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            _sample(file, digest.update)
        except OSError as error:
            raise UserError(f"data.path: cannot read {file}: {error.strerror}") from error
    return digest.hexdigest()[:16]


def _sample(file: Path, update: Callable[[bytes], None]) -> None:
    size = os.stat(file).st_size
    update(f"{size};".encode())
    blocks = min(_SAMPLE_BLOCKS, -(-size // _BLOCK_BYTES))
    last = max(0, size - _BLOCK_BYTES)
    with file.open("rb") as stream:
        for block in range(blocks):
            stream.seek(last * block // max(1, blocks - 1))
            update(stream.read(_BLOCK_BYTES))


def read_documents(files: list[Path], column: str) -> Iterator[str]:
    """The documents of files in order; ``column`` is the field of a row that holds the text."""
    for file in files:
        try:
            if kind(file) == "parquet":
                yield from _parquet_rows(file, column)
            elif kind(file) == "json":
                yield from _json_rows(file, column)
            else:
                yield from _text_blocks(file)
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {file} is not UTF-8 ({one_line(error)}); convert it, e.g. by iconv") from error
        except (OSError, EOFError, zlib.error) as error:  # the last two: a broken gzip file
            raise UserError(f"data.path: cannot read {file}: {one_line(error)}") from error


def _parquet_rows(file: Path, column: str) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as parquet:
            check_column(column, parquet.schema_arrow.names, file)
            for batch in parquet.iter_batches(batch_size=256, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield checked_text(value, column, file)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"data.path: {file} is not a readable parquet file: {one_line(error)}") from error


def _json_rows(file: Path, column: str) -> Iterator[str]:
    with _open_text(file) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"data.path: {file}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserError(f"data.path: {file}, line {number} holds no JSON object")
            check_column(column, list(row), file)
            yield checked_text(row[column], column, file)


def check_column(column: str, columns: list[str], where: object) -> None:
    """``UserError`` unless the column is there; lists those that are."""
    if column not in columns:
        raise UserError(f"data.column={column}: {where} has no such column; it has {', '.join(columns) or 'none'}")


def checked_text(value: object, column: str, where: object) -> str:
    """The text of a row; nothing for a null, ``UserError`` for what is no text."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"data.column={column}: {where} holds {type(value).__name__} there, not text")
    return value


def _text_blocks(file: Path) -> Iterator[str]:
    """Documents cut from a text file; joined, they are the file."""
    lines: list[str] = []
    size = 0
    with _open_text(file) as stream:
        for line in iter(lambda: stream.readline(LONGEST_DOCUMENT_CHARACTERS), ""):
            if lines and size + len(line) > LONGEST_DOCUMENT_CHARACTERS:
                yield "".join(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
            if size >= DOCUMENT_CHARACTERS and not line.strip():
                yield "".join(lines)
                lines, size = [], 0
    if lines:
        yield "".join(lines)


def _open_text(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8")
    return file.open(encoding="utf-8")
