"""Is it the storage that failed? A full disk, a quota, a file server that has gone: not the fault of what was run."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.EROFS,
    errno.EIO,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
    errno.EREMOTEIO,
)
_OWN_WORDS = ("no space left", "^storage: ", r"ended with signal 7(?!\d)")
_WORDS = (*(re.escape(os.strerror(number)) for number in ERRNOS), *_OWN_WORDS)
STORAGE_WORDS = re.compile("|".join(_WORDS), re.IGNORECASE | re.MULTILINE)
"""In a reason or a log: the words of these errors, or our own; signal 7 ends who reads a mapped file that has gone."""
PROBE_BYTES = 4 << 20


def storage_error(error: BaseException) -> OSError | None:
    """The error of the storage that an error is, or was caused by."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in ERRNOS:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def is_storage(error: BaseException) -> bool:
    """Whether an error, or what caused it, is one of the storage."""
    return storage_error(error) is not None


def why_not_writable(folder: Path, size: int = PROBE_BYTES) -> str:
    """Why ``size`` bytes cannot be written into a folder now; empty where they can. It leaves nothing behind."""
    probe = folder / f".probe.{os.uname().nodename}.{os.urandom(6).hex()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("xb", buffering=0) as stream:
            left = size
            while left:
                left -= stream.write(bytes(min(left, 1 << 20)))
            os.fsync(stream.fileno())
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return ""
