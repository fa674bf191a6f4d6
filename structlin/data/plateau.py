"""How low is a loss without attention? The validation loss of unigram and bigram models, counted on the training split.

A small model learns the bigrams first and stays there for a while: the laws count a run from where it is below them
(docs/laws.md). Counts are add-one smoothed; of a bigram the unigram is the prior.
Source: Chen and Goodman 1999, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structlin.data.manifest import Manifest
from structlin.data.shards import TokenShards

# Tokens that are counted and judged: more would change the fourth digit of a bigram loss of 96 characters.
_COUNTED, _JUDGED, _CHUNK = 50_000_000, 5_000_000, 1_000_000
# Above this vocabulary a table of bigrams is no longer small; its counts would be too few as well.
_MOST = 4_096


def plateau(folder: Path, vocabulary: int) -> dict[str, float | None]:
    """{"unigram_loss", "bigram_loss"} of prepared shards, nats per token; bigrams None for a large vocabulary."""
    train, validation = _read(folder, "train", _COUNTED), _read(folder, "validation", _JUDGED)
    single = sum((np.bincount(part, minlength=vocabulary) for part in _chunks(train)), np.zeros(vocabulary))
    share = (single + 1.0) / (single.sum() + vocabulary)
    unigram = float(-np.mean(np.log(share)[validation]))
    if vocabulary > _MOST:
        return {"unigram_loss": unigram, "bigram_loss": None}
    cells = vocabulary * vocabulary
    pairs = np.zeros(cells)
    for part in _chunks(train, 1):
        wide = part.astype(np.int64)
        pairs += np.bincount(wide[:-1] * vocabulary + wide[1:], minlength=cells)
    table = pairs.reshape(vocabulary, vocabulary)
    # One further token after every symbol, spread as the unigrams are.
    log_share = np.log((table + share) / (table.sum(axis=1, keepdims=True) + 1.0))
    bigram = float(-np.mean(log_share[validation[:-1], validation[1:]]))
    return {"unigram_loss": unigram, "bigram_loss": bigram}


def _read(folder: Path, split: str, most: int) -> NDArray[Any]:
    """The first ``most`` tokens of a split, in the stored type."""
    shards = TokenShards.open(folder, split)
    return np.asarray(shards.windows(np.zeros(1, dtype=np.int64), min(most, shards.num_tokens))[0])


def _chunks(tokens: NDArray[Any], overlap: int = 0) -> Iterator[NDArray[Any]]:
    """Parts of _CHUNK tokens, each with the first ones of the next."""
    for start in range(0, len(tokens) - overlap, _CHUNK):
        yield tokens[start : start + _CHUNK + overlap]


def corpus_facts(folder: Path) -> dict[str, Any]:
    """What a run records of its corpus: tokens of the training split, and the plateau where the manifest knows it."""
    manifest = Manifest.read(folder)
    train = manifest.splits["train"]
    if "classes" in manifest.cleaning:  # labelled images: a token is one
        return {"train_tokens": train.num_documents}
    return {"train_tokens": train.num_tokens, **manifest.provenance.get("plateau", {})}
