"""What lies in a folder of token shards, and is it whole? manifest.json tells, written when all else is.

    {"format": "structlin-tokens", "format_version": 1, "recipe": {...}, "vocab_size": 96, "dtype": "uint8",
     "splits": {"train": {"num_tokens", "num_documents", "shards": [{"file", "num_tokens", "sha256"}]}, ...},
     "cleaning": {...}, "provenance": {...}}

``hash`` covers all but ``provenance``, which holds times and paths: the same tokens have the same hash
anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from structlin.errors import UserError, one_line
from structlin.host.files import write_json

MANIFEST_NAME = "manifest.json"
FORMAT = "structlin-tokens"
FORMAT_VERSION = 1
SPLITS = ("train", "validation")

_SHARD_NAME = re.compile(r"(train|validation)-\d{5}\.bin")


@dataclass(frozen=True)
class ShardEntry:
    """One file of tokens."""

    file: str
    """Its name in the folder, e.g. train-00000.bin."""

    num_tokens: int
    """Its length in tokens."""

    sha256: str
    """Of its bytes."""

    def __post_init__(self) -> None:
        if not _SHARD_NAME.fullmatch(self.file) or not isinstance(self.num_tokens, int) or self.num_tokens < 1:
            raise ValueError(f"not a shard: {self.file!r} of {self.num_tokens!r} tokens")


@dataclass(frozen=True)
class SplitEntry:
    """The shards of one split, in reading order."""

    num_tokens: int
    """Sum over the shards."""

    num_documents: int
    """Documents in the split; each lies wholly in it."""

    shards: tuple[ShardEntry, ...]
    """Its files."""

    def __post_init__(self) -> None:
        total = sum(shard.num_tokens for shard in self.shards)
        if total != self.num_tokens:
            raise ValueError(f"the shards hold {total} tokens, the split says {self.num_tokens}")


@dataclass(frozen=True)
class Manifest:
    """The record of one prepared folder."""

    recipe: dict[str, Any]
    """Identity of the data (``DataRecipe.to_dict``)."""

    vocab_size: int
    """Every token is below it."""

    dtype: str
    """numpy name of the stored type; little-endian."""

    splits: dict[str, SplitEntry]
    """By name, train and validation."""

    cleaning: dict[str, Any]
    """``CleaningReport.to_dict``: what was read, mapped and dropped."""

    provenance: dict[str, Any]
    """When and from where it was made; not hashed."""

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON without provenance, 64 hexadecimal digits."""
        content = self.to_dict()
        del content["provenance"]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as written to the file."""
        return {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Any) -> Manifest:
        """The manifest of plain values; ``ValueError`` if they are none."""
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError("it is no manifest of token shards")
        if values.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"its format version is {values.get('format_version')}, this code reads {FORMAT_VERSION}")
        try:
            return cls(
                recipe=dict(values["recipe"]),
                vocab_size=int(values["vocab_size"]),
                dtype=_token_dtype(values["dtype"]),
                splits={name: _split_entry(values["splits"][name]) for name in SPLITS},
                cleaning=dict(values["cleaning"]),
                provenance=dict(values["provenance"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"an entry is missing or of a wrong kind ({one_line(error)})") from error

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        write_json(folder / MANIFEST_NAME, self.to_dict())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder; ``UserError`` if it is missing, torn or foreign."""
        path = folder / MANIFEST_NAME
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} holds no {MANIFEST_NAME}, so its data is not prepared; {_way_out(folder)}"
            ) from error
        except (ValueError, OSError) as error:
            raise UserError(f"{path} cannot be used: {one_line(error)}; {_way_out(folder)}") from error

    def check_files(self, folder: Path) -> None:
        """``UserError`` unless every shard is there and of its size (contents are for ``check_contents``)."""
        for split in self.splits.values():
            for shard in split.shards:
                self._check_size(folder / shard.file, shard)

    def _check_size(self, path: Path, shard: ShardEntry) -> None:
        expected = shard.num_tokens * np.dtype(self.dtype).itemsize
        if not path.is_file():
            raise UserError(f"{path} is missing; {_way_out(path.parent)}")
        found = path.stat().st_size
        if found != expected:
            raise UserError(f"{path} has {found:,} bytes instead of {expected:,}; {_way_out(path.parent)}")

    def check_contents(self, folder: Path) -> None:
        """``UserError`` unless every shard has the bytes it was made with (reads all of them)."""
        for split in self.splits.values():
            for shard in split.shards:
                with (folder / shard.file).open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if found != shard.sha256:
                    path = folder / shard.file
                    raise UserError(f"{path} has changed since it was made: remove {folder} and prepare again")


def _token_dtype(name: Any) -> str:
    if name not in ("uint8", "uint16", "uint32"):  # mapping a file as any other type may be unsafe
        raise ValueError(f"its dtype is {name!r}, tokens are uint8, uint16 or uint32")
    return str(name)


def _split_entry(values: Any) -> SplitEntry:
    shards = tuple(ShardEntry(s["file"], s["num_tokens"], s["sha256"]) for s in values["shards"])
    if not shards:
        raise ValueError("a split has no shards")
    return SplitEntry(values["num_tokens"], values["num_documents"], shards)


def _way_out(folder: Path) -> str:
    return f"prepare it again: python -m structlin.data data=... root={folder.parent}"
