"""How do tokens get into files? A stream of arrays, cut into shards of a fixed length, hashed on the way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from structlin.data.manifest import ShardEntry, SplitEntry
from structlin.data.tokenizers import Tokens
from structlin.errors import UserError

SHARD_TOKENS = 1 << 28
"""Tokens of a full shard: 256 MiB of characters, 512 MiB of BPE. A document may run over its end."""


class SplitWriter:
    """Writes the shards of one split; holds one file open and no tokens in memory."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int = SHARD_TOKENS) -> None:
        self.num_documents = 0
        self._folder = folder
        self._split = split
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._most = int(np.iinfo(self._dtype).max)
        self._shard_tokens = shard_tokens
        self._shards: list[ShardEntry] = []
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._filled = 0

    @property
    def num_tokens(self) -> int:
        """Tokens written so far."""
        return sum(shard.num_tokens for shard in self._shards) + self._filled

    def write_document(self, tokens: Tokens) -> None:
        """Append one document; ``UserError`` if the disk refuses."""
        self.num_documents += 1
        while tokens.size:
            room = self._shard_tokens - self._filled
            self._append(tokens[:room])
            tokens = tokens[room:]

    def close(self) -> SplitEntry:
        """Finish the last shard and return the record of the split."""
        self._finish_shard()
        return SplitEntry(self.num_tokens, self.num_documents, tuple(self._shards))

    def abandon(self) -> None:
        """Close the open file, if any; what is written stays for the caller to remove."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, tokens: Tokens) -> None:
        if tokens.size and int(tokens.max()) > self._most:
            raise UserError(f"token {int(tokens.max())} does not fit {self._dtype.name}, the type of these shards")
        data = tokens.astype(self._dtype, copy=False).tobytes()
        try:
            if self._file is None:
                self._file = self._path().open("wb", buffering=1 << 20)
            self._file.write(data)
        except OSError as error:
            raise UserError(f"cannot write {self._path()}: {error.strerror}") from error
        self._digest.update(data)
        self._filled += tokens.size
        if self._filled == self._shard_tokens:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise UserError(f"cannot write {self._path()}: {error.strerror}") from error
        self._shards.append(ShardEntry(self._path().name, self._filled, self._digest.hexdigest()))
        self._file, self._digest, self._filled = None, hashlib.sha256(), 0

    def _path(self) -> Path:
        return self._folder / f"{self._split}-{len(self._shards):05d}.bin"
