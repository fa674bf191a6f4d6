"""Which rows does each expert get? The assignments of tokens to experts, sorted by expert.

Letters: T tokens, K chosen experts a token, N = T K assignments, E experts. Within one expert the assignments stand in
the order of their tokens, so what an expert computes depends on nothing else in the batch. Nothing here waits for the
device: sizes are known from the shapes, and where each expert's rows end is a tensor.

Several routers that have chosen at once (choice.py) are one mixture of all their experts: token t of router r is row
r T + t of what is summed, and every router reads the same T rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from structlin.kernels.experts.choice import Choice, counts_of


@dataclass(frozen=True)
class Routes:
    """The assignments, sorted by expert; those that a capacity drops stand last, beyond every expert's rows."""

    token_N: Tensor
    """Token of each assignment (int64)."""
    weight_TK: Tensor
    """Weight of each assignment in its token's sum (differentiable)."""
    weight_N: Tensor
    """The same, sorted."""
    order_N: Tensor
    """Which assignment stands here: token * K + choice (int64)."""
    ends_E: Tensor
    """Where the rows of each expert end (int32); beyond the last one assignments are dropped."""
    num_tokens: int
    drops: bool
    """Whether a capacity may have dropped assignments."""
    slots_N: Tensor
    """Where each token's assignments stand: the inverse of ``order_N`` (int64)."""
    routers: int = 1
    """How many chose: ``num_tokens`` counts a token once a router."""

    @property
    def num_experts(self) -> int:
        """E."""
        return self.ends_E.shape[0]

    def slots_TK(self) -> Tensor:
        """Where the assignments of each token stand: the inverse of ``order_N``, as (T, K)."""
        return self.slots_N.view(self.num_tokens, -1)

    def slots_by_row(self) -> Tensor:
        """The same (T, R K) of the rows that are read: those of every router beside each other."""
        return self.slots_N.view(self.routers, self.num_tokens // self.routers, -1).transpose(0, 1).flatten(1)

    def kept_N(self) -> Tensor:
        """Whether each row belongs to an expert (bool)."""
        return torch.arange(self.token_N.shape[0], device=self.token_N.device) < self.ends_E[-1]


def sort_by_expert(
    choice: Choice, capacity: float = 0.0, *, parts: int = 1, before_E: Tensor | int | None = None, routers: int = 1
) -> Routes:
    """The routes of the experts that tokens have chosen.

    ``capacity`` is the most assignments of an expert over its fair share T K / E, rounded up; 0 drops none. Earlier
    tokens are kept first, and what is dropped loses its term in the token's sum: the other weights stay as they are.
    Where the tokens are one of several equal ``parts`` of a batch, the share is that of the batch, and ``before_E``
    assignments of earlier parts have been there before. Several ``routers`` have no capacity.
    """
    assert routers == 1 or not capacity, capacity
    num_tokens, num_chosen = choice.chosen_TK.shape
    ends_E, slots_N, order_N = choice.ends_E, choice.slots_N, choice.order_N
    if capacity > 0:
        most = math.ceil(capacity * parts * num_tokens * num_chosen / ends_E.shape[0])
        left_E = (torch.full_like(ends_E, most) - (0 if before_E is None else before_E)).clamp(min=0)
        ends_E, slots_N, order_N = *_keep(choice, left_E), None
    if order_N is None:
        order_N = _inverse(slots_N)
    permuted: Tensor = _Permuted.apply(choice.weight_TK.flatten(), order_N, slots_N)
    return Routes(
        token_N=order_N // num_chosen if routers == 1 else order_N // num_chosen % (num_tokens // routers),
        weight_TK=choice.weight_TK,
        weight_N=permuted,
        order_N=order_N,
        ends_E=ends_E.to(torch.int32),
        num_tokens=num_tokens,
        drops=capacity > 0,
        slots_N=slots_N,
        routers=routers,
    )


def _keep(choice: Choice, left_E: Tensor) -> tuple[Tensor, Tensor]:
    """Ends (E) and slots (N) where each expert keeps so many; the others stand last, expert after expert."""
    expert_N, counts_E = choice.chosen_TK.flatten(), counts_of(choice.ends_E)
    rank_N = choice.slots_N - (choice.ends_E - counts_E)[expert_N]
    kept_E = torch.minimum(counts_E, left_E)
    lost_E = counts_E - kept_E
    ends_E = kept_E.cumsum(0)
    kept_from_E, lost_from_E = ends_E - kept_E, ends_E[-1] + lost_E.cumsum(0) - lost_E
    is_kept_N = rank_N < kept_E[expert_N]
    return ends_E, rank_N + torch.where(is_kept_N, kept_from_E[expert_N], (lost_from_E - kept_E)[expert_N])


def _inverse(slots_N: Tensor) -> Tensor:
    """Which assignment stands at each place (int64); in 32 bits, which a compiler writes by itself."""
    numbers = torch.arange(slots_N.shape[0], device=slots_N.device, dtype=torch.int32)
    order_N = torch.empty_like(numbers)
    order_N[slots_N] = numbers
    return order_N.long()


class _Permuted(torch.autograd.Function):
    """The values in another order; their gradient is one look-up, as the inverse is known."""

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
