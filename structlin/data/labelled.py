"""How are labelled images kept and read? As shards of records: the bytes of an image by pixel, then its label.

    record    height x width x channels bytes, and two of the label, little-endian
    manifest  beside what every folder of shards has: shape, classes, mean and std of the training images by channel

The shards are mapped into memory, so that what is decoded once is read at the speed of a disk, and a batch is a pure
function of (seed, step).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from structlin.data import cifar, images, pictures
from structlin.data.manifest import SPLITS, Manifest, SplitEntry
from structlin.data.permutation import keys, permute
from structlin.data.recipe import DataRecipe
from structlin.data.shards import TokenShards
from structlin.data.split import ByContent
from structlin.data.writer import SplitWriter
from structlin.errors import UserError

Images = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

LABEL_BYTES = 2
_A_READ = 4_096
_TOLD = 1_000


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """The images of one split, and their labels."""

    shards: TokenShards
    shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: int
    mean: npt.NDArray[np.float32]
    """Of the training images by channel, 0..255."""
    std: npt.NDArray[np.float32]

    @classmethod
    def open(cls, folder: Path, split: str) -> LabelledImages:
        """The split of a prepared folder. UserError where it is broken or holds no labelled images."""
        shards, facts = TokenShards.open(folder, split), Manifest.read(folder).cleaning
        try:
            height, width, channels = (int(side) for side in facts["shape"])
            mean, std = (np.array(facts[name], np.float32) for name in ("mean", "std"))
            found = cls(shards, (height, width, channels), int(facts["classes"]), mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder} holds no labelled images; prepare it again") from error
        if shards.num_tokens % found.record:
            raise UserError(f"{folder}: its shards hold no whole images; prepare it again")
        return found

    @property
    def manifest_hash(self) -> str:
        """Identity of the images of the whole folder."""
        return self.shards.manifest_hash

    @property
    def record(self) -> int:
        """Bytes of an image and its label."""
        return int(np.prod(self.shape)) + LABEL_BYTES

    def __len__(self) -> int:
        return self.shards.num_tokens // self.record

    def read(self, indices: Ints) -> tuple[Images, Ints]:
        """Images (n, height, width, channels), 0..255, and labels (n,)."""
        table = self.shards.windows(indices * self.record, self.record)
        pixels, low, high = table[:, :-LABEL_BYTES], table[:, -2].astype(np.int64), table[:, -1].astype(np.int64)
        return np.ascontiguousarray(pixels).reshape(len(indices), *self.shape), low + 256 * high

    def of_step(self, step: int, rows: int, seed: int) -> Ints:
        """The images of a step, (rows,): the next of their epoch, each epoch in an order of its own."""
        epoch, index = np.divmod(step * rows + np.arange(rows, dtype=np.int64), len(self))
        return permute(index, len(self), keys(seed, epoch))

    def spread(self, count: int) -> Ints:
        """So many images, evenly spaced over the split; all where it has no more."""
        count = min(count, len(self))
        return np.arange(count, dtype=np.int64) * len(self) // count


def write(recipe: DataRecipe, folder: Path, tell: Callable[[str], None]) -> Manifest:
    """The shards of a recipe's images. UserError for what is wrong with them, each in one line."""
    writers = {split: SplitWriter(folder, split, "uint8") for split in SPLITS}
    by_content = ByContent(recipe.validation_every, writers)
    counts = np.zeros((2, recipe.classes), np.int64)
    total = 0
    try:
        for split, table in _records(recipe):
            for record in table:
                if split:
                    writers[split].write_document(record)
                else:
                    by_content.write(record)
            labels = table[:, -2].astype(np.int64) + 256 * table[:, -1].astype(np.int64)
            counts[int(split == "validation")] += np.bincount(labels, minlength=recipe.classes)
            total += len(table)
            tell(f"{total:,} images written")
        by_content.close()
        splits = {split: writer.close() for split, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    _check(recipe, counts, splits)
    facts = {
        "documents_read": total,
        "documents_kept": total,
        "dropped_share": 0.0,
        "shape": list(recipe.shape),
        "classes": recipe.classes,
    }
    provenance = {"path": recipe.path, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    manifest = Manifest(recipe.to_dict(), 256, "uint8", splits, {**facts, "mean": [0.0], "std": [1.0]}, provenance)
    # Written first without: the training images are read as any reader does.
    manifest.write(folder)
    manifest.cleaning.update(_moments(LabelledImages.open(folder, "train")))
    return manifest


def _records(recipe: DataRecipe) -> Iterator[tuple[str, Images]]:
    """Split (empty: by content) and records (n, bytes) of the source, in its order."""
    if recipe.name == "digits":
        pixels, labels = images.labelled_digits()
        every = recipe.validation_every
        held_out = np.arange(len(labels)) % every == every // 2
        for split, chosen in (("train", ~held_out), ("validation", held_out)):
            yield split, _joined(pixels[chosen], labels[chosen])
    elif recipe.name in cifar.CLASSES:
        for split, pixels, labels in cifar.parts(recipe.name, recipe.files()):
            yield split, _joined(pixels, labels)
    else:
        found = pictures.entries(Path(recipe.path))
        window: list[tuple[pictures.Entry, Images]] = []
        for one in pictures.decoded(found, recipe.size, recipe.channels, recipe.odd):
            if window and (len(window) == _TOLD or one[0].split != window[-1][0].split):
                yield window[0][0].split, _of_window(window)
                window = []
            window.append(one)
        yield window[0][0].split, _of_window(window)


def _of_window(window: list[tuple[pictures.Entry, Images]]) -> Images:
    pixels = np.stack([image.reshape(-1) for _, image in window])
    return _joined(pixels, np.array([entry.label for entry, _ in window], np.int64))


def _joined(pixels: Images, labels: Ints) -> Images:
    """Records (n, bytes) of images (n, bytes) and labels (n,)."""
    ends = np.stack([labels % 256, labels // 256], axis=1).astype(np.uint8)
    return np.concatenate([pixels, ends], axis=1)


def _check(recipe: DataRecipe, counts: Ints, splits: dict[str, SplitEntry]) -> None:
    """UserError for a class without training images, or a split without any."""
    lacking = np.flatnonzero(counts[0] == 0)
    if len(lacking):
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(f"data={recipe.name}: class {lacking[0]}{more} of {recipe.classes} has no training image")
    for split, entry in splits.items():
        if not entry.num_tokens:
            raise UserError(
                f"data={recipe.name} has {int(counts.sum())} images and none is {split}; give more, or another "
                "data.validation_every"
            )


def _moments(train: LabelledImages) -> dict[str, Any]:
    """Mean and standard deviation by channel, of sums of whole numbers: the same on every machine."""
    channels = train.shape[2]
    total, squares = [0] * channels, [0] * channels
    for first in range(0, len(train), _A_READ):
        indices = np.arange(first, min(first + _A_READ, len(train)), dtype=np.int64)
        pixels = train.read(indices)[0].reshape(-1, channels).astype(np.int64)
        for channel, (one, square) in enumerate(zip(pixels.sum(0), (pixels**2).sum(0), strict=True)):
            total[channel] += int(one)
            squares[channel] += int(square)
    number = len(train) * train.shape[0] * train.shape[1]
    mean = [one / number for one in total]
    # Pixels that never change are left as they are.
    std = [max(square / number - m * m, 1.0) ** 0.5 for square, m in zip(squares, mean, strict=True)]
    return {"mean": mean, "std": std}
