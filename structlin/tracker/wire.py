"""What stands in a file of W&B's client (run-*.wandb), read without the client?

A 7-byte header, then LevelDB log blocks of 32,768 bytes, each record a protobuf message; a torn tail (the process was
killed) ends the file quietly.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _RECORD_HEADER = 7, 32_768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def messages(path: Path) -> Iterator[Any]:
    """The messages (wandb.proto Record) of a file, up to a torn tail."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from wandb.proto.wandb_internal_pb2 import Record

    for body in records(path.read_bytes()):
        record = Record()
        try:
            record.ParseFromString(body)
        except DecodeError:
            return
        yield record


def is_whole(path: Path) -> bool:
    """Whether the client has written its last message, the run's end."""
    last = deque(messages(path), maxlen=1)
    return bool(last) and last[0].WhichOneof("record_type") == "exit"


def history_row(record: Any) -> dict[str, Any]:
    """The values of a message that holds a row of history."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def history(path: Path) -> list[dict[str, Any]]:
    """All rows of history in a file."""
    return [history_row(record) for record in messages(path) if record.WhichOneof("record_type") == "history"]


def records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log after W&B's header; what a crash cut off is not yielded."""
    parts: list[bytes] = []
    at = _HEADER
    while at + _RECORD_HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEADER:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        body = data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        if len(body) < length or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return
        at += _RECORD_HEADER + length
        parts = [body] if kind in (_FULL, _FIRST) else [*parts, body]
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
