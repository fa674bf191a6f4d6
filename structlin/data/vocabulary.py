"""What is in a tokenizer's file, and how does text become its tokens? ``data.tokenizer=PATH``.

    tokenizer.json    of Hugging Face's tokenizers, which encodes (pip install tokenizers)
    *.model           of SentencePiece, which encodes (pip install sentencepiece)
    *.tiktoken        lines "base64 rank" of tiktoken; text is split as GPT-2's is

A recipe knows a file by its name alone: vocab32000-1a2b3c4d, its size and its content's hash. The first preparation
keeps a copy in <data root>/tokenizers/. vocab32000 without a hash is a size without a file: enough to count with.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from structlin.data.cleaning import CleaningReport
from structlin.data.tokenizers import Tokens, tokenizer_spec
from structlin.errors import UserError, one_line
from structlin.host.files import write_atomically

SUFFIXES = (".json", ".model", ".tiktoken")
FOLDER = "tokenizers"
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
_GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


@dataclass(frozen=True)
class Vocabulary:
    """How a file's tokens are made and read."""

    ids: Callable[[str], list[int]]
    written: Callable[[list[int]], str]
    end: int
    """The token after each document."""


def is_file(tokenizer: str) -> bool:
    """Whether data.tokenizer is meant as a file, rather than a name."""
    return "/" in tokenizer or tokenizer.endswith(SUFFIXES)


def name_of_file(path: Path) -> str:
    """vocab<size>-<hash> of a tokenizer's file. UserError for one that is none, or cannot be read."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"data.tokenizer={path} is none of {', '.join(SUFFIXES)}; or write a name, such as char96")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"data.tokenizer={path} cannot be read: {error.strerror}") from None
    try:
        size = _SIZES[path.suffix](content)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise UserError(f"data.tokenizer={path} is no tokenizer's {path.suffix} file") from None
    return f"vocab{size}-{hashlib.sha256(content).hexdigest()[:8]}"


def keep(path: Path, name: str, root: Path) -> None:
    """Copy a tokenizer's file where preparations and ``generate`` find it by its name."""
    place = root / FOLDER / f"{name}{path.suffix}"
    if name_of_file(path) != name:
        raise UserError(f"data.tokenizer={path} has changed: it is {name_of_file(path)} now and was {name}")
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, path.read_bytes())


def load(name: str, root: Path) -> Vocabulary:
    """The vocabulary of a name. UserError where its file is not there, or what reads it is not installed."""
    found = sorted((root / FOLDER).glob(f"{name}.*"))
    if not found or "-" not in name:
        raise UserError(
            f"data.tokenizer={name} is known by its size alone, which plans and counts; to read text, give its file: "
            f"data.tokenizer=PATH ({', '.join(SUFFIXES)})"
        )
    return _LOADERS[found[0].suffix](found[0])


class FileEncoder:
    """Documents to the ids of a tokenizer's file, verbatim, each ended by its end of text."""

    def __init__(self, name: str, root: Path) -> None:
        self.report = CleaningReport()
        self._vocabulary, self._dtype = load(name, root), tokenizer_spec(name).dtype

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """One array a document; empty for an empty document."""
        return [self._document(text) for text in texts]

    def _document(self, text: str) -> npt.NDArray[Any]:
        self.report.documents_read += 1
        self.report.characters_read += len(text)
        tokens = self._vocabulary.ids(text)
        self.report.documents_kept += bool(tokens)
        return np.array([*tokens, self._vocabulary.end] if tokens else [], dtype=self._dtype)


# ---- sizes, without the libraries -----------------------------------------------------------------------------------


def _size_of_json(content: bytes) -> int:
    found = json.loads(content)
    vocabulary = found["model"]["vocab"]
    last = max(vocabulary.values()) if isinstance(vocabulary, dict) else len(vocabulary) - 1
    return 1 + max([last, *(int(token["id"]) for token in found.get("added_tokens") or [])])


def _size_of_model(content: bytes) -> int:
    """Pieces of a SentencePiece model: the entries of field 1 of its message."""
    count, place = 0, 0
    while place < len(content):
        tag, place = _varint(content, place)
        field, wire = tag >> 3, tag & 7
        count += field == 1
        if wire == 2:
            length, place = _varint(content, place)
            place += length
        elif wire == 0:
            _, place = _varint(content, place)
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError(wire)
    if not count or place != len(content):
        raise ValueError(count)
    return count


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _ranks(content: bytes) -> dict[bytes, int]:
    pairs = (line.split() for line in content.splitlines() if line.strip())
    return {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}


def _size_of_tiktoken(content: bytes) -> int:
    """Its ranks, and the end of text, which has the next id."""
    return max(_ranks(content).values()) + 2


_SIZES: dict[str, Callable[[bytes], int]] = dict(
    zip(SUFFIXES, (_size_of_json, _size_of_model, _size_of_tiktoken), strict=True)
)


# ---- encoding, with them --------------------------------------------------------------------------------------------


def _load_json(path: Path) -> Vocabulary:
    library = _library("tokenizers", path)
    try:
        found = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(f"data.tokenizer={path} cannot be read by tokenizers: {one_line(error)}") from None
    ends = [found.token_to_id(end) for end in _ENDS]
    known = [end for end in ends if end is not None]
    if not known:
        raise UserError(f"data.tokenizer={path} has no end of text; it needs one of {', '.join(_ENDS)}")
    return Vocabulary(lambda text: list(found.encode(text, add_special_tokens=False).ids), found.decode, known[0])


def _load_model(path: Path) -> Vocabulary:
    found = _library("sentencepiece", path).SentencePieceProcessor(model_file=str(path))
    return Vocabulary(found.encode, found.decode, int(found.eos_id()))


def _load_tiktoken(path: Path) -> Vocabulary:
    ranks = _ranks(path.read_bytes())
    end = max(ranks.values()) + 1
    found = _library("tiktoken", path).Encoding(
        path.stem, pat_str=_GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={_ENDS[0]: end}
    )
    return Vocabulary(found.encode_ordinary, found.decode, end)


def _library(name: str, path: Path) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"data.tokenizer={path} is read by the package {name}: pip install {name}") from None


_LOADERS: dict[str, Callable[[Path], Vocabulary]] = dict(
    zip(SUFFIXES, (_load_json, _load_model, _load_tiktoken), strict=True)
)
