"""Which data is this? A recipe: the full identity of token shards or labels, known before they exist.

Identity is content, not place. A local path is read once, where the recipe is made, into ``content`` (a
fingerprint of the files), and ``to_dict`` leaves the path out: a folder may move and its runs keep their
identity, while two files of one name never share one. What the fingerprint cannot see, the manifest's hash
tells at training.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from structlin.data import cifar, images, labels, learned, openwebtext, pictures, sotu, teacher, vocabulary
from structlin.data import documents as files
from structlin.data.manifest import MANIFEST_NAME, Manifest
from structlin.data.tokenizers import TOKENIZERS, has_file, tokenizer_spec
from structlin.errors import UserError, suggest

UNKNOWN = "?"
"""``content`` of files that nobody has named: enough for a plan, whose runs then have no identity yet."""

RECIPE_VERSION = 2
"""Version of cleaning, cutting and splitting; raise it when any of them changes the tokens.

1: every n-th document is validation (openwebtext: by a hash of its text). 2: by a hash of its tokens, so that exact
copies lie on one side. What was prepared or trained by version 1 stays valid: data.version=1 goes on with it.
"""
VERSIONS = range(1, RECIPE_VERSION + 1)


@dataclass(frozen=True)
class SourceSpec:
    """What is fixed by the name of the data."""

    validation_every: int
    """Default share of validation: one document in so many."""

    whole_documents: bool
    """Under char96: keep clean documents only (the paper's rule), rather than map and drop characters."""

    takes_path: bool
    """Whether ``data.path`` means anything."""

    needs_path: bool = False
    """Whether there are no such data without it."""

    task: str = "language"
    """The task that learns from it."""

    version: int = 1
    """Version of its recipe unless asked otherwise: that of published and embedded data does not change."""

    sample_tokens: int = 0
    """Tokens of a sample where all have the same number (images); 0: documents of any length."""

    shape: tuple[int, int, int] = (0, 0, 0)
    """Height, width and channels of its images; a side of 0 is ``data.size``."""

    classes: int = 0
    """Kinds of images that its labels tell apart; 0: as many as its folder has."""


SOURCES = {
    **{
        name: SourceSpec(0, False, True, True, task="classification", version=2, shape=cifar.SHAPE, classes=classes)
        for name, classes in cifar.CLASSES.items()
    },
    "cifar5m": SourceSpec(
        100, False, takes_path=True, needs_path=True, task="pixels", sample_tokens=images.CIFAR_TOKENS
    ),
    "digits": SourceSpec(
        10, False, False, task="pixels", sample_tokens=images.DIGITS_TOKENS, shape=images.DIGITS_SHAPE, classes=10
    ),
    "images": SourceSpec(10, False, takes_path=True, needs_path=True, task="classification", version=2),
    "openwebtext": SourceSpec(openwebtext.VALIDATION_EVERY, whole_documents=True, takes_path=True),
    "sotu": SourceSpec(sotu.VALIDATION_EVERY, whole_documents=False, takes_path=False),
    "teacher": SourceSpec(0, False, takes_path=False, task="regression", sample_tokens=1),
    "text": SourceSpec(validation_every=20, whole_documents=False, takes_path=True, needs_path=True, version=2),
}

LABELS = "labels"
"""The tokenizer of images that are read whole and with their labels: a token is an image."""

_TOKENIZERS = {
    "language": ("char96", "gpt2"),
    "pixels": ("pixels",),
    "regression": ("none",),
    "classification": (LABELS,),
}
"""Tokenizers by task, the default first; images have one for each way to read them, and samples of a teacher none."""


@dataclass(frozen=True)
class DataRecipe:
    """Names data completely; hash ``to_dict()``, never the object, to make it part of an identity."""

    name: str
    """Source: sotu, openwebtext, text (language), cifar5m, digits (pixels), teacher (regression), or digits, cifar10,
    cifar100 and images (classification)."""

    tokenizer: str = ""
    """char96 or gpt2; pixels or labels for images, none for a teacher; empty becomes the first that fits. A file of a
    tokenizer becomes its name: vocab32000-1a2b3c4d; vocab32000 is a size alone, of which runs have no identity yet."""

    tokenizer_path: str = ""
    """The file that ``tokenizer`` was given as. Not part of the identity."""

    path: str = ""
    """Local files (file, folder or glob) of text, of openwebtext or of images. Not part of the identity."""

    column: str = "text"
    """The field of a parquet or JSON row that holds the text."""

    content: str = ""
    """Fingerprint of the local files; computed from ``path`` where it is empty."""

    validation_every: int = 0
    """One document or image in so many is validation, at least 2; 0 becomes the source's own."""

    seed: int = 0
    """Data seed of a teacher: its weights and its samples."""

    width: int = teacher.WIDTH
    """Width of a teacher."""

    depth: int = teacher.DEPTH
    """Hidden layers of a teacher."""

    version: int = 0
    """Version of cleaning, cutting and splitting; 0 becomes the source's own."""

    size: int = 0
    """Side of images in pixels, to which those of a folder are made; 0 becomes the source's own, or 64."""

    channels: int = 0
    """1 for grey images, 3 for colour; 0 becomes the source's own, or 3."""

    classes: int = 0
    """Classes of images; 0 becomes the source's own, or those of the folder."""

    odd: str = ""
    """What is done with grey images among colour ones: refuse (the default), or convert."""

    def __post_init__(self) -> None:
        if self.name not in SOURCES:
            raise UserError(f"data={self.name}: no such data; {suggest(self.name, SOURCES)}")
        if self.version == 0:
            object.__setattr__(self, "version", self.spec.version)
        self._check_tokenizer()
        self._check_teacher()
        self._check_path()
        self._check_images()
        if self.path and not self.content:
            object.__setattr__(self, "content", self.fingerprint())
        if self.validation_every == 0:
            object.__setattr__(self, "validation_every", SOURCES[self.name].validation_every)
        if self.name in cifar.CLASSES and self.validation_every:
            raise UserError(
                f"data.validation_every={self.validation_every}: data={self.name} comes with its own test images, "
                "which are the validation; leave it out"
            )
        if self.validation_every < 2 and not self.is_endless and self.name not in cifar.CLASSES:
            raise UserError(
                f"data.validation_every={self.validation_every}: one document in so many is validation, "
                "so it is at least 2 (0: the source's own)"
            )

    @property
    def spec(self) -> SourceSpec:
        """What is fixed by the name."""
        return SOURCES[self.name]

    @property
    def is_known(self) -> bool:
        """Whether its content and its tokens are known, so that runs on it have an identity."""
        return self.content != UNKNOWN and (self.spec.task != "language" or has_file(self.tokenizer))

    @property
    def is_endless(self) -> bool:
        """Whether samples are made as far as a run asks, so that none is seen twice."""
        return self.name == "teacher"

    @property
    def kind(self) -> str:
        """The kind of task that learns from it, in the way that it is read."""
        return "classification" if self.tokenizer == LABELS else self.spec.task

    @property
    def sample_tokens(self) -> int:
        """Tokens of a sample where all have the same number; 0: documents of any length."""
        return 1 if self.kind == "classification" else self.spec.sample_tokens

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of its labelled images."""
        return (self.size, self.size, self.channels)

    def fingerprint(self) -> str:
        """A name for the content of its files, 16 hexadecimal digits."""
        return pictures.fingerprint(Path(self.path)) if self.name == "images" else files.fingerprint(self.files())

    def files(self) -> list[Path]:
        """The files that ``path`` means, sorted by name; ``UserError`` if there are none."""
        if self.name in cifar.CLASSES:
            return cifar.files(self.name, Path(self.path))
        if self.name != "cifar5m":
            return files.expand(self.path)
        try:
            path = os.path.join(self.path, "*.npz") if os.path.isdir(self.path) else self.path
            return files.expand(path, is_text=False)
        except UserError:
            raise UserError(f"data.path={self.path}: no npz file there; {images.CIFAR_ABSENT}") from None

    def _check_tokenizer(self) -> None:
        valid = tuple(tokenizer for kind in kinds_of(self.name) for tokenizer in _TOKENIZERS[kind])
        if not self.tokenizer:
            object.__setattr__(self, "tokenizer", valid[0])
        if self.spec.task == "language":
            bundled = learned.bundled().get(self.tokenizer)
            if bundled or vocabulary.is_file(self.tokenizer):
                path = bundled or Path(os.path.abspath(os.path.expanduser(self.tokenizer)))
                object.__setattr__(self, "tokenizer", vocabulary.name_of_file(path))
                object.__setattr__(self, "tokenizer_path", str(path))
            if tokenizer_spec(self.tokenizer).name not in TOKENIZERS:
                return
        if self.tokenizer not in valid:
            raise UserError(
                f"data.tokenizer={self.tokenizer}: data={self.name} has tokenizer={' or '.join(valid)}; leave it out"
            )

    def _check_teacher(self) -> None:
        if not self.is_endless and (self.seed, self.width, self.depth) != (0, teacher.WIDTH, teacher.DEPTH):
            raise UserError(f"data={self.name} has no teacher: data.seed, data.width and data.depth mean nothing to it")
        for name, least in (("seed", 0), ("width", 1), ("depth", 1)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name} = {getattr(self, name)} must be at least {least}")

    def _check_images(self) -> None:
        """Sizes of labelled images: those of the source, or those asked for; nothing else has any."""
        asked = {name: getattr(self, name) for name in ("size", "channels", "classes", "odd") if getattr(self, name)}
        if self.kind != "classification":
            if asked:
                raise UserError(
                    f"data={self.name} has no labelled images: data.{next(iter(asked))} means nothing to it"
                )
            return
        own, free = self.spec, self.name == "images"
        size = self.size or pictures.SIZE if free else own.shape[0]
        channels = self.channels or 3 if free else own.shape[2]
        classes = own.classes if not free else self.classes or self._classes_of_folder()
        odd = self.odd or "refuse" if free else "refuse"
        given = {"size": size, "channels": channels, "classes": classes, "odd": odd}
        for name, value in asked.items():
            if value != given[name]:
                raise UserError(f"data.{name}={value}: images of data={self.name} have {given[name]}; leave it out")
        if not 1 <= size <= pictures.MOST_SIZE or channels not in (1, 3):
            raise UserError(
                f"data.size={size} data.channels={channels}: a side is 1 to {pictures.MOST_SIZE} pixels, and channels "
                "are 1 (grey) or 3 (colour)"
            )
        if odd not in ("refuse", "convert"):
            raise UserError(f"data.odd={odd}: grey images among colour ones: refuse or convert")
        if not 2 <= classes <= pictures.MOST_CLASSES:
            raise UserError(
                f"data.classes={classes}: classes are 2 to {pictures.MOST_CLASSES:,}; a plan without data.path=... "
                "says how many, such as data.classes=1000"
            )
        for name, value in given.items():
            object.__setattr__(self, name, value)

    def _classes_of_folder(self) -> int:
        """Classes of the images at ``path``; 0 where none is given."""
        return len(pictures.class_names(Path(self.path))) if self.path else 0

    def _check_path(self) -> None:
        if self.path:
            if not SOURCES[self.name].takes_path:
                raise UserError(f"data={self.name} takes no data.path; data=text data.path=... reads local files")
            object.__setattr__(self, "path", os.path.abspath(os.path.expanduser(self.path)))
        elif self.name == "text" and not self.content:
            raise UserError("data=text needs data.path=... (a text, JSON lines or parquet file, a folder, or a glob)")
        elif self.name == "cifar5m" and not self.content:
            raise UserError(images.CIFAR_ABSENT)
        elif self.name in cifar.CLASSES and not self.content:
            raise UserError(cifar.absent(self.name))
        elif self.name == "images" and not self.content:
            raise UserError("data=images needs data.path=... (a folder with a folder of images for every class)")

    def to_dict(self) -> dict[str, str | int]:
        """The identity, plain values. ``DataRecipe(**recipe.to_dict())`` finds the same prepared data."""
        if self.is_endless:
            return {"name": self.name, **{key: getattr(self, key) for key in ("seed", "width", "depth", "version")}}
        if self.kind == "classification":
            keys = ["name", "tokenizer", "content", "validation_every", "version"]
            own = ["size", "channels", "classes", "odd"] if self.name == "images" else []
            return {key: getattr(self, key) for key in (*keys, *own)}
        if self.spec.task == "pixels":
            return {key: getattr(self, key) for key in ("name", "tokenizer", "content", "validation_every", "version")}
        return {
            "name": self.name,
            "tokenizer": self.tokenizer,
            "column": self.column,
            "content": self.content,
            "validation_every": self.validation_every,
            "version": self.version,
        }

    def command(self, root: Path) -> str:
        """The command line that prepares this recipe."""
        default = SOURCES[self.name].validation_every
        named = shlex.quote(self.tokenizer_path) if self.tokenizer_path else self.tokenizer
        labelled = self.kind == "classification" and self.spec.task == "pixels"
        tokenizer = f" tokenizer={named}" if self.spec.task == "language" or labelled else ""
        words = [f"python -m structlin.data data={self.name}{tokenizer} root={root}"]
        if self.is_endless:
            return " ".join([*words, f"seed={self.seed} width={self.width} depth={self.depth} samples=..."])
        if SOURCES[self.name].takes_path and (self.path or self.content):
            words.append(f"path={shlex.quote(self.path) if self.path else '...'}")
        if self.version != SOURCES[self.name].version:
            words.append(f"version={self.version}")
        if self.column != "text":
            words.append(f"column={self.column}")
        if self.validation_every != default:
            words.append(f"validation_every={self.validation_every}")
        if self.name == "images":
            words.append(f"size={self.size} channels={self.channels} odd={self.odd}")
        return " ".join(words)


def kinds_of(name: str) -> tuple[str, ...]:
    """The kinds of tasks that data of this name can be read for."""
    own = SOURCES[name].task
    return (own, "classification") if own == "pixels" and SOURCES[name].classes else (own,)


def folder(recipe: DataRecipe, root: Path | str) -> Path:
    """Where the shards of a recipe lie, prepared or not, e.g. data/sotu-char96-804ba942."""
    canonical = json.dumps(recipe.to_dict(), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return Path(root) / f"{recipe.name}-{recipe.tokenizer}-{digest}"


def is_prepared(recipe: DataRecipe, root: Path | str, samples: int = 0) -> bool:
    """Whether data of this recipe lies there: a manifest, of this recipe, and every file of its size.

    ``samples``: of a teacher, whether so many training labels are there too.
    """
    if recipe.is_endless:
        return labels.holds(folder(recipe, root), recipe.to_dict(), samples)
    return prepared_manifest(recipe, root) is not None


def prepared_manifest(recipe: DataRecipe, root: Path | str) -> Manifest | None:
    """The manifest of token shards if the recipe is prepared, else None."""
    place = folder(recipe, root)
    if not (place / MANIFEST_NAME).exists():
        return None
    try:
        manifest = Manifest.read(place)
        manifest.check_files(place)
    except UserError:
        return None
    return manifest if manifest.recipe == recipe.to_dict() else None


def train_tokens(recipe: DataRecipe, root: Path | str) -> float | None:
    """Tokens of the training split: from the manifest, or a known constant for what is embedded; None if unknown yet.
    Of labelled images a token is an image.

    Infinite for a teacher, whose samples are made as far as a run asks.
    """
    if recipe.is_endless:
        return math.inf
    manifest = prepared_manifest(recipe, root)
    if manifest is not None:
        train = manifest.splits["train"]
        return train.num_documents if recipe.kind == "classification" else train.num_tokens
    if recipe.name == "sotu" and recipe.to_dict() == DataRecipe("sotu", recipe.tokenizer).to_dict():
        return sotu.TRAIN_TOKENS.get(recipe.tokenizer)
    if recipe == DataRecipe("digits"):
        return images.DIGITS_TRAIN_TOKENS
    if recipe == DataRecipe("digits", LABELS):
        return images.DIGITS_TRAIN_TOKENS // images.DIGITS_TOKENS
    return cifar.TRAIN_IMAGES if recipe.name in cifar.CLASSES and not recipe.is_known else None
