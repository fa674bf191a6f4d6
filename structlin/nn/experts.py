"""What do the experts of a mixture hold? A linear map each, of equal sizes, their factors stacked.

Every expert starts and learns as if it stood alone: initial scale, rate and RMS cap come from its own sizes. So the
experts of a BTT-MoE, which are the rank slices of one block tensor train, have the sizes of rank 1. The cap is each
expert's own, or one for all of them (``LinearOptions.shares_cap``, as published for BTT-MoE).
Source: arXiv 2410.02117, section 5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from structlin.kernels.experts.paths import expert_products
from structlin.kernels.experts.routes import Routes
from structlin.kernels.precision import product_dtype
from structlin.nn.linear import Factored, LinearOptions, fit_features, product_shapes
from structlin.structure import LinearPlan


class Experts(Factored):
    """Linear maps d_in -> d_out of a number of experts, dense or of any two factors."""

    def __init__(self, plan: LinearPlan, num_experts: int, options: LinearOptions) -> None:
        """``plan`` of one expert, of at most two factors; no bias."""
        assert plan.sizes.num_factors <= 2, plan
        assert not options.bias
        super().__init__(plan, options, copies=num_experts)
        if plan.dense:
            self.weight = nn.Parameter(torch.empty(num_experts, plan.sizes.d_out, plan.sizes.d_in))
        else:
            shape_A, shape_B = product_shapes(plan)
            self.A = nn.Parameter(torch.empty(num_experts, *shape_A))
            self.B = nn.Parameter(torch.empty(num_experts, *shape_B))
        self.reset_parameters()

    def forward(self, x: Tensor, routes: Routes, *, gathers: bool = True, combines: bool = True) -> Tensor:
        """Tokens (T, d_in) -> their weighted sums over chosen experts (T, d_out).

        Without ``gathers`` x holds the sorted assignments (N, d_in); without ``combines`` the result does, unweighted.
        """
        first, second = self._products()
        x = fit_features(x, self.sizes.used_in)
        dtype = product_dtype(x.device)
        if dtype is not None:
            x, first, second = x.to(dtype), first.to(dtype), second.to(dtype)
        y = expert_products(x, first, second, self.plan.a_first, routes, gathers=gathers, combines=combines)
        return fit_features(y, self.sizes.d_out)

    def stacked(self, x: Tensor) -> Tensor:
        """The weights of dense experts (E, Y, X), in the dtype of products with x."""
        weight = self.factor("weight")
        return weight.to(product_dtype(x.device) or weight.dtype)

    def _products(self) -> tuple[Tensor, Tensor]:
        """The factors in the order of contraction; a dense weight and nothing."""
        if self.sizes.dense:
            weight = self.factor("weight")
            return weight, weight.new_empty(0)
        A, B = self.factor("A"), self.factor("B")
        return (A, B) if self.plan.a_first else (B, A)
