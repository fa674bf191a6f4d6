"""Which documents are validation? By a hash of their tokens, so that exact copies lie on one side.

One document in ``every`` by its hash alone, whatever its place. Of few documents chance could make none validation, so
these are ranked by their hashes and the lowest taken: one in ``every``, and one at least where two differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from structlin.data.tokenizers import Tokens
from structlin.data.writer import SplitWriter

FEW = 16
"""Fewer documents than so many times ``every`` are few."""
MOST_TOKENS = 1 << 25
"""And so many tokens at most, which are held in memory until it is known how many documents there are."""


class ByContent:
    """Writes documents to the training or the validation split, in the order in which they come."""

    def __init__(self, every: int, writers: Mapping[str, SplitWriter]) -> None:
        self._every = every
        self._writers = writers
        self._held: list[tuple[int, Tokens]] | None = []
        self._held_tokens = 0

    def write(self, tokens: Tokens) -> None:
        """Add a document."""
        digest = digest_of(tokens)
        if self._held is None:
            self._write(tokens, is_validation=digest % self._every == 0)
            return
        self._held.append((digest, tokens))
        self._held_tokens += tokens.size
        if len(self._held) >= FEW * self._every or self._held_tokens > MOST_TOKENS:
            held, self._held = self._held, None
            for digest, document in held:
                self._write(document, is_validation=digest % self._every == 0)

    def close(self) -> None:
        """Write what is held: all documents, where they are few."""
        held, self._held = self._held or [], None
        digests = sorted({digest for digest, _ in held})
        number = max(1, round(len(digests) / self._every)) if len(digests) > 1 else 0
        lowest = set(digests[:number])
        for digest, document in held:
            self._write(document, is_validation=digest in lowest)

    def _write(self, tokens: Tokens, *, is_validation: bool) -> None:
        self._writers["validation" if is_validation else "train"].write_document(tokens)


def digest_of(tokens: Tokens) -> int:
    """64 bits of the BLAKE2 of a document's tokens."""
    return int.from_bytes(hashlib.blake2b(tokens.tobytes(), digest_size=8).digest(), "little")
