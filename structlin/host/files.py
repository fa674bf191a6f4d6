"""How is a file written so that no crash leaves half of it? Beside its place, then renamed.

Everybody who makes a whole file writes it here. A file is on the disk before it gets its name, so that after a crash of
the machine the name stands for the old or for the new content, never for an empty file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from structlin.errors import UserError


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


def read_json(path: Path) -> Any:
    """Read one JSON value. UserError names a file that is missing or broken."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON (was it cut short?): {error}") from None
