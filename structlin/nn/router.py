"""Which experts does a token go to, and with which weights? A linear router with float32 logits, and its losses.

    g = W x,   S = top-k(g),   w = softmax(g over S),   p = softmax(g) over all experts,   f = share of assignments
    loss = E sum_e p_e f_e + z_weight mean(logsumexp(g)^2)

The first term is 1 where experts are used evenly and E / k where all tokens go to the same k. Where W starts at zero
all experts tie at step 0: ties are broken by the token's index in the global batch, each expert getting an equal share.
Source: arXiv 2410.02117, section 5; the balance loss is that of arXiv 2101.03961, eq. 4.

A batch may come in parts, one after another (``part_of_batch``). Ties and capacity go on from one part to the next, and
f is that of the whole batch: it has to be known before the first part's loss, so parts are counted once before.

Letters: T tokens, D features, E experts, K chosen experts, R routers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.kernels.experts.choice import Choice, Scores, choose_experts, counts_of, losses_of
from structlin.kernels.experts.routes import Routes, sort_by_expert
from structlin.kernels.precision import as_given, product_dtype
from structlin.nn.ranks import ALONE, Ranks
from structlin.nn.spec import Module, ParamSpec


@dataclass(frozen=True)
class RouterStatistics:
    """How a router used its experts in the last training batch, as plain numbers."""

    usage: tuple[float, ...]
    """Share of assignments of each expert before any is dropped; 1/E is even."""
    token_perplexity: float
    """Mean over tokens of exp(entropy of p): 1 where every token is certain, E where none is."""
    aggregate_perplexity: float
    """exp(entropy of the mean p): E where experts are used evenly, however certain each token is."""
    dropped: float
    """Share of assignments dropped for want of capacity."""
    balance: float
    """E sum p f: 1 at even use, E / k at collapse."""
    z: float
    """Mean of logsumexp(g)^2."""


@dataclass(frozen=True)
class _Batch:
    """What a training batch left behind, on the device; numbers are made of it only when they are read."""

    scores: Scores
    ends_E: Tensor
    """Where assignments of each expert end before any is dropped."""
    kept_E: Tensor
    """And after."""


@dataclass(frozen=True)
class Part:
    """Of how many equal, consecutive parts of a rank's batch a forward pass is given one."""

    of: int = 1
    counts: bool = False
    """Whether the pass only counts assignments, for the balance loss of the passes that follow."""


class Router(Module):
    """Tokens (T, D) -> the routes to their experts."""

    def __init__(
        self,
        d_in: int,
        num_experts: int,
        top_k: int,
        *,
        base_d_in: int,
        evaluation_top_k: int = 0,
        capacity: float = 0.0,
        std: float = 0.0,
        rate_rule: str = "structure",
    ) -> None:
        """``evaluation_top_k`` 0: as in training. ``capacity`` 0: no assignment is dropped. ``std`` of the start.

        ``rate_rule`` plain: it learns at lr0, else as a dense layer.
        """
        super().__init__()
        self.top_k, self.evaluation_top_k, self.capacity = top_k, evaluation_top_k or top_k, capacity
        self.rate, self.std = 1.0 if rate_rule == "plain" else base_d_in / d_in, std
        self.weight = nn.Parameter(torch.zeros(num_experts, d_in))
        self.ranks: Ranks = ALONE
        self.is_repeated = False
        self.part = Part()
        self._batches: list[_Batch] = []
        self._latest: _Batch | None = None
        self._number: Tensor | int = 0
        self.counted_E: Tensor | int = 0
        self._before_E: Tensor | int = 0
        self._scored: tuple[Scores, Tensor] | None = None

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """Starts at zero, or normal, and learns at the rate of a dense layer, or of all."""
        return {"weight": ParamSpec("router", self.std, self.rate)}

    def forward(self, x: Tensor) -> Routes:
        """x (T, D) -> routes; in training what losses and statistics of the batch read is kept for them."""
        choice = self._choose(self._logits(x, self.weight), x.shape[0])
        part = self.part if self.training else Part()
        before_E = self._before(part, choice.ends_E)
        routes = sort_by_expert(choice, self.capacity, parts=part.of, before_E=before_E)
        self._keep(part, choice.scores, choice.ends_E, routes.ends_E)
        return routes

    def with_others(self, others: Sequence[Router], x: Tensor) -> Routes:
        """The routes of this one and of others like it as those of one mixture of all their experts (routes.py).

        One product, one choice and one sort for all; every router keeps what it would have kept alone. None of them
        has a capacity.
        """
        every, tokens = [self, *others], x.shape[0]
        logits = self._logits(x, torch.cat([router.weight for router in every]))
        logits_RTE = logits.unflatten(1, (len(every), -1)).transpose(0, 1)
        choice = self._choose(logits_RTE.flatten(0, 1), tokens, len(every))
        routes = sort_by_expert(choice, routers=len(every))
        part = self.part if self.training else Part()
        begins_R = torch.arange(len(every), device=x.device) * (tokens * choice.chosen_TK.shape[1])
        ends_RE = choice.ends_E.view(len(every), -1) - begins_R[:, None]
        # Copies: a compiler that gives out views of one tensor, some without a gradient, mistakes their shape.
        for router, *own in zip(every, logits_RTE, ends_RE, strict=True):
            logits_TE, ends_E = (tensor.clone() for tensor in own)
            router._before(part, ends_E)
            router._keep(part, Scores(logits_TE), ends_E, ends_E)
        return routes

    def _choose(self, logits: Tensor, tokens: int, routers: int = 1) -> Choice:
        """The experts of so many tokens, by the logits (R T, E) of so many routers like this one."""
        if not self.training:
            return choose_experts(logits, self.evaluation_top_k, routers=routers)
        # The ranks of a run have equal, consecutive shares of a training batch, and parts those of a rank. A part's
        # number is a tensor, so that one compiled graph serves all of them.
        part, ranks = self.part, self.ranks
        number = ranks.rank if part.of == 1 else ranks.rank * part.of + self._number
        return choose_experts(logits, self.top_k, number * tokens, routers)

    def _keep(self, part: Part, scores: Scores, ends_E: Tensor, kept_E: Tensor) -> None:
        """In training, what losses and statistics of a batch read, once a batch."""
        if self.training and not part.counts and not self.is_repeated:
            self._scored = scores, ends_E
            # Only set here, and listed by whoever says which part comes next: a compiled graph hangs on what it reads.
            self._latest = _Batch(scores.detached(), ends_E, kept_E)

    def _before(self, part: Part, ends_E: Tensor) -> Tensor | int | None:
        """Assignments (E) of the parts before this one, which is added to them; None where there are none."""
        if part.of == 1:
            return None
        if not self.is_repeated:
            self._before_E = self.counted_E
            self.counted_E = self._before_E + counts_of(ends_E)
        return self._before_E

    def expect(self, part: Part, index: int) -> None:
        """The next pass is of the part with this index; at 0 a batch begins."""
        self.part = part
        if part.of > 1:
            self._number = torch.full((), index, device=self.weight.device)
        if self._latest is not None and index > 0:
            self._batches.append(self._latest)
        self._latest = None
        if index == 0:
            self._batches = []
            self.counted_E = torch.zeros(self.weight.shape[0], dtype=torch.int64, device=self.weight.device)

    @staticmethod
    def _logits(x: Tensor, weight: Tensor) -> Tensor:
        """In float32 or wider, whatever autocast says."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        weight = weight.to(wide)
        if x.dtype == wide and product_dtype(x.device) is None:
            return functional.linear(x, weight)
        with as_given(x.device):
            logits: Tensor = _Widened.apply(x, weight)
            return logits

    def take_scores(self) -> tuple[Scores, Tensor] | None:
        """What losses of the last training batch read, and where experts end, given out once; None without one."""
        scored, self._scored = self._scored, None
        return scored

    def statistics(self) -> RouterStatistics | None:
        """Of the last training batch over all ranks, or None before the first; waits for the device.

        One small reduction: every rank calls this at the same steps.
        """
        batches = [*self._batches, *([self._latest] if self._latest is not None else [])]
        if not batches:
            return None
        p_TE = torch.cat([batch.scores.probability() for batch in batches]).double()
        counts_E = counts_of(torch.stack([batch.ends_E for batch in batches]).sum(0)).double()
        num_kept = torch.stack([batch.kept_E[-1] for batch in batches]).sum().double()
        z = torch.stack([batch.scores.losses()[1] for batch in batches]).double().mean()
        num_experts = p_TE.shape[1]
        single = torch.stack([_entropy(p_TE).exp().mean(), num_kept, z])
        means = self.ranks.mean(torch.cat([counts_E, p_TE.mean(0), single])).cpu()
        counts_E, p_E, (token_perplexity, num_kept, z) = means.split([num_experts, num_experts, 3])
        share_E = counts_E / counts_E.sum()
        return RouterStatistics(
            usage=tuple(share_E.tolist()),
            token_perplexity=float(token_perplexity),
            aggregate_perplexity=float(_entropy(p_E).exp()),
            dropped=float(1.0 - num_kept / counts_E.sum()),
            balance=float(num_experts * (p_E * share_E).sum()),
            z=float(z),
        )


class _Widened(torch.autograd.Function):
    """x weight^T in the dtype of the weight, and so its gradients: kept is x as it came, and widened again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """x (T, D), weight (E, D) -> (T, E)."""
        ctx.save_for_backward(x, weight)
        return functional.linear(x.to(weight.dtype), weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Of x in its own dtype, of the weight in its."""
        x, weight = ctx.saved_tensors
        d_logits = gradients[0]
        # A compiled backward pass is traced under the autocast of the forward pass.
        with as_given(x.device):
            return (d_logits @ weight).to(x.dtype), d_logits.T @ x.to(weight.dtype)


def routers(model: nn.Module) -> Iterator[tuple[str, Router]]:
    """Routers of a model with their names, free of the wrappers of torch.compile and DistributedDataParallel."""
    for name, module in model.named_modules():
        if isinstance(module, Router):
            parts = [part for part in name.split(".") if part not in ("_orig_mod", "module")]
            yield ".".join(parts), module


@contextmanager
def repeated(module: nn.Module) -> Iterator[None]:
    """Within it the forward passes of a module were there before: its routers compute the same and keep none of it."""
    inside = [router for _, router in routers(module)]
    for router in inside:
        router.is_repeated = True
    try:
        yield
    finally:
        for router in inside:
            router.is_repeated = False


def part_of_batch(model: nn.Module, part: Part, index: int = 0) -> None:
    """Tell all routers which part of a batch comes next."""
    for _, router in routers(model):
        router.expect(part, index)


def count_assignments(model: nn.Module) -> Tensor | None:
    """Assignments (R, E) of all routers over the parts that have come and over all ranks; None without routers."""
    found = [router for _, router in routers(model)]
    return found[0].ranks.sum(torch.stack([torch.as_tensor(one.counted_E) for one in found])) if found else None


def router_record(model: nn.Module) -> dict[str, Any] | None:
    """The statistics of all routers as columns for a journal row, ``routers`` naming them; None without routers.

    ``least_share`` is one number for all: the least use of any expert over its fair share. Numbers have four digits,
    those that are not finite are None. Waits for the device.
    """
    found = {name: statistics for name, router in routers(model) if (statistics := router.statistics()) is not None}
    if not found:
        return None
    columns = [field.name for field in fields(RouterStatistics)]
    return {
        "routers": list(found),
        "least_share": _short(min(min(one.usage) * len(one.usage) for one in found.values())),
        **{column: [_short(getattr(one, column)) for one in found.values()] for column in columns},
    }


def _short(value: float | tuple[float, ...]) -> Any:
    if isinstance(value, tuple):
        return [_short(item) for item in value]
    return float(f"{value:.4g}") if math.isfinite(value) else None


def auxiliary_loss(model: nn.Module, z_weight: float, counts_RE: Tensor | None = None) -> Tensor | None:
    """Mean over routers of balance and z-loss in the last training batch, given out once; None without routers.

    Where ranks share a batch the shares f are those of all of them (one small sum over ranks), so that the mean of
    their losses, and of their gradients, is the loss of the whole batch. Where it comes in parts, their mean is, if
    ``counts_RE`` are the assignments of all of them (``count_assignments``).
    """
    found = [(router.ranks, *scored) for _, router in routers(model) if (scored := router.take_scores()) is not None]
    if not found:
        return None
    p_RE, z_R = losses_of([scores for _, scores, _ in found])
    if counts_RE is None:
        ranks, ends_RE = found[0][0], torch.stack([ends for _, _, ends in found])
        counts_RE = ranks.sum(counts_of(ends_RE).to(p_RE.dtype))
    counts_RE = counts_RE.to(p_RE.dtype)
    share_RE = counts_RE / counts_RE.sum(-1, keepdim=True)
    balance = p_RE.shape[1] * (p_RE * share_RE).sum(-1).mean()
    return balance + z_weight * z_R.mean()


def _entropy(p: Tensor) -> Tensor:
    """Entropy in nats over the last dimension."""
    return -(p * p.clamp(min=1e-300).log()).sum(-1)
