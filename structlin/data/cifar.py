"""What is in CIFAR's archives? Images 32 x 32 x 3 and their labels, of the python and the binary version.

    cifar10    data_batch_1 .. data_batch_5, test_batch     (pickles: data (n, 3072), labels; 10,000 images each)
               data_batch_1.bin .. test_batch.bin           (records of 1 byte label, 3,072 bytes)
    cifar100   train, test                                  (pickles: data, fine_labels)
               train.bin, test.bin                          (records of coarse label, fine label, 3,072 bytes)

``data.path`` is an archive (.tar.gz or .tar) or a folder: that of the files, or one that holds such a folder or an
archive. Pixels lie by channel there and come out by pixel. Pickles are read by an unpickler that knows arrays alone.
Source: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from structlin.errors import UserError, one_line

SHAPE = (32, 32, 3)
CLASSES = {"cifar10": 10, "cifar100": 100}
TRAIN_IMAGES = 50_000
"""Of both, so that a plan needs no files."""

Part = tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""Split, images (n, 3072) by pixel, labels (n,)."""

_PIXELS = 3_072
_STEMS = {
    "cifar10": {**{f"data_batch_{n}": "train" for n in range(1, 6)}, "test_batch": "validation"},
    "cifar100": {"train": "train", "test": "validation"},
}
_ARCHIVES = {
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
}
_TARS = (".tar", ".tar.gz", ".tgz")
# What numpy's arrays are pickled as, by old and new versions of it.
_KNOWN = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *((module, "scalar") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *((module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")),
    ("_codecs", "encode"),
}


def absent(name: str) -> str:
    """What to say where no path is given."""
    return (
        f"data={name} needs data.path=... ({' or '.join(_ARCHIVES[name])}, or the folder of its files, from "
        "https://www.cs.toronto.edu/~kriz/cifar.html); data=digits comes with the installation"
    )


def files(name: str, path: Path) -> list[Path]:
    """The archive, or the files of all parts in their order. UserError where there is none, or a part is missing."""
    if path.is_file():
        if not path.name.endswith(_TARS):
            raise UserError(f"data.path={path}: no .tar.gz; data={name} is {' or '.join(_ARCHIVES[name])}, or a folder")
        return [path]
    if not path.is_dir():
        raise UserError(f"data.path={path}: nothing there; {absent(name)}")
    for folder in (path, *sorted(one for one in path.iterdir() if one.is_dir())):
        for ending in ("", ".bin"):
            found = [folder / f"{stem}{ending}" for stem in _STEMS[name]]
            missing = [file.name for file in found if not file.is_file()]
            if not missing:
                return found
            if len(missing) < len(found):
                raise UserError(f"data.path={path}: {folder} lacks {', '.join(missing)} of data={name}")
    for archive in _ARCHIVES[name]:
        if (path / archive).is_file():
            return [path / archive]
    raise UserError(f"data.path={path}: neither the files of data={name} nor an archive of them; {absent(name)}")


def parts(name: str, found: list[Path]) -> Iterator[Part]:
    """The images of ``files`` part by part, training first. UserError names the file that is broken, and how."""
    if len(found) == 1 and found[0].name.endswith(_TARS):
        contents = _unpacked(name, found[0])
        for file, content in contents.items():
            yield _part(name, file, content, f"{found[0]}: {file}")
        return
    for path in found:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"data.path: cannot read {path}: {error.strerror}") from error
        yield _part(name, path.name, content, str(path))


def _unpacked(name: str, archive: Path) -> dict[str, bytes]:
    """Name -> content of the parts in an archive, in their order."""
    found: dict[str, bytes] = {}
    wanted = {f"{stem}{ending}" for stem in _STEMS[name] for ending in ("", ".bin")}
    if not archive.stat().st_size:
        raise UserError(f"data.path={archive}: the archive is empty (0 bytes); fetch it again")
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                file = Path(member.name).name
                if stream is not None and file in wanted:
                    found[file] = stream.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        # The first line: tarfile goes on with what every kind of compression says.
        said = str(error).split("\n")[0].rstrip(": ") or type(error).__name__
        raise UserError(f"data.path={archive}: broken or no tar archive ({said}); fetch it again") from error
    for ending in ("", ".bin"):
        names = [f"{stem}{ending}" for stem in _STEMS[name]]
        if all(file in found for file in names):
            return {file: found[file] for file in names}
    lacking = [stem for stem in _STEMS[name] if stem not in found and f"{stem}.bin" not in found]
    raise UserError(f"data.path={archive}: no archive of data={name}, or cut short: it lacks {', '.join(lacking)}")


def _part(name: str, file: str, content: bytes, place: str) -> Part:
    """One file of images."""
    try:
        planes, labels = _binary(name, content) if file.endswith(".bin") else _pickled(name, content)
    except ValueError as error:
        raise UserError(f"data.path: {place} is no part of data={name} ({one_line(error)}); fetch it again") from error
    split = _STEMS[name][file.removesuffix(".bin")]
    height, width, channels = SHAPE
    by_pixel = planes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(-1, _PIXELS)
    return split, np.ascontiguousarray(by_pixel), labels


def _binary(name: str, content: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images by channel and labels of records; ValueError for what cannot be such records."""
    before = 1 if name == "cifar10" else 2
    records, rest = divmod(len(content), before + _PIXELS)
    if rest or not records:
        raise ValueError(f"{len(content):,} bytes are no whole records of {before + _PIXELS:,}")
    table = np.frombuffer(content, np.uint8).reshape(records, before + _PIXELS)
    return table[:, before:], _checked(name, table[:, before - 1].astype(np.int64))


def _pickled(name: str, content: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Images by channel and labels of a pickle; ValueError for anything else."""
    if not content:
        raise ValueError("0 bytes")
    try:
        found: Any = _Arrays(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a torn pickle can raise anything
        raise ValueError(f"it cannot be unpickled: {one_line(error)}") from error
    key = "labels" if name == "cifar10" else "fine_labels"
    if not isinstance(found, Mapping):
        raise ValueError("it holds no dictionary")
    values = {one.decode() if isinstance(one, bytes) else one: value for one, value in found.items()}
    if "data" not in values or key not in values:
        raise ValueError(f"it has no 'data' or no '{key}'")
    data, labels = np.asarray(values["data"]), np.asarray(values[key])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != _PIXELS or len(data) != len(labels):
        raise ValueError(f"data is {data.dtype} of shape {data.shape} beside {len(labels)} labels")
    return data, _checked(name, labels.astype(np.int64))


def _checked(name: str, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    if not len(labels) or labels.min() < 0 or labels.max() >= CLASSES[name]:
        raise ValueError(f"labels of {CLASSES[name]} classes are 0 to {CLASSES[name] - 1}")
    return labels


class _Arrays(pickle.Unpickler):
    """Knows numpy's arrays and nothing else: a pickle can call whatever it names."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names; ValueError but for arrays."""
        if (module, name) not in _KNOWN:
            raise ValueError(f"it names {module}.{name}, which no archive of images holds")
        return super().find_class(module, name)
