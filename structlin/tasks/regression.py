"""Regression on a teacher: a residual MLP on fresh samples, mean squared error. Source: arXiv 2410.02117."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.config.science import Science
from structlin.data import Labels
from structlin.data.teacher import INPUT_FEATURES
from structlin.errors import UserError
from structlin.kernels.steps.gradients import WholeLoss
from structlin.models.build import build_model
from structlin.nn.ranks import ALONE, Ranks
from structlin.tasks.protocol import Batch
from structlin.tasks.shared import autocast, mean_over, prepared_folder, share

EVALUATION_ROWS = 4_096
"""Samples a validation batch, at most; part of the numerics, since the order of a sum changes its last bits."""


class RegressionLearner:
    """The student and its squared error; labels have variance 1, so knowing nothing costs 1."""

    def __init__(self, science: Science) -> None:
        self.science = science
        self._dtype = torch.float64 if science.model.dtype == "float64" else torch.float32

    def build_model(self) -> nn.Module:
        """The student with its first weights."""
        return build_model(self.science)

    def route(self, model: nn.Module, batch: Batch) -> None:
        """Nothing: the student has no routers."""

    def loss(self, model: nn.Module, batch: Batch, assignments: Tensor | None = None) -> Tensor:
        """Mean squared error, in float32 or wider."""
        inputs, labels = batch
        if isinstance(model, WholeLoss):
            return cast(Tensor, model(inputs, labels))
        with autocast(self.science, inputs.device):
            predictions = model(inputs)
        return functional.mse_loss(predictions.to(labels.dtype), labels)

    def random_batch(self, rows: int, generator: torch.Generator) -> Batch:
        """Normal inputs (rows, 8) and labels (rows, 1)."""
        inputs = torch.randn((rows, INPUT_FEATURES), generator=generator, dtype=self._dtype)
        return inputs, torch.randn((rows, 1), generator=generator, dtype=self._dtype)


class RegressionTask(RegressionLearner):
    """A step takes the next samples of the training stream: none is seen twice."""

    def __init__(self, science: Science, data_root: Path) -> None:
        """UserError where the labels are not prepared below ``data_root``, or too few of them for validation."""
        super().__init__(science)
        place = prepared_folder(science, data_root)
        self.train = Labels.open(place, "train")
        self.held_out = Labels.open(place, "validation")
        self.manifest_hash = self.train.manifest_hash
        if science.evaluation.tokens > len(self.held_out):
            raise UserError(
                f"evaluation.tokens = {science.evaluation.tokens:,} samples, but data=teacher holds out "
                f"{len(self.held_out):,}; ask for at most these"
            )

    def train_batch(self, step: int, ranks: Ranks = ALONE) -> Batch:
        """Inputs (rows, 8) and labels (rows, 1): samples step * rows and after, whatever the seed."""
        rows = share(self.science.rows, ranks)
        return self._samples(self.train, step * self.science.rows + rows.start, rows.stop - rows.start)

    def validation_loss(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> float:
        """Mean squared error over the first ``evaluation.tokens`` samples of the validation stream."""
        samples = range(self.science.evaluation.tokens)
        batches = [samples[first : first + EVALUATION_ROWS] for first in range(0, len(samples), EVALUATION_ROWS)]

        def loss(batch: range) -> Tensor:
            inputs, labels = self._samples(self.held_out, batch.start, len(batch))
            return self.loss(model, (inputs.to(device), labels.to(device)))

        return mean_over(batches, loss, len, ranks)

    def _samples(self, labels: Labels, first: int, count: int) -> Batch:
        inputs, targets = labels.samples(first, count)
        return torch.from_numpy(inputs).to(self._dtype), torch.from_numpy(targets).to(self._dtype)
