"""Next-character (or BPE) prediction: GPT-2 on token shards. Source: arXiv 2410.02117, section 4."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from structlin.config.science import Science
from structlin.data import TokenShards, corpus_facts, train_batch, validation_batches
from structlin.nn.ranks import ALONE, Ranks
from structlin.tasks.next_token import EVALUATION_ROWS, NextTokenLearner
from structlin.tasks.protocol import Batch
from structlin.tasks.shared import prepared_folder


class LanguageTask(NextTokenLearner):
    """Windows of a text."""

    def __init__(self, science: Science, data_root: Path) -> None:
        """UserError where the recipe of ``science`` has not been prepared below ``data_root``."""
        super().__init__(science)
        place = prepared_folder(science, data_root)
        self.train = TokenShards.open(place, "train")
        self.manifest_hash = self.train.manifest_hash
        self.corpus = corpus_facts(place)
        self.validation = validation_batches(
            TokenShards.open(place, "validation"),
            context=science.model.context,
            tokens=science.evaluation.tokens,
            rows=min(EVALUATION_ROWS, science.rows),
        )

    def train_batch(self, step: int, ranks: Ranks = ALONE) -> Batch:
        """Inputs and targets (rows, context)."""
        inputs, targets = train_batch(
            self.train,
            context=self.science.model.context,
            rows=self.science.rows,
            seed=self.science.seed,
            step=step,
            rank=ranks.rank,
            world_size=ranks.world_size,
        )
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def validation_loss(self, model: nn.Module, device: torch.device, ranks: Ranks = ALONE) -> float:
        """Cross-entropy over the fixed validation windows."""
        return self.mean_loss(model, self.validation, device, ranks)
