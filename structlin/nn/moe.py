"""Mixtures of experts: a linear layer whose router sends every token to a few of its experts, and such an FFN.

    MoeLinear   y = sum over chosen e of w_e W_e x,  W_e dense, low rank, or a rank slice of a block tensor train
    MoeFfn      y = sum over chosen e of w_e Down_e gelu(Up_e x),  one router for whole FFNs of any structure

Only chosen experts are computed. Mixtures that read the same x, as queries, keys and values do, are computed as one of
all their experts where a GPU waits for launches (``each_of``). Source: arXiv 2410.02117, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.kernels.experts import paths as expert_products
from structlin.kernels.experts.ffn import expert_ffn
from structlin.kernels.experts.grouped import MOST_TORCH_GROUPS
from structlin.kernels.precision import product_dtype
from structlin.nn.experts import Experts
from structlin.nn.router import Router


class MoeLinear(nn.Module):
    """A router and the linear maps of its experts."""

    def __init__(self, router: Router, experts: Experts) -> None:
        super().__init__()
        self.router, self.experts = router, experts

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        x_TX = x.reshape(-1, x.shape[-1])
        return self.experts(x_TX, self.router(x_TX)).reshape(*x.shape[:-1], -1)

    def is_like(self, other: nn.Module) -> bool:
        """Whether another layer is a mixture of the same sizes, and both keep all assignments."""
        if not isinstance(other, MoeLinear) or self.router.capacity or other.router.capacity:
            return False
        return self.experts.plan == other.experts.plan and self.router.weight.shape == other.router.weight.shape


def each_of(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """What every layer makes of x (..., d_in): (..., d_out) each.

    On a GPU in bfloat16, mixtures of equal sizes take one product, sort and gather where each would take its own: a
    block of GPT-2 has 4 such mixtures then instead of 6. Their outputs are those of one after another but for rounding.
    """
    first, *others = layers
    if not isinstance(first, MoeLinear) or not _joins(first, others, x):
        return [layer(x) for layer in layers]
    mixtures = [other for other in others if isinstance(other, MoeLinear)]
    x_TX = x.reshape(-1, x.shape[-1])
    routes = first.router.with_others([mixture.router for mixture in mixtures], x_TX)
    y_TY = first.experts.with_others([mixture.experts for mixture in mixtures], x_TX, routes)
    return list(y_TY.view(len(layers), *x.shape[:-1], -1).unbind())


def _joins(first: MoeLinear, others: Sequence[nn.Module], x: Tensor) -> bool:
    """Whether mixtures are one: float32 keeps the bits that runs on other devices have, and torch its few groups."""
    if x.device.type != "cuda" or product_dtype(x.device) != torch.bfloat16:
        return False
    fits = first.experts.most_groups() * (1 + len(others)) <= MOST_TORCH_GROUPS
    return fits and all(map(first.is_like, others))


class MoeFfn(nn.Module):
    """A router and the FFNs of its experts: up, GELU, down."""

    def __init__(self, router: Router, up: Experts, down: Experts) -> None:
        super().__init__()
        self.router, self.up, self.down = router, up, down

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_model) -> (..., d_model)."""
        x_TX = x.reshape(-1, x.shape[-1])
        routes = self.router(x_TX)
        if self.up.sizes.dense and self.down.sizes.dense:
            up, down = self.up.stacked(x_TX), self.down.stacked(x_TX)
            if expert_products.choose_path(x_TX) == "chunks":
                return expert_ffn(x_TX.to(up.dtype), up, down, routes).reshape(x.shape)
        hidden_NH = functional.gelu(self.up(x_TX, routes, combines=False))
        return self.down(hidden_NH, routes, gathers=False).reshape(x.shape)
