"""What of its residual blocks does a training step keep? All that the backward pass reads, or their inputs alone.

Where a model recomputes, a block's forward pass runs again when its gradients are computed, and what it keeps lives
no longer than that: memory of one block instead of all, for a forward pass of the blocks more. Nothing in a block is
random, so losses and gradients are the same bits. Source: arXiv 1604.06174, with a segment a block.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from structlin.nn.router import repeated, routers


class Blocks(nn.ModuleList):
    """The residual blocks of a model, one after another."""

    recomputes = False

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        recomputes = self.recomputes and torch.is_grad_enabled()
        for block in self:
            x = _recomputed(block, x) if recomputes else block(x)
        return x


def recompute(model: nn.Module) -> None:
    """Let all blocks of a model keep their inputs alone."""
    for module in model.modules():
        if isinstance(module, Blocks):
            module.recomputes = True


def _recomputed(block: nn.Module, x: Tensor) -> Tensor:
    options: dict[str, Any] = {"context_fn": partial(_contexts, block)} if any(True for _ in routers(block)) else {}
    y: Tensor = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, **options)
    return y


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Those of the forward pass and of its repetition: a batch is routed, and counted, once."""
    return nullcontext(), repeated(block)
