"""Which experts does each token choose, with which weights, and what do the router's losses read of its logits?

By some thirty torch operations, or on one thread in float32 by a function of the C++ of whole steps: a router's logits
are few numbers, and calls take longer than their arithmetic.

Several routers that read the same tokens may choose at once: their logits then stand one below the other, T the rows
of all of them, and the experts of a router behind those of the one before.

Letters: T tokens, E experts, K chosen experts, N = T K assignments, R routers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from structlin.kernels.steps.library import Library, address, library

TIE = 2.0**-16
"""Logits whose distances to that of the first expert round to the same multiple of this are equal."""


@dataclass(frozen=True)
class Scores:
    """The logits of some tokens, and what a router's losses read of them where it has been made with the choice."""

    logits_TE: Tensor
    probability_TE: Tensor | None = None
    """Softmax over all experts, without a gradient."""
    means: Tensor | None = None
    """Of p (E), and of the squared logsumexp."""

    def probability(self) -> Tensor:
        """p (T, E), without a gradient."""
        return self.logits_TE.detach().softmax(-1) if self.probability_TE is None else self.probability_TE

    def losses(self) -> tuple[Tensor, Tensor]:
        """The mean p (E) and the mean squared logsumexp."""
        return _losses(self.logits_TE) if self.means is None else (self.means[:-1], self.means[-1])

    def detached(self) -> Scores:
        """The same without a gradient."""
        means = None if self.means is None else self.means.detach()
        return Scores(self.logits_TE.detach(), self.probability_TE, means)


def losses_of(routers: Sequence[Scores]) -> tuple[Tensor, Tensor]:
    """The mean p (R, E) and the mean squared logsumexp (R) of several routers with one batch.

    On a GPU, where a step waits for launches, of all of them at once.
    """
    if routers[0].logits_TE.device.type == "cuda":
        return _losses(torch.stack([scores.logits_TE for scores in routers]))
    means, squares = zip(*(scores.losses() for scores in routers), strict=True)
    return torch.stack(means), torch.stack(squares)


def _losses(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits (..., T, E): (..., E) and (...)."""
    return logits.softmax(-1).mean(-2), torch.logsumexp(logits, -1).square().mean(-1)


@dataclass(frozen=True)
class Choice:
    """What a router makes of the logits of some tokens."""

    chosen_TK: Tensor
    """The largest logit first (int64)."""
    weight_TK: Tensor
    """Softmax over the chosen."""
    scores: Scores
    ends_E: Tensor
    """Where each expert's end if they are sorted by expert (int64); of several routers (R E)."""
    slots_N: Tensor
    """Where each assignment, token * K + choice, then stands (int64)."""
    order_N: Tensor | None = None
    """Its inverse; None where nobody has made it."""

    @classmethod
    def of(cls, chosen_TK: Tensor, logits_TE: Tensor, routers: int = 1) -> Choice:
        """The choice of these experts."""
        ends_E, slots_N = places(chosen_TK.flatten(), logits_TE.shape[1], routers)
        chosen_logits_TK: Tensor = _LookedUp.apply(logits_TE, chosen_TK, slots_N, ends_E)
        return cls(chosen_TK, chosen_logits_TK.softmax(-1), Scores(logits_TE), ends_E, slots_N)


def choose_experts(logits_TE: Tensor, top_k: int, first_token: int | Tensor = 0, routers: int = 1) -> Choice:
    """The k experts of each token (``choose``), their weights, and how many tokens each expert has."""
    functions = _functions(logits_TE, first_token) if routers == 1 else None
    if functions is not None:
        weight_TK, means, chosen_TK, counts_E, order_N, slots_N, p_TE = _Chosen.apply(
            logits_TE, top_k, first_token, functions
        )
        scores = Scores(logits_TE, p_TE, means)
        return Choice(chosen_TK, weight_TK, scores, counts_E.cumsum(0), slots_N, order_N)
    return Choice.of(choose(logits_TE, top_k, first_token, routers), logits_TE, routers)


def choose(logits_TE: Tensor, top_k: int, first_token: int | Tensor = 0, routers: int = 1) -> Tensor:
    """The k experts with the largest logits (T, K), the largest first.

    Among equal logits token t of the global batch, where these begin at ``first_token``, prefers the experts from
    (t k + t // E) mod E on. So of E tokens in a row, the first a multiple of E, every expert gets k choices. Logits
    nearer than TIE are equal: early on the z-loss alone moves the router, all experts alike, and rounding, which
    differs between devices and numbers of ranks, must not choose.
    """
    num_tokens, num_experts = logits_TE.shape
    token_T = torch.arange(num_tokens // routers, device=logits_TE.device) + first_token
    token_T = token_T if routers == 1 else token_T.repeat(routers)
    shift_T = token_T * top_k + torch.div(token_T, num_experts, rounding_mode="floor")
    expert_TE = (torch.arange(num_experts, device=logits_TE.device) + shift_T[:, None]) % num_experts
    steps_TE = ((logits_TE.detach() - logits_TE.detach()[:, :1]) / TIE).round()
    ranked_TE = steps_TE.gather(1, expert_TE).sort(dim=-1, descending=True, stable=True).indices
    return expert_TE.gather(1, ranked_TE[:, :top_k])


def counts_of(ends: Tensor) -> Tensor:
    """Assignments of each expert (..., E) by where they end."""
    return ends - functional.pad(ends[..., :-1], (1, 0))


def places(expert_N: Tensor, num_experts: int, routers: int = 1) -> tuple[Tensor, Tensor]:
    """Where the assignments of each expert end (R E), and where each stands (N), in the order of experts (int64).

    Nothing is sorted and nothing added up in an order of chance. In the table of which assignment is of which expert,
    read expert after expert, the running sum at an assignment's own entry says how many stand up to it.
    """
    is_of_REN = expert_N.view(routers, 1, -1) == torch.arange(num_experts, device=expert_N.device)[:, None]
    running_REN = is_of_REN.flatten().cumsum(0, dtype=torch.int32).view(is_of_REN.shape)
    ends_E = running_REN[..., -1].flatten().long()
    # A sum of one entry, where a look-up would do: a compiler keeps it, and looks up what it has not kept at every use.
    return ends_E, running_REN.where(is_of_REN, 0).sum(1).flatten() - 1


def _functions(logits_TE: Tensor, first_token: int | Tensor) -> Library | None:
    """The C++, where it serves: plain tensors, whose memory can be read."""
    is_plain = type(logits_TE) is Tensor and logits_TE.device.type == "cpu" and logits_TE.dtype == torch.float32
    if not is_plain or isinstance(first_token, Tensor) or torch.compiler.is_compiling() or torch.get_num_threads() > 1:
        return None
    return library(torch.float32)


class _LookedUp(torch.autograd.Function):
    """Logits (T, E) -> those of the chosen (T, K). Its gradient adds nothing up: a compiler writes it with others."""

    @staticmethod
    def forward(ctx: Any, logits_TE: Tensor, chosen_TK: Tensor, slots_N: Tensor, ends_E: Tensor) -> Tensor:
        """logits[t, chosen[t]]."""
        ctx.save_for_backward(slots_N, ends_E)
        ctx.experts = logits_TE.shape[1]
        return logits_TE.gather(1, chosen_TK)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """At the chosen; an assignment's expert is the one between whose ends it stands, which are kept anyway."""
        slots_N, ends_E = ctx.saved_tensors
        d_TK = gradients[0]
        experts_TK = torch.bucketize(slots_N, ends_E, right=True).view_as(d_TK)
        experts_TK = experts_TK if len(ends_E) == ctx.experts else experts_TK % ctx.experts
        is_chosen_TKE = experts_TK[..., None] == torch.arange(ctx.experts, device=d_TK.device)
        return d_TK[..., None].where(is_chosen_TKE, 0).sum(1), None, None, None


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
