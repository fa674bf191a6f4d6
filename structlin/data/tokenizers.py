"""Which tokenizers are there, and how large is a vocabulary? A table that needs no tokenizer library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from structlin.data.cleaning import CleaningReport
from structlin.errors import UserError, suggest

Tokens = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class TokenizerSpec:
    """What a model and a file have to know of a tokenizer."""

    name: str
    """The name a recipe gives."""

    vocab_size: int
    """Size of the model's vocabulary: every id is below it."""

    dtype: str
    """numpy name of the stored type, little-endian."""

    start_tokens: int = 0
    """Ids after the vocabulary that are read but never predicted: 1 where every sample begins with a start token."""

    def __post_init__(self) -> None:
        if self.vocab_size - 1 > np.iinfo(self.dtype).max:
            raise UserError(
                f"tokenizer={self.name} has {self.vocab_size:,} symbols, more than {self.dtype} holds; take uint32"
            )


TOKENIZERS = {
    # 96 symbols: newline and printable ASCII [arXiv 2410.02117, small-vocabulary OpenWebText].
    "char96": TokenizerSpec("char96", vocab_size=96, dtype="uint8"),
    # 50,257 ids padded to a multiple of 64, as usual for GPT-2; the last 47 never occur.
    "gpt2": TokenizerSpec("gpt2", vocab_size=50_304, dtype="uint16"),
    # 256 values of a pixel's channel; 256 itself is the start token [arXiv 2410.02117, CIFAR-5M].
    "pixels": TokenizerSpec("pixels", vocab_size=256, dtype="uint8", start_tokens=1),
}


class Encoder(Protocol):
    """Turns documents into tokens and keeps account of what cleaning did."""

    report: CleaningReport

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """One array a document, its end symbol included; an empty array for a document left out."""
        ...


LARGEST_VOCABULARY = 2**31


@lru_cache(maxsize=256)
def tokenizer_spec(name: str) -> TokenizerSpec:
    """The tokenizer of this name; ``UserError`` lists the valid names.

    vocab32000 is a vocabulary of 32,000 without a file, vocab32000-1a2b3c4d that of a file (data/vocabulary.py).
    """
    if name in TOKENIZERS:
        return TOKENIZERS[name]
    found = re.fullmatch(r"vocab([1-9]\d*)(?:-[0-9a-f]{8})?", name)
    if found is None or int(found[1]) > LARGEST_VOCABULARY:
        more = "; or sotu2048, of the package; a tokenizer's file: data.tokenizer=PATH; or a size: vocab32000"
        raise UserError(f"tokenizer={name}: no such tokenizer; {suggest(name, TOKENIZERS)}{more}")
    size = int(found[1])
    return TokenizerSpec(name, size, "uint16" if size <= 2**16 else "uint32")


def has_file(name: str) -> bool:
    """Whether it can make tokens: of a size alone none are known."""
    return name in TOKENIZERS or "-" in name


def vocab_size(tokenizer: str) -> int:
    """What a model for this tokenizer predicts: 96 for char96, 50,304 for gpt2 (padded), 256 for pixels, a file's."""
    return tokenizer_spec(tokenizer).vocab_size


def input_vocab_size(tokenizer: str) -> int:
    """What it reads: the vocabulary and the start token, where there is one."""
    spec = tokenizer_spec(tokenizer)
    return spec.vocab_size + spec.start_tokens


def make_encoder(tokenizer: str, *, whole_documents: bool, root: Path) -> Encoder:
    """The encoder of a tokenizer.

    ``whole_documents`` chooses the rule of char96 (keep clean documents only, or map and drop characters);
    BPE knows every character and needs no rule. ``root`` is the data root, where vocabularies' files are kept.
    """
    if tokenizer_spec(tokenizer).name == "char96":
        from structlin.data.char96 import Char96Encoder

        return Char96Encoder(whole_documents=whole_documents)
    if tokenizer not in TOKENIZERS:
        from structlin.data.vocabulary import FileEncoder

        return FileEncoder(tokenizer, root)
    from structlin.data.bpe import BPEEncoder

    return BPEEncoder(root)
