"""What do language and pixels have in common? GPT-2, and the loss of the next token in nats."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from structlin.config.science import Science
from structlin.data import input_vocab_size, vocab_size
from structlin.data.batches import Batch as Arrays
from structlin.kernels.limits import LEAST_VOCABULARY
from structlin.kernels.steps.gradients import WholeLoss
from structlin.models.build import build_model
from structlin.nn.cross_entropy import cross_entropy
from structlin.nn.ranks import ALONE, Ranks
from structlin.nn.router import auxiliary_loss
from structlin.tasks.protocol import Batch
from structlin.tasks.shared import autocast, mean_over

EVALUATION_ROWS = 64
"""Sequences a validation batch, at most; part of the numerics, since the order of a sum changes its last bits."""


def goes_in_chunks(science: Science, device: str) -> bool:
    """Whether the head and its loss go through a step in chunks of tokens: of large vocabularies.

    On a CPU in float32 and float64 they do not: runs of there keep the bits that they have always had.
    """
    large = vocab_size(science.data.tokenizer) >= LEAST_VOCABULARY
    return large and (device != "cpu" or science.model.dtype == "bfloat16")


class NextTokenLearner:
    """GPT-2 and its cross-entropy."""

    def __init__(self, science: Science) -> None:
        self.science = science

    def build_model(self) -> nn.Module:
        """GPT-2 with its first weights."""
        return build_model(self.science)

    def loss(self, model: nn.Module, batch: Batch, assignments: Tensor | None = None) -> Tensor:
        """Cross-entropy in nats per token, in float32 or wider; in training plus the losses of routers, if any.

        Of a large vocabulary the logits are never held as a whole (nn/cross_entropy.py).
        """
        inputs, targets = batch
        with autocast(self.science, inputs.device):
            if isinstance(model, WholeLoss) or goes_in_chunks(self.science, inputs.device.type):
                loss: Tensor = model(inputs, targets)
            else:
                loss = cross_entropy(model(inputs), targets)
        routing = auxiliary_loss(model, self.science.moe.z_weight, assignments)
        return loss if routing is None else loss + self.science.moe.auxiliary_weight * routing

    def route(self, model: nn.Module, batch: Batch) -> None:
        """A forward pass without a loss."""
        inputs, targets = batch
        with autocast(self.science, inputs.device):
            if goes_in_chunks(self.science, inputs.device.type):
                model(inputs, targets)
            else:
                model(inputs)

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
