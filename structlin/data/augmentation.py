"""How does an image differ each time it is seen? Crops, flips, mixup and smoothing as pure functions of (seed, row).

Row ``step * rows + j`` of a run has random numbers of its own (a hash of the seed and the row), so what a step trains
on is the same on any number of ranks and reading threads, and after an interruption.

    crop      resized: a box of 8% to 100% of the area and a ratio of 3:4 to 4:3, scaled back (bilinear);
              shifted: moved by up to an eighth of the side, zeros outside; none
    flip      left and right exchanged in half of the rows
    mixup     the images of a step are mixed with those in opposite order: w x_j + (1 - w) x_(rows-1-j), w of the step
              from Beta(mixup, mixup), and their labels alike [arXiv 1710.09412; one w a step: code of arXiv 2406.06248]
    smoothing a share of every target is spread evenly over the classes
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from structlin.data.permutation import UInt64, keys, mix
from structlin.errors import UserError, suggest

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Shares = npt.NDArray[np.uint16]

CROPS = ("none", "resized", "shifted")
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
_SHIFT = 8
"""A shifted image moves by at most its side over so much."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SALT = 0x5EED_A06
"""Apart from the order of images, which the same seed gives."""
_BLOCK_BYTES = 1 << 18
"""Of a block's images; what is made of them meanwhile takes up to four times as much, of a core's megabyte or two."""


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a training step."""

    crop: str = "none"
    """none, resized or shifted."""
    flip: bool = False
    """Whether half of the rows are mirrored."""
    mixup: float = 0.0
    """alpha of the Beta that mixes pairs of images; 0 mixes none."""
    smoothing: float = 0.0
    """Share of a target that is spread over all classes."""

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise UserError(f"augment.crop = {self.crop} is unknown; {suggest(self.crop, CROPS)}")
        if not 0 <= self.mixup <= 1000:
            raise UserError(f"augment.mixup = {self.mixup} must lie in [0, 1000]; 0 mixes no images")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"augment.smoothing = {self.smoothing} must lie in [0, 1)")

    @property
    def is_none(self) -> bool:
        """Whether images and targets are left as they are."""
        return (self.crop, self.flip, self.mixup, self.smoothing) == ("none", False, 0.0, 0.0)


NONE = Augmentation()


def augmented(images: Images, rows: Ints, seed: int, how: Augmentation) -> Images:
    """Images (n, height, width, channels) as the rows (n,) of a run see them: cropped and flipped.

    Fastest on as many as a processor's cache holds (``blocks``).
    """
    key = keys(seed ^ _SALT, rows)
    mirrored = _uniform(key, 0) < 0.5 if how.flip else np.zeros(len(images), bool)
    if how.crop == "resized":
        return _resized(images, key, mirrored)
    if how.crop == "shifted":
        return _shifted(images, key, mirrored)
    if how.flip:
        images = images.copy()
        images[mirrored] = images[mirrored][:, :, ::-1]
    return images


def blocks(rows: int, row_bytes: int) -> Iterator[slice]:
    """Parts of rows that a processor's cache holds: arrays that do not are made at the speed of memory."""
    size = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for first in range(0, rows, size):
        yield slice(first, min(first + size, rows))


def targets(labels: Ints, classes: int, smoothing: float = 0.0) -> Floats:
    """Labels (n,) as probabilities (n, classes)."""
    spread = np.full((len(labels), classes), smoothing / classes, np.float32)
    spread[np.arange(len(labels)), labels] += np.float32(1 - smoothing)
    return spread


def mixed(first: Floats, second: Floats, weight: float) -> Floats:
    """weight * first + (1 - weight) * second, of images or targets."""
    share = np.float32(weight)
    found = np.empty_like(first)
    for part in blocks(len(first), first[:1].nbytes):
        np.multiply(first[part], share, out=found[part])
        found[part] += second[part] * (np.float32(1) - share)
    return found


def weight_of_step(step: int, seed: int, alpha: float) -> float:
    """w of a step, from Beta(alpha, alpha): by Joehnk's method (1964) for alpha up to 1, else by Cheng's (1978, BB)."""
    key = keys(seed ^ _SALT, np.array([step], dtype=np.int64) + (1 << 48))
    for number in range(0, 2_000, 2):
        u, v = (float(_uniform(key, number + more)[0]) for more in (1, 2))
        if alpha <= 1:
            x, y = u ** (1 / alpha), v ** (1 / alpha)
            if 0 < x + y <= 1:
                return float(x / (x + y))
            continue
        rate = math.sqrt((2 * alpha - 2) / (2 * alpha * alpha - 2 * alpha))
        found = rate * math.log(max(u, 1e-300) / (1 - u))
        w = alpha * math.exp(found)
        log_accept = 2 * alpha * math.log(2 * alpha / (alpha + w)) + (alpha + 1 / rate) * found - 1.3862944
        if log_accept >= math.log(max(u * u * v, 1e-300)):
            return float(w / (alpha + w))
    return 0.5


def _uniform(key: UInt64, number: int) -> npt.NDArray[np.float64]:
    """The number-th random number of every key, in [0, 1)."""
    bits = mix(key + np.array([number + 1], np.uint64) * _GOLDEN)
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _shifted(images: Images, key: UInt64, mirrored: Bools) -> Images:
    """Every image moved by whole pixels, zeros where nothing comes from."""
    _, height, width, _ = images.shape
    places = []
    for axis, side in enumerate((height, width)):
        most = max(1, side // _SHIFT)
        by = np.floor(_uniform(key, 1 + axis) * (2 * most + 1)).astype(np.int64) - most
        place = np.arange(side)[None, :] + by[:, None]
        # Outside lies one line of zeros, after the others.
        places.append(np.where((place >= 0) & (place < side), place, side))
    moved = _transposed(_lines(_with_zeros(images), places[0]))
    return _transposed(_lines(_with_zeros(moved), _mirrored(places[1], mirrored)))


def _resized(images: Images, key: UInt64, mirrored: Bools) -> Images:
    """A box of whole pixels of every image, scaled to the whole."""
    _, height, width, _ = images.shape
    area = height * width * (_AREA[0] + (_AREA[1] - _AREA[0]) * _uniform(key, 1))
    low, high = (math.log(ratio) for ratio in _RATIO)
    ratio = np.exp(low + (high - low) * _uniform(key, 2))
    # What does not fit is cut to the image; whole pixels, so that the last bits of a root change nothing.
    box_width = np.rint(np.sqrt(area * ratio)).clip(1, width).astype(np.int64)
    box_height = np.rint(np.sqrt(area / ratio)).clip(1, height).astype(np.int64)
    top = np.floor(_uniform(key, 3) * (height - box_height + 1)).astype(np.int64)
    left = np.floor(_uniform(key, 4) * (width - box_width + 1)).astype(np.int64)
    # One axis after the other, each as copies of whole lines, rounded to whole grey values: the same everywhere.
    by_column = _transposed(_between(images, *_places(top, box_height, height)))
    first, second, weight = _places(left, box_width, width)
    turned = (_mirrored(first, mirrored), _mirrored(second, mirrored), _mirrored(weight, mirrored))
    return _transposed(_between(by_column, *turned))


def _between(images: Images, low: Ints, high: Ints, weight: Shares) -> Images:
    """What lies between lines ``low`` and ``high`` (n, side) of every image (n, lines, ...): (n, side, ...)."""
    share = weight[:, :, None, None]
    # At most 255 * 256 and a half: two bytes hold it.
    found = _lines(images, low).astype(np.uint16)
    found *= np.uint16(256) - share
    second = _lines(images, high).astype(np.uint16)
    second *= share
    found += second
    found += np.uint16(128)
    found >>= np.uint16(8)
    return found.astype(np.uint8)


def _lines(images: Images, places: Ints) -> Images:
    """Lines ``places`` (n, side) of every image (n, lines, ...): (n, side, ...)."""
    n, lines, *line = images.shape
    flat = places + lines * np.arange(n)[:, None]
    found: Images = images.reshape(n * lines, -1).take(flat.ravel(), axis=0).reshape(n, places.shape[1], *line)
    return found


def _with_zeros(images: Images) -> Images:
    """Images (n, lines, ...) with a line of zeros after their own."""
    return np.concatenate([images, np.zeros_like(images[:, :1])], axis=1)


def _transposed(images: Images) -> Images:
    """(n, height, width, channels) by columns: a channel at a time, since copies of three bytes each are slow."""
    n, height, width, channels = images.shape
    found = np.empty((n, width, height, channels), np.uint8)
    for channel in range(channels):
        found[..., channel] = images[..., channel].transpose(0, 2, 1)
    return found


def _mirrored(places: npt.NDArray[Any], mirrored: Bools) -> npt.NDArray[Any]:
    """Places (n, side) in the opposite order where an image is mirrored."""
    return np.where(mirrored[:, None], places[:, ::-1], places)


def _places(first: Ints, length: Ints, side: int) -> tuple[Ints, Ints, Shares]:
    """Between which pixels of a box the ``side`` new ones lie, and the second's weight in 256ths: each (n, side)."""
    place = (np.arange(side)[None, :] + 0.5) * (length[:, None] / side) - 0.5
    place = place.clip(0, length[:, None] - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, length[:, None] - 1)
    return first[:, None] + low, first[:, None] + high, np.rint(256 * (place - low)).astype(np.uint16)
