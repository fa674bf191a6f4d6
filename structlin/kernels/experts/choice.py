"""Which experts does each token choose, with which weights, and what do the router's losses read of its logits?

By some thirty torch operations, or on one thread in float32 by a function of the C++ of whole steps: a router's logits
are few numbers, and calls take longer than their arithmetic.

Letters: T tokens, E experts, K chosen experts, N = T K assignments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from structlin.kernels.steps.library import Library, address, library

TIE = 2.0**-16
"""Logits whose distances to that of the first expert round to the same multiple of this are equal."""


@dataclass(frozen=True)
class Choice:
    """What a router makes of the logits of some tokens."""

    chosen_TK: Tensor
    """The largest logit first (int64)."""
    weight_TK: Tensor
    """Softmax over the chosen."""
    counts_E: Tensor
    """Assignments of each expert (int64)."""
    logits_TE: Tensor
    order_N: Tensor | None = None
    """Which assignment, token * K + choice, stands where if they are sorted by expert; None where nobody has sorted."""
    slots_N: Tensor | None = None
    """Its inverse."""
    probability_TE: Tensor | None = None
    """Softmax over all experts, without a gradient; None where it is still to be made, as are the next two."""
    means: Tensor | None = None
    """Of p (E), and of the squared logsumexp."""

    def losses(self) -> tuple[Tensor, Tensor, Tensor]:
        """p (T, E) without a gradient, the mean p (E) and the mean squared logsumexp."""
        if self.probability_TE is not None and self.means is not None:
            return self.probability_TE, self.means[:-1], self.means[-1]
        probability_TE = self.logits_TE.softmax(-1)
        return probability_TE.detach(), probability_TE.mean(0), torch.logsumexp(self.logits_TE, -1).square().mean()


def choose_experts(logits_TE: Tensor, top_k: int, first_token: int | Tensor = 0) -> Choice:
    """The k experts of each token (``choose``), their weights, and how many tokens each expert has."""
    functions = _functions(logits_TE, first_token)
    if functions is not None:
        weight_TK, means, chosen_TK, counts_E, order_N, slots_N, p_TE = _Chosen.apply(
            logits_TE, top_k, first_token, functions
        )
        return Choice(chosen_TK, weight_TK, counts_E, logits_TE, order_N, slots_N, p_TE, means)
    chosen_TK = choose(logits_TE, top_k, first_token)
    weight_TK = logits_TE.gather(1, chosen_TK).softmax(-1)
    return Choice(chosen_TK, weight_TK, _count(chosen_TK.flatten(), logits_TE.shape[1]), logits_TE)


def choose(logits_TE: Tensor, top_k: int, first_token: int | Tensor = 0) -> Tensor:
    """The k experts with the largest logits (T, K), the largest first.

    Among equal logits token t of the global batch, where these begin at ``first_token``, prefers the experts from
    (t k + t // E) mod E on. So of E tokens in a row, the first a multiple of E, every expert gets k choices. Logits
    nearer than TIE are equal: early on the z-loss alone moves the router, all experts alike, and rounding, which
    differs between devices and numbers of ranks, must not choose.
    """
    num_tokens, num_experts = logits_TE.shape
    token_T = torch.arange(num_tokens, device=logits_TE.device) + first_token
    shift_T = token_T * top_k + torch.div(token_T, num_experts, rounding_mode="floor")
    expert_TE = (torch.arange(num_experts, device=logits_TE.device) + shift_T[:, None]) % num_experts
    steps_TE = ((logits_TE.detach() - logits_TE.detach()[:, :1]) / TIE).round()
    ranked_TE = steps_TE.gather(1, expert_TE).sort(dim=-1, descending=True, stable=True).indices
    return expert_TE.gather(1, ranked_TE[:, :top_k])


def _count(assigned_N: Tensor, num_experts: int) -> Tensor:
    """Assignments (E) of each expert, without adding up in an order of chance."""
    if assigned_N.device.type == "cuda":
        experts = torch.arange(num_experts, device=assigned_N.device)
        return (assigned_N[:, None] == experts).sum(0)
    counts_E = torch.zeros(num_experts, dtype=torch.int64, device=assigned_N.device)
    return counts_E.scatter_add(0, assigned_N, torch.ones_like(assigned_N))


def _functions(logits_TE: Tensor, first_token: int | Tensor) -> Library | None:
    """The C++, where it serves: plain tensors, whose memory can be read."""
    is_plain = type(logits_TE) is Tensor and logits_TE.device.type == "cpu" and logits_TE.dtype == torch.float32
    if not is_plain or isinstance(first_token, Tensor) or torch.compiler.is_compiling() or torch.get_num_threads() > 1:
        return None
    return library(torch.float32)


class _Chosen(torch.autograd.Function):
    """Logits (T, E) to weights (T, K) and means (E + 1), and to what has no gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, top_k: int, first_token: int, functions: Library) -> tuple[Tensor, ...]:
        """weights, means; chosen, counts, order, slots, p."""
        logits = logits.contiguous()
        tokens, experts = logits.shape
        whole = logits.new_empty(0, dtype=torch.int64)
        chosen, order, slots = whole.new_empty(tokens, top_k), *(whole.new_empty(tokens * top_k) for _ in range(2))
        counts, following = whole.new_empty(experts), whole.new_empty(experts)
        weight, p, level = logits.new_empty(tokens, top_k), torch.empty_like(logits), logits.new_empty(tokens)
        means, space = logits.new_empty(experts + 1), logits.new_empty(16 * experts + top_k)
        written = (chosen, weight, p, level, means, counts, order, slots, space, following)
        functions.choose(tokens, experts, top_k, first_token, TIE, *map(address, (logits, *written)))
        ctx.functions = functions
        ctx.save_for_backward(chosen, weight, p, level)
        ctx.mark_non_differentiable(chosen, counts, order, slots, p)
        return weight, means, chosen, counts, order, slots, p

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Of the logits."""
        chosen, weight, p, level = ctx.saved_tensors
        d_weight, d_means = (gradient.contiguous() for gradient in gradients[:2])
        d_logits = torch.empty_like(p)
        tensors = (chosen, weight, p, level, d_weight, d_means, d_logits)
        ctx.functions.choose_backward(*p.shape, chosen.shape[1], *map(address, tensors))
        return d_logits, None, None, None
