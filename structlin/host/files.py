"""How is a file written so that no crash leaves half of it? Beside its place, then renamed.

Everybody who makes a whole file writes it here. A file is on the disk before it gets its name, so that after a crash of
the machine the name stands for the old or for the new content, never for an empty file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from structlin.errors import UserError

Read = Callable[[Path], bytes]
_SEAL = re.compile(r',\n "checksum": "([0-9a-f]{64})"\n\}\n\Z')


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A free name beside ``path`` to make a file at, which becomes ``path`` at the end; the old file stands until then.

    An error (a full disk, say) removes the half-made file and is raised. Of several writers at once, in whatever
    process or machine, the last one to end has its file at ``path``. Folders on the way are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Numbers of processes repeat across machines that share a file system, and threads share one.
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        yield beside
        _to_disk(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes | Callable[[IO[bytes]], object]) -> None:
    """Write a file beside ``path`` and rename it there (``replacing``); ``content`` may be what fills a stream."""
    with replacing(path) as beside, beside.open("xb") as stream:
        if isinstance(content, bytes):
            stream.write(content)
        else:
            content(stream)


def _to_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value atomically, indented, keys as given, floats in full precision."""
    text = json.dumps(value, indent=1) + "\n"
    write_atomically(path, text.encode())


def read_json(path: Path, read: Read = Path.read_bytes) -> Any:
    """Read one JSON value. UserError names a file that is missing or broken. ``read``: how its bytes are come by."""
    return _parsed(path, _text(path, read))


class Missing(UserError):
    """There is no such file."""


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object with the checksum of its text as its last key."""
    write_atomically(path, sealed_text(value).encode())


def sealed_text(value: Mapping[str, Any]) -> str:
    """A JSON object with the checksum of its text as its last key."""
    text = json.dumps(value, indent=1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text.removesuffix("\n}") + f',\n "checksum": "{digest}"\n}}\n'


def read_sealed(path: Path, sealed_by: str = "checksum", read: Read = Path.read_bytes) -> Any:
    """Read what ``write_sealed`` wrote, without the checksum. UserError where its text is another than was written.

    A value that is no object, or lacks the key ``sealed_by``, was written before there were checksums: it is returned
    as it is.
    """
    text = _text(path, read)
    value = _parsed(path, text)
    if not isinstance(value, dict) or sealed_by not in value:
        return value
    seal = _SEAL.search(text)
    if seal is None or hashlib.sha256(f"{text[: seal.start()]}\n}}".encode()).hexdigest() != seal[1]:
        raise UserError(f"{path} has changed since it was written: its checksum is another")
    del value["checksum"]
    return value


def _text(path: Path, read: Read) -> str:
    try:
        return read(path).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not JSON (was it cut short?): {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not JSON (was it cut short?): {error}") from None
