"""Classes of images: an MLP or a ViT on labelled images, cross-entropy and error. Source: arXiv 2406.06248.

A token is an image. A step trains on augmented images (data/augmentation.py); an evaluation says

    val_loss, val_error       of held-out images as they are
    train_loss, train_error   of training images augmented as in training, the quantity that the paper reports: under
                              mixup an error is another class than that of the image with the larger share
    clean_loss, clean_error   of the same training images as they are

    feature_update            how far what the head reads has moved since the first weights, RMS

all of them on fixed images, errors in 0..1 and losses in nats per image; targets of validation and clean images are
their labels alone, those of augmented ones smoothed and mixed as in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.config.science import Science
from structlin.data import corpus_facts
from structlin.data.augmentation import (
    NONE,
    Augmentation,
    Floats,
    Images,
    Ints,
    augmented,
    blocks,
    mixed,
    targets,
    weight_of_step,
)
from structlin.data.labelled import LabelledImages
from structlin.data.permutation import keys, permute
from structlin.models.build import build_model
from structlin.nn.ranks import ALONE, Ranks
from structlin.tasks.protocol import Batch
from structlin.tasks.shared import autocast, means_over, prepared_folder, share

EVALUATION_ROWS = 256
"""Images a validation batch, at most; part of the numerics, since the order of a sum changes its last bits."""
_ORDER_SEED = 42
_TRAIN_SALT = 0x7A1
"""Apart from the rows of training: an evaluation augments by numbers of its own, the same every time."""

Arrays = tuple[Floats, Floats]


class ClassificationLearner:
    """The model and its cross-entropy against probabilities of classes."""

    def __init__(self, science: Science) -> None:
        self.science = science
        self._dtype = torch.float64 if science.model.dtype == "float64" else torch.float32
        self._flat = science.model.name == "mlp"

    def build_model(self) -> nn.Module:
        """The model with its first weights."""
        return build_model(self.science)

    def route(self, model: nn.Module, batch: Batch) -> None:
        """Nothing: the models of images have no routers."""

    def loss(self, model: nn.Module, batch: Batch, assignments: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats per image, in float32 or wider."""
        inputs, probabilities = batch
        return functional.cross_entropy(self._logits(model, inputs).to(probabilities.dtype), probabilities)

    def loss_and_error(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy and the share of images whose likeliest class is not that of the target, (2,)."""
        inputs, probabilities = batch
        logits = self._logits(model, inputs).to(probabilities.dtype)
        wrong = (logits.argmax(1) != probabilities.argmax(1)).double().mean()
        return torch.stack([functional.cross_entropy(logits, probabilities).double(), wrong])

    def random_batch(self, rows: int, generator: torch.Generator) -> Batch:
        """Normal images and targets of one class each."""
        shape, classes = self.science.data.shape, self.science.data.classes
        images = torch.randn((rows, *shape), generator=generator, dtype=self._dtype)
        labels = torch.randint(classes, (rows,), generator=generator)
        return (images.flatten(1) if self._flat else images), functional.one_hot(labels, classes).to(self._dtype)

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        with autocast(self.science, inputs.device):
            logits: Tensor = model(inputs)
        return logits


class ClassificationTask(ClassificationLearner):
    """Augmented images in a fresh order every epoch."""

    readers = 4
    """Threads that read ahead of a GPU: augmentation takes longer than a small model's step (bench/loader.py)."""

    def __init__(self, science: Science, data_root: Path) -> None:
        """UserError where the images are not prepared below ``data_root``."""
        super().__init__(science)
        place = prepared_folder(science, data_root)
        self.train = LabelledImages.open(place, "train")
        self.held_out = LabelledImages.open(place, "validation")
        self.manifest_hash = self.train.manifest_hash
        self.corpus = corpus_facts(place)
        self._first_features: Tensor | None = None
        values = int(np.prod(self.train.shape))
        self._order = pixel_order(values) if self._flat else None
        # Of every value of an image: a row as long as a channel is slow to subtract.
        self._mean, self._std = (
            row if self._order is None else row[self._order]
            for row in (np.resize(self.train.mean, values), np.resize(self.train.std, values))
        )

    def train_batch(self, step: int, ranks: Ranks = ALONE) -> Batch:
        """Images (rows, height, width, channels), or (rows, pixels) for an MLP, and targets (rows, classes)."""
        science, rows = self.science, self.science.rows
        mine = np.arange(rows, dtype=np.int64)[share(rows, ranks)]
        indices = self.train.of_step(step, rows, science.seed)
        found = self._seen(self.train, indices, mine, step * rows, science.seed, science.augment, step)
        return self._tensors(found)

    def validation_loss(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> float:
        """Cross-entropy of the held-out images."""
        return self._measured(model, self._batches(self.held_out, NONE), device, ranks)[0]

    def measures(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> dict[str, float]:
        """Loss and error of held-out images, and of training images as the model sees them and as they are."""
        ways = {"val": (self.held_out, NONE), "clean": (self.train, NONE), "train": (self.train, self.science.augment)}
        if self.science.augment.is_none:
            del ways["train"]
        found: dict[str, float] = {}
        for name, (images, how) in ways.items():
            loss, error = self._measured(model, self._batches(images, how), device, ranks)
            found |= {f"{name}_loss": loss, f"{name}_error": error}
        alike = {"train_loss": found["clean_loss"], "train_error": found["clean_error"]}
        return {**alike, **found, "feature_update": self._feature_update(model, device)}

    @torch.no_grad()
    def _feature_update(self, model: nn.Module, device: torch.device) -> float:
        """RMS over held-out images and features of what the head reads now less what it read at first."""
        inputs, _ = self._tensors(next(iter(self._batches(self.held_out, NONE))))
        if self._first_features is None:
            self._first_features = self._features(self.build_model().to(device).eval(), inputs.to(device))
        moved = self._features(model, inputs.to(device)) - self._first_features
        return float(moved.double().square().mean().sqrt())

    def _features(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """What the head of a model reads, (N, width)."""
        head = next(module for name, module in model.named_modules() if name.split(".")[-1] == "head")
        read: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0].detach()))
        try:
            self._logits(model, inputs)
        finally:
            hook.remove()
        return read[0]

    def _measured(
        self, model: nn.Module, batches: Iterator[Arrays], device: torch.device, ranks: Ranks
    ) -> tuple[float, float]:
        def both(batch: Arrays) -> Tensor:
            inputs, probabilities = self._tensors(batch)
            return self.loss_and_error(model, (inputs.to(device), probabilities.to(device)))

        loss, error = means_over(batches, both, lambda batch: len(batch[0]), ranks)
        return loss, error

    def _batches(self, images: LabelledImages, how: Augmentation) -> Iterator[Arrays]:
        """The fixed images of a split, evenly spaced, augmented as in training or not at all."""
        chosen = images.spread(self.science.evaluation.tokens)
        for number, first in enumerate(range(0, len(chosen), EVALUATION_ROWS)):
            indices = chosen[first : first + EVALUATION_ROWS]
            rows = np.arange(len(indices), dtype=np.int64)
            yield self._seen(images, indices, rows, first, _TRAIN_SALT, how, number)

    def _seen(
        self, images: LabelledImages, indices: Ints, mine: Ints, first: int, seed: int, how: Augmentation, step: int
    ) -> Arrays:
        """What is seen of the rows ``mine`` of a batch of ``indices``, whose first row is ``first`` of the run."""
        inputs, labels = self._augmented(images, indices, mine, first, seed, how)
        if not how.mixup:
            return inputs, labels
        weight = weight_of_step(step, seed, how.mixup)
        if len(mine) == len(indices):
            others, theirs = inputs[::-1], labels[::-1]
        else:
            others, theirs = self._augmented(images, indices, len(indices) - 1 - mine, first, seed, how)
        return mixed(inputs, others, weight), mixed(labels, theirs, weight)

    def _augmented(
        self, images: LabelledImages, indices: Ints, rows: Ints, first: int, seed: int, how: Augmentation
    ) -> Arrays:
        # A block of images goes all the way while it is in the processor's cache.
        inputs = np.empty((len(rows), int(np.prod(images.shape))), np.float32)
        labels = np.empty(len(rows), np.int64)
        for part in blocks(len(rows), images.record):
            pixels, labels[part] = images.read(indices[rows[part]])
            self._standardise(augmented(pixels, first + rows[part], seed, how), inputs[part])
        shape = (-1,) if self._flat else images.shape
        return inputs.reshape(len(rows), *shape), targets(labels, images.classes, how.smoothing)

    def _standardise(self, pixels: Images, found: Floats) -> None:
        """Into ``found`` (n, values): by the training images' mean and deviation, for an MLP in the order it reads."""
        flat = pixels.reshape(len(pixels), -1)
        found[...] = flat if self._order is None else flat.take(self._order, axis=1)
        found -= self._mean
        found /= self._std

    def _tensors(self, batch: Arrays) -> Batch:
        inputs, probabilities = batch
        return torch.from_numpy(inputs).to(self._dtype), torch.from_numpy(probabilities).to(self._dtype)


def pixel_order(features: int) -> Ints:
    """The order in which an MLP reads the values of an image: random, and the same for all runs."""
    index = np.arange(features, dtype=np.int64)
    return permute(index, features, keys(_ORDER_SEED, np.zeros_like(index)))
