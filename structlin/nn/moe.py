"""Mixtures of experts: a linear layer whose router sends every token to a few of its experts, and such an FFN.

    MoeLinear   y = sum over chosen e of w_e W_e x,  W_e dense, low rank, or a rank slice of a block tensor train
    MoeFfn      y = sum over chosen e of w_e Down_e gelu(Up_e x),  one router for whole FFNs of any structure

Only chosen experts are computed. Source: arXiv 2410.02117, section 5.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from structlin.kernels.experts import paths as expert_products
from structlin.kernels.experts.ffn import expert_ffn
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
