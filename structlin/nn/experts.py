"""What do the experts of a mixture hold? A linear map each, of equal sizes, their factors stacked.

Every expert starts and learns as if it stood alone: initial scale, rate and RMS cap come from its own sizes. So the
experts of a BTT-MoE, which are the rank slices of one block tensor train, have the sizes of rank 1. The cap is each
expert's own, or one for all of them (``LinearOptions.shares_cap``, as published for BTT-MoE).
Source: arXiv 2410.02117, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

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
        return self._mapped(x, self._products(x), routes, gathers=gathers, combines=combines)

    def with_others(self, others: Sequence[Experts], x: Tensor, routes: Routes) -> Tensor:
        """Tokens (T, d_in) through these experts and others of the same plan, as one mixture: (R T, d_out).

        ``routes`` are those of R routers that have chosen at once.
        """
        every = [one._products(x) for one in (self, *others)]
        first, second = (torch.cat(several) for several in zip(*every, strict=True))
        return self._mapped(x, (first, second), routes)

    def most_groups(self) -> int:
        """Groups of the larger of its grouped products: an expert's blocks, of all experts."""
        if self.sizes.dense:
            return len(self.weight)
        return len(self.A) * max(self.A.shape[1], self.B.shape[1])

    def stacked(self, x: Tensor) -> Tensor:
        """The weights of dense experts (E, Y, X), in the dtype of products with x."""
        weight = self.factor("weight")
        return weight.to(product_dtype(x.device) or weight.dtype)

    def _mapped(
        self, x: Tensor, products: tuple[Tensor, Tensor], routes: Routes, *, gathers: bool = True, combines: bool = True
    ) -> Tensor:
        x = fit_features(x, self.sizes.used_in).to(products[0].dtype)
        y = expert_products(x, *products, self.plan.a_first, routes, gathers=gathers, combines=combines)
        return fit_features(y, self.sizes.d_out)

    def _products(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The factors in the order of contraction, or a dense weight and nothing, in the dtype of products with x."""
        dtype = product_dtype(x.device)
        if self.sizes.dense:
            weight = self.factor("weight")
            first, second = weight, weight.new_empty(0)
        else:
            A, B = self.factor("A"), self.factor("B")
            first, second = (A, B) if self.plan.a_first else (B, A)
        return (first, second) if dtype is None else (first.to(dtype), second.to(dtype))
