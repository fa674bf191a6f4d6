"""Which local files does a path mean, what text is in them, and are they still the same?

A path is a file, a folder (searched downwards) or a glob. Parquet, JSON lines, JSON arrays and CSV hold a document a
row; all but parquet may be compressed (.gz, .zst, .bz2, .xz). A text file is cut at blank lines into documents of about
``DOCUMENT_CHARACTERS``; a shorter file is one document.
"""

from __future__ import annotations

import bz2
import csv
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from structlin.errors import UserError, one_line

KINDS = {
    "text": (".txt", ".text", ".md"),
    "json": (".jsonl", ".ndjson", ".json"),
    "csv": (".csv",),
    "parquet": (".parquet",),
}
"""What is in a file, by the ending of its name."""
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
"""Endings that are looked through."""
NO_TEXT = (".zip", ".tar", ".tgz", ".7z", ".rar", ".lz4", ".br", ".pdf", ".docx", ".npz", ".npy", ".pkl", ".arrow")
"""Endings of files that are named rather than trained on as bytes."""

DOCUMENT_CHARACTERS = 8_192
"""A document cut from a text file ends at the first blank line after so many characters."""

LONGEST_DOCUMENT_CHARACTERS = 65_536
"""Where no blank line comes, it ends at a line end, or anywhere, by so many characters (bounds memory)."""

_SAMPLE_BLOCKS, _BLOCK_BYTES = 16, 65_536
_ARRAY_CHARACTERS = 1 << 20
_LONGEST_FIELD = 1 << 30


def kind(path: Path) -> str:
    """parquet, json, csv or text, by the ending (that of a compression is looked through); empty for an unknown one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return next((name for name, endings in KINDS.items() if suffixes and suffixes[-1] in endings), "")


def expand(path: str, *, is_text: bool = True) -> list[Path]:
    """The files a path means, sorted by name; ``UserError`` if there are none.

    Of a folder only files of known endings count, none that is hidden or below a hidden folder (.ipynb_checkpoints),
    and a linked folder or file once, however many names it has. A file given by name or glob is text if its ending is
    unknown.
    """
    given = Path(path).expanduser()
    if given.is_dir():
        found = list(_below(given))
    elif given.is_file():
        found = [given]
    else:
        found = [Path(match) for match in glob.glob(str(given), recursive=True) if Path(match).is_file()]
    if not found:
        known = ", ".join(ending for endings in KINDS.values() for ending in endings)
        raise UserError(
            f"data.path={path}: no file there; give a file, a folder of {known} (or one of them with "
            f"{', '.join(COMPRESSED)}), or a glob"
        )
    for file in found:
        if is_text and not kind(file) and file.suffix.lower() in NO_TEXT:
            raise UserError(
                f"data.path={path}: {file.name} is no text ('{file.suffix}'); unpack it, or give other files"
            )
    return sorted(found)


def _below(folder: Path) -> Iterator[Path]:
    """The files of a folder that count, links followed, each once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        # The walk goes where this list says, in this order: the first name of a folder is the one that counts.
        folders[:] = [name for name in sorted(folders) if _is_new(os.path.join(place, name), seen)]
        for name in sorted(names):
            file = Path(place, name)
            if kind(file) and file.is_file() and _is_new(str(file), seen):
                yield file


def _is_new(path: str, seen: set[str]) -> bool:
    real = os.path.realpath(path)
    if os.path.basename(path).startswith(".") or real in seen:
        return False
    seen.add(real)
    return True


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


def read_documents(files: list[Path], column: str, version: int = 2) -> Iterator[str]:
    """The documents of files in order; ``column`` is the field of a row that holds the text.

    Version 1 of a recipe took a byte order mark for text.
    """
    for file in files:
        try:
            if kind(file) == "parquet":
                yield from _parquet_rows(file, column)
            elif kind(file) == "json":
                yield from _json_rows(file, column)
            elif kind(file) == "csv":
                yield from _csv_rows(file, column)
            else:
                yield from _text_blocks(file, "utf-8" if version == 1 else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {file} is not UTF-8 ({one_line(error)}); convert it, e.g. by iconv") from error
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # the others: a broken compressed file
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
    """Rows of JSON lines, or of one array of objects."""
    with _open_text(file) as stream:
        is_array = ".json" in map(str.lower, file.suffixes[-2:]) and stream.read(4096).lstrip().startswith("[")
    with _open_text(file) as stream:
        for where, row in _array(stream, file) if is_array else _lines(stream, file):
            if not isinstance(row, dict):
                raise UserError(f"data.path: {file}, {where} holds no JSON object")
            check_column(column, list(row), file)
            yield checked_text(row[column], column, file)


def _lines(stream: IO[str], file: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"data.path: {file}, line {number} is not JSON: {error}; one object a line, or an array of objects"
                ) from error


def _array(stream: IO[str], file: Path) -> Iterator[tuple[str, Any]]:
    """The items of an array, of which never more than one and a block stands in memory."""
    decoder = json.JSONDecoder()
    text, number = stream.read(_ARRAY_CHARACTERS).lstrip().removeprefix("["), 1
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        try:
            item, end = decoder.raw_decode(text)
        except json.JSONDecodeError as error:
            more = stream.read(max(_ARRAY_CHARACTERS, len(text)))
            if not more:
                raise UserError(f"data.path: {file}, item {number} is not JSON: {error}") from error
            text += more
            continue
        yield f"item {number}", item
        text, number = text[end:], number + 1
        if len(text) < _ARRAY_CHARACTERS // 4:
            text += stream.read(_ARRAY_CHARACTERS)


def _csv_rows(file: Path, column: str) -> Iterator[str]:
    """Rows of a table with a line of names."""
    csv.field_size_limit(_LONGEST_FIELD)
    with _open_text(file, newline="") as stream:
        rows = csv.DictReader(stream)
        try:
            check_column(column, list(rows.fieldnames or []), file)
            for row in rows:
                yield checked_text(row[column], column, file)
        except csv.Error as error:
            raise UserError(f"data.path: {file}, line {rows.line_num} is no CSV: {error}") from error


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


def _text_blocks(file: Path, encoding: str) -> Iterator[str]:
    """Documents cut from a text file; joined, they are the file."""
    lines: list[str] = []
    size = 0
    with _open_text(file, encoding) as stream:
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


def _open_text(file: Path, encoding: str = "utf-8-sig", newline: str | None = None) -> IO[str]:
    """A file as text, uncompressed; a byte order mark at its beginning is none of it."""
    openers: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    suffix = file.suffix.lower()
    if suffix == ".zst":
        import pyarrow  # its own codec: nothing more has to be installed

        stream = io.BufferedReader(pyarrow.input_stream(str(file), compression="zstd"))
        return io.TextIOWrapper(stream, encoding=encoding, newline=newline)
    if suffix in openers:
        return openers[suffix](file, "rt", encoding=encoding, newline=newline)
    return file.open(encoding=encoding, newline=newline)
