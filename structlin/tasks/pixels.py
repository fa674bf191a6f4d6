"""Next-pixel prediction: GPT-2 on whole images after a start token. Source: arXiv 2410.02117, CIFAR-5M."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from structlin.config.science import Science
from structlin.data import TokenShards, image_batch, validation_images, vocab_size
from structlin.nn.ranks import ALONE, Ranks
from structlin.tasks.next_token import EVALUATION_ROWS, NextTokenLearner
from structlin.tasks.protocol import Batch
from structlin.tasks.shared import prepared_folder, share


class PixelsTask(NextTokenLearner):
    """Images in a fresh order every epoch; the loss is over all of their pixels."""

    def __init__(self, science: Science, data_root: Path) -> None:
        """UserError where the images are not prepared below ``data_root`` or their size is not the context."""
        super().__init__(science)
        place = prepared_folder(science, data_root)
        self.train = TokenShards.open(place, "train")
        self.held_out = TokenShards.open(place, "validation")
        self.manifest_hash = self.train.manifest_hash
        self.start = vocab_size(science.data.tokenizer)
        self.image_tokens = science.data.sample_tokens
        self.reads_last = science.model.context > self.image_tokens

    def train_batch(self, step: int, ranks: Ranks = ALONE) -> Batch:
        """Inputs (the start token, then the pixels) and targets (all pixels), (rows, context).

        A context of one more than an image's tokens reads the last pixel too, and asks nothing of what it says.
        """
        inputs, targets = image_batch(
            self.train,
            image_tokens=self.image_tokens,
            rows=self.science.rows,
            seed=self.science.seed,
            step=step,
            start=self.start,
            reads_last=self.reads_last,
        )
        rows = share(self.science.rows, ranks)
        return torch.from_numpy(inputs[rows]), torch.from_numpy(targets[rows])

    def validation_loss(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> float:
        """Cross-entropy over fixed held-out images."""
        images = validation_images(
            self.held_out,
            image_tokens=self.image_tokens,
            tokens=self.science.evaluation.tokens,
            rows=min(EVALUATION_ROWS, self.science.rows),
            start=self.start,
            reads_last=self.reads_last,
        )
        return self.mean_loss(model, images, device, ranks)
