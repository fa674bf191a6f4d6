"""Which rows does each expert get? The assignments of tokens to experts, sorted by expert.

Letters: T tokens, K chosen experts a token, N = T K assignments, E experts. Within one expert the assignments stand in
the order of their tokens, so what an expert computes depends on nothing else in the batch. Nothing here waits for the
device: sizes are known from the shapes, and where each expert's rows end is a tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from structlin.kernels.experts.choice import Choice


@dataclass(frozen=True)
class Routes:
    """The assignments, sorted by expert; those that a capacity drops stand last, beyond every expert's rows."""

    token_N: Tensor
    """Token of each assignment (int64)."""
    weight_N: Tensor
    """Weight of each assignment in its token's sum (differentiable)."""
    order_N: Tensor
    """Which assignment stands here: token * K + choice (int64)."""
    ends_E: Tensor
    """Where the rows of each expert end (int32); beyond the last one assignments are dropped."""
    num_tokens: int
    drops: bool
    """Whether a capacity may have dropped assignments."""
    slots_N: Tensor | None = None
    """Where each token's assignments stand: the inverse of ``order_N``; None where nobody asks for it."""

    @property
    def num_experts(self) -> int:
        """E."""
        return self.ends_E.shape[0]

    def slots_TK(self) -> Tensor:
        """Where the assignments of each token stand: the inverse of ``order_N``, as (T, K)."""
        if self.slots_N is not None:
            return self.slots_N.view(self.num_tokens, -1)
        places = torch.arange(self.order_N.shape[0], device=self.order_N.device)
        return torch.empty_like(self.order_N).scatter_(0, self.order_N, places).view(self.num_tokens, -1)

    def kept_N(self) -> Tensor:
        """Whether each row belongs to an expert (bool)."""
        return torch.arange(self.token_N.shape[0], device=self.token_N.device) < self.ends_E[-1]


def sort_by_expert(
    choice: Choice, capacity: float = 0.0, *, parts: int = 1, before_E: Tensor | int | None = None
) -> Routes:
    """The routes of the experts that tokens have chosen.

    ``capacity`` is the most assignments of an expert over its fair share T K / E, rounded up; 0 drops none. Earlier
    tokens are kept first, and what is dropped loses its term in the token's sum: the other weights stay as they are.
    Where the tokens are one of several equal ``parts`` of a batch, the share is that of the batch, and ``before_E``
    assignments of earlier parts have been there before.
    """
    num_tokens, num_chosen = choice.chosen_TK.shape
    counts_E, order_N, slots_N = choice.counts_E, choice.order_N, choice.slots_N
    if order_N is None or capacity > 0:
        expert_N, order_N = choice.chosen_TK.flatten().sort(stable=True)
        slots_N = None
    if capacity > 0:
        most = math.ceil(capacity * parts * num_tokens * num_chosen / counts_E.shape[0])
        left_E = (torch.full_like(counts_E, most) - (0 if before_E is None else before_E)).clamp(min=0)
        places = torch.arange(order_N.shape[0], device=order_N.device)
        first_N = (counts_E.cumsum(0) - counts_E)[expert_N]
        last = torch.where(places - first_N < left_E[expert_N], expert_N, counts_E.shape[0])
        order_N = order_N[last.sort(stable=True).indices]
        counts_E = torch.minimum(counts_E, left_E)
    if order_N.device.type == "cuda":
        # Gathering, combining and both of their gradients read it: made once.
        slots_N = torch.empty_like(order_N).scatter_(0, order_N, torch.arange(order_N.shape[0], device=order_N.device))
    return Routes(
        token_N=order_N // num_chosen,
        weight_N=_permuted(choice.weight_TK.flatten(), order_N, slots_N),
        order_N=order_N,
        ends_E=counts_E.cumsum(0).to(torch.int32),
        num_tokens=num_tokens,
        drops=capacity > 0,
        slots_N=slots_N,
    )


def _permuted(values_N: Tensor, order_N: Tensor, slots_N: Tensor | None) -> Tensor:
    """The values in another order; their gradient is one look-up where the inverse is known."""
    if slots_N is None:
        return values_N[order_N]
    found: Tensor = _Permuted.apply(values_N, order_N, slots_N)
    return found


class _Permuted(torch.autograd.Function):
    """Neither pass adds anything up."""

    @staticmethod
    def forward(ctx: Any, values_N: Tensor, order_N: Tensor, slots_N: Tensor) -> Tensor:
        """values[order]."""
        ctx.save_for_backward(slots_N)
        return values_N.index_select(0, order_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """gradient[slots]."""
        (slots_N,) = ctx.saved_tensors
        return gradients[0].index_select(0, slots_N), None, None
