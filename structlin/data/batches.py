"""What does step n train on, and what is validated? Pure functions of the shards, the seed and the step.

An epoch cuts the training tokens into windows of context + 1 tokens that overlap by the one that is only a
target at the end of one window and only an input at the start of the next, shifted by a random offset of the
epoch, and visits each once in a random order. So resuming needs no state, and how often one evaluates changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from structlin.data.permutation import keys, mix, permute
from structlin.data.shards import TokenShards
from structlin.errors import UserError

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Inputs and targets, int64 (rows, context) each; a target is the token after its input."""

NO_TARGET = -100
"""Target of a position after which nothing comes: no part of a loss (the value that torch's cross-entropy ignores)."""

_OFFSET_SALT = np.uint64(0xD1B54A32D192ED03)


def train_batch(
    shards: TokenShards, *, context: int, rows: int, seed: int, step: int, rank: int = 0, world_size: int = 1
) -> Batch:
    """The batch of a step (counted from 0), or a rank's contiguous part of its rows.

    Global row ``step * rows + j`` is the next window of its epoch, so a step is ``rows * context`` tokens and
    a batch may hold the end of one epoch and the start of the next. The parts of all ranks, one below the
    other, are the batch of one rank. ``UserError`` if the split is too short, or the rows do not divide by
    the ranks.
    """
    if rows % world_size:
        raise UserError(f"{rows} rows a step do not divide by {world_size} ranks; choose a multiple")
    assert 0 <= rank < world_size
    part = rows // world_size
    windows = windows_per_epoch(shards, context)
    row = step * rows + rank * part + np.arange(part, dtype=np.int64)
    epoch, index = np.divmod(row, windows)
    key = keys(seed, epoch)
    # Less than a window, for which ``windows_per_epoch`` leaves one out; salted, so that it is free of the order.
    offset = (mix(key ^ _OFFSET_SALT) % np.uint64(context)).astype(np.int64)
    starts = offset + context * permute(index, windows, key)
    return _inputs_and_targets(shards, starts, context)


def windows_per_epoch(shards: TokenShards, context: int) -> int:
    """Windows an epoch visits, the same whatever its offset; ``UserError`` if there is none."""
    windows = shards.num_tokens // max(1, context) - 1
    if context < 1 or windows < 1:
        raise UserError(
            f"the {shards.split} split in {shards.folder} has {shards.num_tokens:,} tokens, too few for "
            f"windows of context={context}; choose a shorter context (at least 1), or more text"
        )
    return windows


def image_batch(
    shards: TokenShards, *, image_tokens: int, rows: int, seed: int, step: int, start: int, reads_last: bool = False
) -> Batch:
    """The batch of a step of whole images, each read after the start token: inputs and targets (rows, image_tokens).

    Where the last token is read too, both have one position more, whose target is NO_TARGET. Global row
    ``step * rows + j`` is the next image of its epoch, in an order of the epoch's own; a pure function of the shards,
    the seed and the step.
    """
    images = num_images(shards, image_tokens)
    epoch, index = np.divmod(step * rows + np.arange(rows, dtype=np.int64), images)
    return _read_images(shards, permute(index, images, keys(seed, epoch)), image_tokens, start, reads_last)


def validation_images(
    shards: TokenShards, *, image_tokens: int, tokens: int, rows: int, start: int, reads_last: bool = False
) -> Iterator[Batch]:
    """About ``tokens`` predicted tokens of whole images (rounded up, all there are at most), evenly spaced."""
    images = num_images(shards, image_tokens)
    count = min(images, -(-tokens // image_tokens))
    chosen = np.arange(count, dtype=np.int64) * images // count
    for first in range(0, count, rows):
        yield _read_images(shards, chosen[first : first + rows], image_tokens, start, reads_last)


def num_images(shards: TokenShards, image_tokens: int) -> int:
    """Images of a split; ``UserError`` unless it holds whole ones of this size."""
    images, rest = divmod(shards.num_tokens, image_tokens)
    if rest or not images:
        raise UserError(
            f"the {shards.split} split in {shards.folder} has {shards.num_tokens:,} tokens, not whole images of "
            f"{image_tokens}; set model.context to the tokens of an image"
        )
    return images


def epochs(tokens: float, train_tokens: float) -> float:
    """How often training on ``tokens`` sees the ``train_tokens`` of a split, e.g. 1.5; 0 where these have no end."""
    if train_tokens < 1:
        raise ValueError(f"train_tokens={train_tokens}: a training split has at least one token")
    return tokens / train_tokens


@dataclass(frozen=True)
class ValidationBatches:
    """Fixed windows, the same at every evaluation; iterate as often as you like."""

    shards: TokenShards
    """The validation split."""

    context: int
    """Tokens of a window, each predicted once."""

    rows: int
    """Windows a batch; the last one may have fewer."""

    num_windows: int
    """Windows in all."""

    @property
    def num_tokens(self) -> int:
        """Tokens predicted by a whole pass: what was asked for in full windows, or all the split has."""
        return self.num_windows * self.context

    def __len__(self) -> int:
        return -(-self.num_windows // self.rows)

    def __iter__(self) -> Iterator[Batch]:
        starts = self._starts()
        for first in range(0, self.num_windows, self.rows):
            yield _inputs_and_targets(self.shards, starts[first : first + self.rows], self.context)

    def _starts(self) -> npt.NDArray[np.int64]:
        """From the first token of the split to the last, evenly spaced; no token is predicted twice."""
        last = self.shards.num_tokens - 1 - self.context
        return np.arange(self.num_windows, dtype=np.int64) * last // max(1, self.num_windows - 1)


def validation_batches(shards: TokenShards, *, context: int, tokens: int, rows: int) -> ValidationBatches:
    """About ``tokens`` predicted tokens (whole windows, rounded down), evenly spaced over the split.

    A split smaller than that is used whole: compare ``num_tokens`` of the result with what was asked.
    """
    available = (shards.num_tokens - 1) // max(1, context)
    if context < 1 or available < 1 or tokens < context or rows < 1:
        raise UserError(
            f"cannot validate on {tokens:,} tokens in {rows} rows of context={context}: each is at least 1, "
            f"one window has to fit, and the {shards.split} split in {shards.folder} has "
            f"{shards.num_tokens:,} tokens"
        )
    return ValidationBatches(shards, context, rows, min(tokens // context, available))


def _inputs_and_targets(shards: TokenShards, starts: npt.NDArray[np.int64], context: int) -> Batch:
    tokens = shards.windows(starts, context + 1)
    return tokens[:, :-1].astype(np.int64), tokens[:, 1:].astype(np.int64)


def _read_images(
    shards: TokenShards, images: npt.NDArray[np.int64], image_tokens: int, start: int, reads_last: bool
) -> Batch:
    targets = shards.windows(images * image_tokens, image_tokens).astype(np.int64)
    if reads_last:
        targets = np.pad(targets, ((0, 0), (0, 1)), constant_values=NO_TARGET)
    inputs = np.empty_like(targets)
    inputs[:, 0], inputs[:, 1:] = start, targets[:, :-1]
    return inputs, targets
