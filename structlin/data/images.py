"""Which images are there, and how do they become tokens? One token a channel of a pixel, 0..255.

    cifar5m   CIFAR-5M's npz files (X: uint8 images 32 x 32 x 3), averaged over 4 x 4 pixels to 8 x 8 x 3: 192 tokens,
              row by row, the channels of a pixel together [arXiv 2410.02117: 8 x 8 x 3; how is not said]
    digits    scikit-learn's 1,797 digits, 8 x 8 gray: 64 tokens; their values 0..16 are spread over 0..255

The digits' package ships one compressed table, which is read as a file: importing it would take a second.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from structlin.errors import UserError, one_line

Images = npt.NDArray[np.uint8]
"""(n, tokens of an image)."""

DIGITS_TOKENS = 64
DIGITS_SHAPE = (8, 8, 1)
DIGITS_TRAIN_TOKENS = 1_617 * DIGITS_TOKENS
"""Size of the training split under the default recipe, so that a bill needs no prepared data."""

CIFAR_TOKENS = 192
CIFAR_ABSENT = (
    "data=cifar5m needs data.path=... (the folder or a glob of its cifar5m_part*.npz files, from "
    "https://github.com/preetum/cifar5m); data=digits comes with the installation"
)

_SIDE, _SMALL_SIDE, _CHANNELS = 32, 8, 3
_IMAGES_A_READ = 10_000


def digits() -> Iterator[Images]:
    """The digits in their order; ``UserError`` if scikit-learn is not installed."""
    yield labelled_digits()[0]


def labelled_digits() -> tuple[Images, npt.NDArray[np.int64]]:
    """The digits in their order and which they are; ``UserError`` if scikit-learn is not installed."""
    package = importlib.util.find_spec("sklearn")  # finds the folder, imports nothing
    if package is None or not package.submodule_search_locations:
        raise UserError("data=digits needs the package scikit-learn: `pip install scikit-learn`")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt") as stream:
            table = np.loadtxt(stream, delimiter=",")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {one_line(error)}; reinstall scikit-learn") from error
    return (table[:, :DIGITS_TOKENS] * 255 / 16).round().astype(np.uint8), table[:, DIGITS_TOKENS].astype(np.int64)


def cifar(files: list[Path]) -> Iterator[Images]:
    """The images of npz files in order, made small; memory holds some thousands of them, not a file."""
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive, archive.open("X.npy") as stream:
                yield from _small_images(stream, file)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"data.path: {file} is no npz file with an array X of uint8 images 32 x 32 x 3 ({one_line(error)})"
            ) from error


def _small_images(stream: IO[bytes], file: Path) -> Iterator[Images]:
    count = _read_header(stream)
    size = _SIDE * _SIDE * _CHANNELS
    for first in range(0, count, _IMAGES_A_READ):
        images = min(_IMAGES_A_READ, count - first)
        data = _read_exactly(stream, images * size)
        yield shrink(np.frombuffer(data, np.uint8).reshape(images, _SIDE, _SIDE, _CHANNELS))


def shrink(images: Images) -> Images:
    """Images (n, 32, 32, 3) averaged over squares of 4 x 4 pixels and rounded: (n, 192)."""
    square = _SIDE // _SMALL_SIDE
    squares = images.reshape(len(images), _SMALL_SIDE, square, _SMALL_SIDE, square, _CHANNELS)
    means = squares.mean(axis=(2, 4), dtype=np.float32)
    return np.asarray(means.round().astype(np.uint8).reshape(len(images), CIFAR_TOKENS))


def _read_header(stream: IO[bytes]) -> int:
    """The number of images of an array in numpy's own format; ValueError unless it is of the right kind."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"numpy format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if shape[1:] != (_SIDE, _SIDE, _CHANNELS) or dtype != np.uint8 or fortran:
        raise ValueError(f"X is {dtype} of shape {shape}")
    return int(shape[0])


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    buffer = io.BytesIO()
    while buffer.tell() < size:
        part = stream.read(size - buffer.tell())
        if not part:
            raise EOFError("it is cut short")
        buffer.write(part)
    return buffer.getvalue()
