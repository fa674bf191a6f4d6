"""What is in a TensorBoard event file? Records of one scalar each, written here without any library.

A record is its length (uint64), a masked CRC-32C of those eight bytes, the event, and a masked CRC-32C of it (the
TFRecord format). An event is a protocol buffer: wall time (1, double), step (2, varint), and either the file's version
(3) or a summary (5) of values (1), each a tag (1) and a float (2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

VERSION = b"brain.Event:2"
_POLYNOMIAL, _MASK_DELTA = 0x82F63B78, 0xA282EAD8


def record(event: bytes) -> bytes:
    """An event as it stands in a file."""
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", masked(length)) + event + struct.pack("<I", masked(event))


def version_event(time: float) -> bytes:
    """The first event of every file."""
    return _double(1, time) + _bytes(3, VERSION)


def scalars_event(time: float, step: int, values: dict[str, float]) -> bytes:
    """An event of scalars at a step."""
    summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + b"\x15" + struct.pack("<f", v)) for tag, v in values.items())
    return _double(1, time) + b"\x10" + _varint(step) + _bytes(5, summary)


def events(path: Path) -> Iterator[bytes]:
    """The events of a file. ValueError for a record whose sums do not match; a cut end is passed over."""
    data, place = path.read_bytes(), 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        end = place + 12 + length
        if end + 4 > len(data):
            return
        event = data[place + 12 : end]
        sums = struct.unpack_from("<I", data, place + 8)[0], struct.unpack_from("<I", data, end)[0]
        if sums != (masked(data[place : place + 8]), masked(event)):
            raise ValueError(f"{path}: a record is broken at byte {place}")
        yield event
        place = end + 4


def masked(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and shifted as TFRecord does: a sum of sums would else be weak."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (_POLYNOMIAL if byte & 1 else 0)
        rows.append(byte)
    return tuple(rows)


def _double(field: int, value: float) -> bytes:
    return bytes([field << 3 | 1]) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])
