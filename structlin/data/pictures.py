"""Which images are in a folder? One folder a class, each with its files; they are decoded, made square and small.

    folder/<class>/*.png                          one image in ``validation_every`` is validation, by its content
    folder/train/<class>/*, folder/val/<class>/*  (or validation, test): as it says

An image is scaled so that its shorter side is ``size`` (bilinear, over all pixels that fall into one) and cut in the
middle. Several threads decode (the decoder lets them run side by side), in the order of the files. A grey image among
colour ones is refused, or with ``odd=convert`` made grey in three channels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from structlin.data.documents import fingerprint as content_of
from structlin.errors import UserError, one_line

SIZE = 64
"""Side of the images unless asked otherwise."""
MOST_SIZE = 1_024
MOST_CLASSES = 65_536
"""A label is kept in two bytes."""
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation", "test")}
_SAMPLED = 256
_A_WINDOW = 512
_GREY = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class Entry:
    """An image file."""

    path: Path
    label: int
    split: str
    """train or validation; empty where the folder does not say."""


def class_names(folder: Path) -> list[str]:
    """The classes of a folder, sorted. UserError where it has fewer than two."""
    if not folder.is_dir():
        raise UserError(f"data.path={folder}: no folder; data=images reads one with a folder of images for every class")
    names = _folders(_roots(folder)[0][1])
    if len(names) < 2:
        raise UserError(
            f"data.path={folder}: {len(names)} folders of images; data=images wants one for every class, two at least"
        )
    return names


def entries(folder: Path) -> list[Entry]:
    """All images, sorted by split, class and name. UserError for a class that has none, or that one split lacks."""
    names = class_names(folder)
    found: list[Entry] = []
    for split, root in _roots(folder):
        if (own := _folders(root)) != names:
            odd = sorted(set(own) ^ set(names))
            raise UserError(f"data.path={folder}: class {odd[0]} is not in every split ({len(odd)} such)")
        for label, name in enumerate(names):
            paths = _images(root / name)
            if not paths:
                raise UserError(f"data.path={root / name}: class {name} has no images ({', '.join(ENDINGS)})")
            found += [Entry(path, label, split) for path in paths]
    return found


def fingerprint(folder: Path) -> str:
    """A name for the content of a folder, 16 hexadecimal digits: all names and sizes, and the bytes of 256 files.

    Millions of files are listed in seconds and read in hours; what the rest holds the manifest's hash tells.
    """
    digest = hashlib.sha256()
    found = entries(folder)
    for entry in found:
        name = entry.path.relative_to(folder).as_posix()
        digest.update(f"{name};{entry.path.stat().st_size};".encode())
    some = [found[i * len(found) // _SAMPLED] for i in range(_SAMPLED)] if len(found) > _SAMPLED else found
    digest.update(content_of([entry.path for entry in some]).encode())
    return digest.hexdigest()[:16]


def decoded(
    found: list[Entry], size: int, channels: int, odd: str, workers: int = 0
) -> Iterator[tuple[Entry, npt.NDArray[np.uint8]]]:
    """The images in order, uint8 (size, size, channels); the same whatever the number of threads (0: one a core)."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for first in range(0, len(found), _A_WINDOW):
            window = found[first : first + _A_WINDOW]
            images = pool.map(lambda entry: decode(entry.path, size, channels, odd), window)
            yield from zip(window, images, strict=True)


def decode(path: Path, size: int, channels: int, odd: str) -> npt.NDArray[np.uint8]:
    """One image, uint8 (size, size, channels). UserError for one that is broken, or grey where colour is asked for."""
    from PIL import Image

    if not path.stat().st_size:
        raise UserError(f"data.path: {path} is empty (0 bytes); take it out, or bring it back")
    try:
        with Image.open(path) as picture:
            picture.load()
            is_grey = picture.mode in _GREY
            if is_grey and channels == 3 and odd == "refuse":
                raise UserError(
                    f"data.path: {path} is grey among colour images; take it out, or set data.odd=convert, or "
                    "data.channels=1 where all are grey"
                )
            if not is_grey and channels == 1 and odd == "refuse":
                raise UserError(
                    f"data.path: {path} has colours and data.channels=1; set data.odd=convert, or data.channels=3"
                )
            plain = picture.convert("RGB" if channels == 3 else "L")
            scale = size / min(plain.size)
            width, height = (max(size, round(side * scale)) for side in plain.size)
            small = plain.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - size) // 2, (height - size) // 2
            cut = small.crop((left, top, left + size, top + size))
            return np.asarray(cut, dtype=np.uint8).reshape(size, size, channels)
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"data.path: {path} is no image, or a broken one ({one_line(error)}); take it out") from error


def _roots(folder: Path) -> list[tuple[str, Path]]:
    """Split -> the folder of its classes, training first; one without a name where the folder has no splits."""
    below = _folders(folder)
    found = [
        (split, folder / name)
        for split, names in _SPLITS.items()
        for name in [next((one for one in below if one.lower() in names), "")]
        if name
    ]
    whole = len(found) == len(_SPLITS) and all(_folders(root) for _, root in found)
    return found if whole else [("", folder)]


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(one.name for one in os.scandir(folder) if one.is_dir() and not one.name.startswith("."))
    except OSError as error:
        raise UserError(f"data.path={folder}: cannot be listed: {error.strerror}") from error


def _images(folder: Path) -> list[Path]:
    """The images of a class, in folders below it too."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in names if name.lower().endswith(ENDINGS) and not name.startswith(".")]
    return sorted(found)
