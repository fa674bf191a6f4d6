"""How are a teacher's labels kept? Computed once, memory-mapped by all runs, extended when a longer run asks.

    <folder>/train.f32        labels 0, 1, 2, ... of the training stream, little-endian float32, whole blocks
    <folder>/validation.f32   those of the validation stream
    <folder>/manifest.json    {"format", "format_version", "recipe", "mean", "std", "inputs",
                               "blocks": {split: [sha256]}, "provenance"}, written last

A file only grows: block k has the same bytes however many follow. So the identity (``hash``: the recipe, the
standardisation, the first block of each file) does not depend on how many labels are there. The inputs are not
stored; the hash of the first of them tells a machine on which they would come out otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from structlin.data.manifest import MANIFEST_NAME, SPLITS
from structlin.data.teacher import Floats, Teacher, inputs
from structlin.errors import UserError, one_line
from structlin.host.files import write_json

BLOCK = 1 << 16
"""Labels are made in blocks of so many."""

VALIDATION_BLOCKS = 1

_FORMAT = "structlin-labels"
_FORMAT_VERSION = 1
_CHECKED_INPUTS = 1_024
_BYTES = 4


@dataclass(frozen=True)
class LabelManifest:
    """The record of one folder of labels."""

    recipe: dict[str, Any]
    """Identity of the data (``DataRecipe.to_dict``)."""
    mean: float
    """Taken off the teacher's outputs."""
    std: float
    """The rest is divided by it."""
    inputs: str
    """SHA-256 of the first training inputs."""
    blocks: dict[str, list[str]]
    """SHA-256 of every block of labels, by split."""
    provenance: dict[str, Any]
    """When it was made; not hashed."""

    @property
    def hash(self) -> str:
        """Identity of the labels, however many there are: 64 hexadecimal digits."""
        content = asdict(self)
        del content["provenance"]
        content["blocks"] = {split: self.blocks[split][:1] for split in SPLITS}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def num_labels(self, split: str) -> int:
        """Labels there are of a split."""
        return BLOCK * len(self.blocks[split])

    def write(self, folder: Path) -> None:
        """Write manifest.json."""
        write_json(folder / MANIFEST_NAME, {"format": _FORMAT, "format_version": _FORMAT_VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> LabelManifest:
        """The manifest of a folder; ``UserError`` if it is missing, torn, foreign or its files are cut short."""
        path = folder / MANIFEST_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if (values.pop("format"), values.pop("format_version")) != (_FORMAT, _FORMAT_VERSION):
                raise ValueError("it is no manifest of labels of this version")
            manifest = cls(**values)
            for split in SPLITS:
                if (folder / _file(split)).stat().st_size < _BYTES * manifest.num_labels(split):
                    raise ValueError(f"{_file(split)} is cut short")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be used: {one_line(error)}; prepare the labels again") from error
        return manifest

    def check_contents(self, folder: Path) -> None:
        """``UserError`` unless every block has the bytes it was made with (reads all of them)."""
        for split in SPLITS:
            labels = np.memmap(folder / _file(split), dtype="<f4", mode="r")
            for number, expected in enumerate(self.blocks[split]):
                if _digest(labels[number * BLOCK : (number + 1) * BLOCK]) != expected:
                    raise UserError(
                        f"{folder / _file(split)} has changed since it was made: remove {folder} and prepare again"
                    )


@dataclass(frozen=True, eq=False)
class Labels:
    """The samples of one split: inputs made when asked for, labels read from a memory map."""

    folder: Path
    split: str
    seed: int
    """The data seed."""
    manifest_hash: str
    labels: Floats
    """(num_labels,), memory-mapped."""

    @classmethod
    def open(cls, folder: Path, split: str) -> Labels:
        """The split of a prepared folder. ``UserError`` where it is broken, or inputs come out otherwise here."""
        manifest = LabelManifest.read(folder)
        seed = int(manifest.recipe["seed"])
        if _digest(inputs(seed, "train", 0, _CHECKED_INPUTS)) != manifest.inputs:
            raise UserError(
                f"{folder}: the inputs of these labels come out otherwise on this machine; prepare them here"
            )
        mapped = np.memmap(folder / _file(split), dtype="<f4", mode="r", shape=(manifest.num_labels(split),))
        return cls(folder, split, seed, manifest.hash, np.asarray(mapped))

    def __len__(self) -> int:
        return len(self.labels)

    def samples(self, first: int, count: int) -> tuple[Floats, Floats]:
        """Samples first..first+count-1: inputs (count, 8) and labels (count, 1). ``UserError`` beyond the last."""
        if first + count > len(self):
            raise UserError(
                f"{self.folder} holds {len(self):,} {self.split} labels, but sample {first + count - 1:,} is asked "
                f"for; make more: python -m structlin.data data=teacher seed={self.seed} samples=... "
                f"root={self.folder.parent}"
            )
        return inputs(self.seed, self.split, first, count), np.array(self.labels[first : first + count, None])


def extend(
    folder: Path, recipe: dict[str, Any], samples: int, tell: Callable[[str], None], *, width: int, depth: int
) -> None:
    """Make the labels of a recipe up to at least so many training samples; those that are there stay as they are.

    The caller holds the lock of the folder. ``UserError`` if the disk refuses.
    """
    teacher = Teacher(int(recipe["seed"]), width, depth)
    try:
        folder.mkdir(exist_ok=True)
        manifest = _existing(folder, recipe) or _begun(teacher, recipe)
        for split, count in (("validation", VALIDATION_BLOCKS), ("train", max(1, -(-samples // BLOCK)))):
            _append(folder, teacher, manifest, split, count, tell)
        manifest.write(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def holds(folder: Path, recipe: dict[str, Any], samples: int) -> bool:
    """Whether the labels of a recipe are there, for at least so many training samples."""
    manifest = _existing(folder, recipe)
    return manifest is not None and manifest.num_labels("train") >= max(1, samples)


def _existing(folder: Path, recipe: dict[str, Any]) -> LabelManifest | None:
    with contextlib.suppress(UserError):
        manifest = LabelManifest.read(folder)
        return manifest if manifest.recipe == recipe else None
    return None


def _begun(teacher: Teacher, recipe: dict[str, Any]) -> LabelManifest:
    mean, std = teacher.standard()
    created = {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "numpy": np.__version__}
    first = _digest(inputs(teacher.seed, "train", 0, _CHECKED_INPUTS))
    return LabelManifest(recipe, mean, std, first, {split: [] for split in SPLITS}, created)


def _append(
    folder: Path, teacher: Teacher, manifest: LabelManifest, split: str, blocks: int, tell: Callable[[str], None]
) -> None:
    """Bring a split to so many blocks; what a killed preparation left behind the last whole one is overwritten."""
    done = manifest.blocks[split]
    path = folder / _file(split)
    path.touch()
    with path.open("r+b") as stream:
        stream.truncate(_BYTES * BLOCK * len(done))
        stream.seek(0, os.SEEK_END)
        began, before = time.monotonic(), len(done)
        while len(done) < blocks:
            raw = teacher.outputs(split, BLOCK * len(done), BLOCK).astype(np.float64)
            labels = ((raw - manifest.mean) / manifest.std).astype("<f4")
            stream.write(labels.tobytes())
            done.append(_digest(labels))
            pace = (time.monotonic() - began) / (len(done) - before)
            tell(
                f"{BLOCK * len(done):,} of {BLOCK * blocks:,} {split} labels, {pace * 1e6 / BLOCK:.0f} s a million, "
                f"{pace * (blocks - len(done)):.0f} s to go"
            )
        stream.flush()
        os.fsync(stream.fileno())


def _file(split: str) -> str:
    return f"{split}.f32"


def _digest(array: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").tobytes()).hexdigest()
