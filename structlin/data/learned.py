"""How does a text get a byte-pair vocabulary of its own? Learned once by Hugging Face's tokenizers, kept as a file.

A vocabulary that fits the text keeps the head of a small model small: 50,304 words are nearly all of its parameters.
Those that come with the package have names, ``data.tokenizer=sotu2048``; a file is given by its path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from structlin.data.tokenizers import LARGEST_VOCABULARY
from structlin.errors import UserError

BUNDLED = Path(__file__).parent / "vocabularies"
END = "<|endoftext|>"
SMALLEST = 257
"""Every byte and the end of text."""
CHARACTERS = 200_000_000
"""Of a longer text the beginning is enough: merges are counted on so many characters."""


def bundled() -> dict[str, Path]:
    """Vocabularies that come with the package, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.json"))}


def learn(texts: Iterable[str], size: int) -> str:
    """tokenizer.json of ``size`` tokens: byte pairs of words split as GPT-2's are (Sennrich et al., arXiv 1508.07909).

    The same texts give the same file. ``UserError`` for a size that is none, a text that has too few pairs, or where
    the package is not installed.
    """
    if not SMALLEST <= size <= LARGEST_VOCABULARY:
        raise UserError(
            f"vocabulary={size}: a vocabulary has at least {SMALLEST} tokens: every byte and the end of text"
        )
    try:
        import tokenizers
    except ImportError:
        raise UserError(f"vocabulary={size} is learned by the package tokenizers: pip install tokenizers") from None
    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    found.train_from_iterator(_beginning(texts), trainer)
    if found.get_vocab_size() < size:
        raise UserError(f"vocabulary={size}: this text has pairs for {found.get_vocab_size()} tokens; ask for fewer")
    return str(found.to_str())


def _beginning(texts: Iterable[str]) -> Iterator[str]:
    seen = 0
    for text in texts:
        yield text
        seen += len(text)
        if seen >= CHARACTERS:
            return
