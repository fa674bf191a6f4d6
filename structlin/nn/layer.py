"""What does a stranger put in the place of nn.Linear? ``Linear(d_in, d_out, structure)``: one module, ready to train.

It holds the linear that the models of this project use as its one child, ``map``: there is one implementation of every
structure, and this class adds a shape to ask for, checks of the input, and a repr. Factors start at the spectral scale
(std of a plan's factors) and a bias at zero.

Rates are no part of a layer: structlin/nn/groups.py gives every factor its own.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from structlin.errors import UserError, suggest
from structlin.kernels.precision import product_dtype
from structlin.nn.linear import LinearOptions, make_linear
from structlin.structure import LinearPlan, Theta
from structlin.structure.describe import share
from structlin.structure.words import named_plan

WEIGHT_NORMS = ("none", "fixed", "learned")
# Singular values are found in these; a matrix of another dtype is projected in float32.
_PROJECTED = (torch.float32, torch.float64)


class Linear(nn.Module):
    """A structured linear map y = W x + b on the last dimension: x (..., d_in) -> (..., d_out)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        structure: str | Theta = "btt",
        *,
        bias: bool = False,
        weight_norm: str = "none",
        rounding: str = "exact",
        contraction: str = "cheapest",
        output_order: str | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        **arguments: object,
    ) -> None:
        """``structure``: a name ("btt", "low_rank", ...) or the text of a theta; ``arguments`` of its family beside it:
        rank="d/4" or 64, blocks=4, factors=3, terms=4, cores=3, bond=8.

        ``weight_norm``: cap the RMS of every factor at its first scale (none, fixed, or learned with a scale a factor).
        ``device`` and ``dtype`` as of nn.Linear. ValueError in one line for what is unknown or cannot serve the shape.
        """
        super().__init__()
        if weight_norm not in WEIGHT_NORMS:
            raise UserError(f"unknown weight_norm '{weight_norm}'; {suggest(weight_norm, WEIGHT_NORMS)}")
        plan, self.structure = named_plan(structure, d_in, d_out, rounding, contraction, output_order, arguments)
        self.in_features, self.out_features = plan.sizes.d_in, plan.sizes.d_out
        self.residual: float | None = None
        options = LinearOptions(base_d_in=self.in_features, weight_norm=weight_norm, bias=bool(bias))
        with nullcontext() if device is None else torch.device(device):
            self.map = make_linear(plan, options)
        if dtype is not None:
            self.map.to(dtype)

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls, weight: Tensor, structure: str | Theta = "btt", *, bias: Tensor | None = None, **options: object
    ) -> Linear:
        """The layer nearest to a (d_out, d_in) matrix in Frobenius norm, on its device and in its dtype.

        ``residual`` of the layer is |W - W'| / |W| in that norm: 0 where W has the structure, 1 where nothing is left.
        ``bias``: a vector (d_out,) to copy. ``options`` as of the layer. ValueError for three factors and more (no
        closed form is known), and for a weight without values.
        """
        if weight.dim() != 2 or not weight.is_floating_point():
            raise UserError(
                f"weight is {tuple(weight.shape)} of {weight.dtype}; from_dense takes a (d_out, d_in) matrix"
            )
        if weight.is_meta:
            raise UserError("weight lies on the meta device and has no values; from_dense needs them")
        d_out, d_in = weight.shape
        if bias is not None and bias.shape != (d_out,):
            raise UserError(f"bias is {tuple(bias.shape)}, but the weight has {d_out} rows; write a vector of as many")
        dtype = weight.dtype if weight.dtype in _PROJECTED else torch.float32
        exact = weight.detach().to(dtype)
        layer = cls(d_in, d_out, structure, bias=bias is not None, device=weight.device, dtype=dtype, **options)  # type: ignore[arg-type]
        layer.map.from_dense(exact)
        layer.to(weight.dtype)
        if bias is not None and layer.map.bias is not None:
            layer.map.bias.copy_(bias)
        layer.residual = _distance(exact, layer)
        return layer

    @property
    def plan(self) -> LinearPlan:
        """Equation, sizes, cost and factors; ``print`` shows them beside a dense layer's."""
        return self.map.plan

    @property
    def bias(self) -> nn.Parameter | None:
        """The vector (d_out,) that is added, if there is one."""
        return self.map.bias

    def reset_parameters(self) -> None:
        """Start anew, by torch's own generator; what a module made on the meta device needs after ``to_empty``."""
        self.residual = None
        self.map.reset_parameters()

    def to_dense(self) -> Tensor:
        """The matrix W (d_out, d_in), differentiable; W = weight of the nn.Linear that computes the same."""
        return self.map.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out). ValueError for another width or dtype."""
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise UserError(
                f"the layer {self.in_features} -> {self.out_features} takes {self.in_features} features in the last "
                f"dimension, but the input of shape {tuple(x.shape)} has {x.shape[-1] if x.dim() else 'none'}"
            )
        dtype = next(self.map.parameters()).dtype
        if x.dtype != dtype and product_dtype(x.device) is None:
            raise UserError(
                f"the input is of {x.dtype}, but the layer of {dtype}; convert one of them (x.to, layer.to), or "
                "compute under torch.autocast"
            )
        y: Tensor = self.map(x)
        return y

    def extra_repr(self) -> str:
        """Structure, shape, equation, and what it costs."""
        plan = self.plan
        norm = "" if self.map.weight_norm == "none" else f", weight_norm={self.map.weight_norm}"
        return (
            f"{self.in_features} -> {self.out_features}, {self.structure}, bias={self.bias is not None}{norm}: "
            f"{plan.equation}, rank at most {plan.sizes.rank_bound}, {plan.params:,} weights = "
            f"{share(plan.params, self.in_features * self.out_features)} of dense"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _distance(weight: Tensor, layer: Linear) -> float:
    """|W - W'| / |W|, both norms in float64; 0 for a matrix of zeros that is met."""
    found = layer.to_dense().to(torch.float64)
    wanted = weight.to(torch.float64)
    left, whole = float((wanted - found).norm()), float(wanted.norm())
    return left / whole if whole else (0.0 if left == 0 else math.inf)
