"""How is the loss of a large vocabulary computed without ever holding all logits? In chunks of tokens, in one pass.

    for every chunk:  logits = head(x),  loss += sum of -log softmax(logits)[target],  gradients of x and of the head

What a step keeps of it are the gradients of x and of the head's weights, not logits (T, V) in two precisions and their
softmax: at 65,536 tokens of a vocabulary of 50,304 those are 33 GB. The gradient of the head is summed over chunks in
the precision of its weights. The idea is that of Liger (arXiv 2410.10989) and of cut cross-entropy (arXiv 2411.09009);
here in torch's own operations, for any head, on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from structlin.kernels.limits import CHUNK_ELEMENTS


class Head(Protocol):
    """The last map of a model, to logits."""

    @property
    def d_out(self) -> int:
        """Size of the vocabulary."""
        ...

    def __call__(self, x: Tensor, /) -> Tensor:
        """x (..., D) -> (..., V)."""
        ...

    def parameters(self) -> Iterator[Tensor]:
        """What it multiplies with."""
        ...


IGNORED = -100
"""A target that is asked nothing."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over all targets, in nats, in float32 or wider: logits (..., V), targets (...)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)


@torch.compiler.disable
def chunked_cross_entropy(x: Tensor, head: Head, targets: Tensor, rows: int | None = None) -> Tensor:
    """``cross_entropy(head(x), targets)`` for x (..., D), differentiable (once) in x and in the head's parameters.

    ``rows``: tokens of a chunk; None: as many as make ``CHUNK_ELEMENTS`` logits.
    """
    flat, wanted = x.flatten(0, -2), targets.flatten()
    parameters = tuple(head.parameters())
    if not torch.is_grad_enabled():
        return _sum(flat, wanted, head, rows)[0]
    loss: Tensor = _Chunked.apply(flat, wanted, head, rows, *parameters)
    return loss


class _Chunked(torch.autograd.Function):
    """The loss; its gradients are made with it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, targets: Tensor, head: Head, rows: int | None, *parameters: Tensor) -> Tensor:
        """A scalar."""
        ctx.needs = ctx.needs_input_grad[0], ctx.needs_input_grad[4:]
        loss, d_x, d_parameters = _sum(x, targets, head, rows, parameters, needs_gradients=True)
        ctx.save_for_backward(d_x, *d_parameters)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """What was made, times the gradient of the loss."""
        d_x, *d_parameters = (made * gradients[0].to(made.dtype) for made in ctx.saved_tensors)
        needs_x, needs = ctx.needs
        return (
            d_x if needs_x else None,
            None,
            None,
            None,
            *(made if need else None for made, need in zip(d_parameters, needs, strict=True)),
        )


def _sum(
    x: Tensor,
    targets: Tensor,
    head: Head,
    rows: int | None,
    parameters: tuple[Tensor, ...] = (),
    *,
    needs_gradients: bool = False,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The mean loss, and where wanted its gradients of x and of the parameters."""
    count = (targets != IGNORED).sum()
    losses, rows = [], rows or _chunk_rows(head)
    d_x = torch.empty_like(x) if needs_gradients else x.new_empty(0)
    d_parameters = [torch.zeros_like(parameter) for parameter in parameters]
    for start in range(0, x.shape[0], rows):
        part = slice(start, start + rows)
        with torch.set_grad_enabled(needs_gradients):
            x_part = x[part].detach().requires_grad_(needs_gradients)
            logits = head(x_part)
            wide = logits if logits.dtype == torch.float64 else logits.float()
            loss = functional.cross_entropy(wide, targets[part], ignore_index=IGNORED, reduction="sum") / count
        losses.append(loss.detach())
        del logits, wide
        if needs_gradients:
            d_part, *more = torch.autograd.grad(loss, (x_part, *parameters))
            d_x[part] = d_part
            for total, found in zip(d_parameters, more, strict=True):
                total += found
        del loss
    return torch.stack(losses).sum(), d_x, d_parameters


def _chunk_rows(head: Head) -> int:
    """Tokens whose logits are ``CHUNK_ELEMENTS``, as a power of two."""
    return 1 << max(4, (CHUNK_ELEMENTS // head.d_out).bit_length() - 1)
