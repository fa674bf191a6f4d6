"""What do language and pixels have in common? GPT-2, and the loss of the next token in nats."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.config.science import Science
from structlin.data import input_vocab_size, vocab_size
from structlin.data.batches import Batch as Arrays
from structlin.models.build import build_model
from structlin.nn.ranks import ALONE, Ranks
from structlin.nn.router import auxiliary_loss
from structlin.tasks.protocol import Batch
from structlin.tasks.shared import autocast, mean_over

EVALUATION_ROWS = 64
"""Sequences a validation batch, at most; part of the numerics, since the order of a sum changes its last bits."""


class NextTokenLearner:
    """GPT-2 and its cross-entropy."""

    def __init__(self, science: Science) -> None:
        self.science = science

    def build_model(self) -> nn.Module:
        """GPT-2 with its first weights."""
        return build_model(self.science)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy in nats per token, in float32 or wider; in training plus the losses of routers, if any."""
        inputs, targets = batch
        with autocast(self.science, inputs.device):
            logits = model(inputs)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        loss = functional.cross_entropy(wide.flatten(0, 1), targets.flatten())
        routing = auxiliary_loss(model, self.science.moe.z_weight)
        return loss if routing is None else loss + self.science.moe.auxiliary_weight * routing

    def random_batch(self, rows: int, generator: torch.Generator) -> Batch:
        """Uniformly random tokens, (rows, context) each."""
        shape, tokenizer = (rows, self.science.model.context), self.science.data.tokenizer
        inputs = torch.randint(input_vocab_size(tokenizer), shape, generator=generator)
        return inputs, torch.randint(vocab_size(tokenizer), shape, generator=generator)

    def mean_loss(
        self, model: nn.Module, batches: Iterable[Arrays], device: torch.device, ranks: Ranks = ALONE
    ) -> float:
        """Cross-entropy in nats per token over all batches."""

        def loss(batch: Arrays) -> Tensor:
            inputs, targets = (torch.from_numpy(part).to(device, non_blocking=True) for part in batch)
            return self.loss(model, (inputs, targets))

        return mean_over(batches, loss, lambda batch: batch[1].size, ranks)
