"""What does a file of numbers hold? csv in any separator and encoding, tsv, parquet, json and its lines, also gzipped.

Text is decoded by its byte-order mark (UTF-8, UTF-16), the separator is what the header has most of, and a file of
semicolons may write decimals with a comma. A table comes back with the names of its header, without spaces around them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from structlin.errors import UserError

_TEXT, _JSON = (".csv", ".tsv", ".txt"), (".json", ".jsonl", ".ndjson")
ENDINGS = (*_TEXT, ".parquet", *_JSON)
_SEPARATORS = (",", ";", "\t", "|")
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


def read_file(path: Path) -> pd.DataFrame:
    """The table of a file. Raises UserError when it is missing, of another kind, empty or has a name twice."""
    if not path.is_file():
        raise UserError(f"table={path} is not a file")
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    packed = bool(endings) and endings[-1] == ".gz"
    ending = (endings[-2] if len(endings) > 1 else "") if packed else (endings[-1] if endings else "")
    if ending not in ENDINGS:
        raise UserError(f"table={path} has the ending '{path.suffix}'; valid: {', '.join(ENDINGS)}, each also .gz")
    try:
        table = _parsed(path, ending, packed)
    except (ValueError, OSError, EOFError, RecursionError, pd.errors.ParserError) as error:
        raise UserError(f"table={path} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if table.empty:
        raise UserError(f"table={path} has no rows")
    return named(table, f"table={path}")


def provenance(path: Path) -> dict[str, Any]:
    """NAME.json beside a table NAME.parquet, as kept runs have it; empty where there is none."""
    beside = path.with_suffix(".json")
    if beside == path or not beside.is_file():
        return {}
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def named(table: pd.DataFrame, origin: str) -> pd.DataFrame:
    """The table with text for names; of two columns of one name and content one stays. UserError where they differ."""
    names = [_name(name) for name in table.columns]
    table = table.set_axis(names, axis="columns")
    for name, count in Counter(names).items():
        if count > 1:
            first, *others = (i for i, one in enumerate(names) if one == name)
            if not all(table.iloc[:, first].equals(table.iloc[:, other]) for other in others):
                raise UserError(
                    f"{origin}: columns {first + 1} and {others[0] + 1} are both named '{name}' and differ; rename one"
                )
    return table.loc[:, ~table.columns.duplicated()]


def _name(name: object) -> str:
    """A name as text; the levels of a pandas MultiIndex are joined by a slash."""
    parts = name if isinstance(name, tuple) else (name,)
    return "/".join(part for one in parts if (part := str(one).strip()) and not part.startswith("Unnamed: "))


def _parsed(path: Path, ending: str, packed: bool) -> pd.DataFrame:
    content = path.read_bytes()
    if packed:
        content = gzip.decompress(content)
    if ending == ".parquet":
        return pd.read_parquet(io.BytesIO(content))
    text = _decoded(content)
    return _from_json(text) if ending in _JSON else _from_text(text)


def _decoded(content: bytes) -> str:
    """Text by its mark; without one UTF-8, and what is none of these as one byte a letter."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    # Half of the bytes of Latin letters in UTF-16 are zeros; one that lacks its mark is told by them.
    if content[1:400:2].count(0) > len(content[1:400:2]) * 0.4:
        return content.decode("utf-16-le")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _from_text(text: str) -> pd.DataFrame:
    header = next((line for line in text.splitlines() if line.strip()), "")
    if not header:
        raise ValueError("it is empty")
    separator = max(_SEPARATORS, key=header.count)
    names = next(csv.reader([header], delimiter=separator))
    table = pd.read_csv(
        io.StringIO(text), sep=separator, skipinitialspace=True, decimal=_decimal(text, separator), low_memory=False
    )
    # pandas renames a second ``loss`` to ``loss.1``: the names of the file come back, for ``named`` to judge.
    if len(names) == table.shape[1]:
        table.columns = pd.Index([name or f"Unnamed: {i}" for i, name in enumerate(names)])
    return table


def _decimal(text: str, separator: str) -> str:
    """A comma where the fields of a semicolon file have a comma between digits and none has a point."""
    if separator != ";":
        return "."
    fields = [field.strip() for line in text.splitlines()[1:50] for field in line.split(";")]
    commas = sum(field.count(",") == 1 and field.replace(",", "").lstrip("-").isdigit() for field in fields)
    points = sum(field.count(".") == 1 and field.replace(".", "").lstrip("-").isdigit() for field in fields)
    return "," if commas and not points else "."


def _from_json(text: str) -> pd.DataFrame:
    """An array of objects, an object of columns or of one list of rows, or one object a line."""
    start = text.lstrip()[:1]
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError:
        if start != "{":
            raise
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(found, dict):
        lists = {name: value for name, value in found.items() if isinstance(value, list)}
        if len(lists) > 1:
            return pd.DataFrame(lists)
        found = next(iter(lists.values())) if lists else [found]
    if not isinstance(found, Sequence) or not all(isinstance(row, dict) for row in found):
        raise ValueError("it is neither a list of objects nor one object a line")
    return pd.json_normalize(list(found))
