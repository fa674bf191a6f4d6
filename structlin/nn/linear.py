"""The layers: DenseLinear, EinsumLinear for two factors, ChainLinear for three and more. All from a plan.

Letters of two factors (structure/sizes.py): T rows; x[T, g, b, a], A[f, d, r, g, a], B[f, e, r, g, b], y[T, f, e, d].

Every theta of two factors is a block tensor train of sizes (g b, a, f d, e, r) whose first factor is shared over b and
whose second is shared over d. So all of them run as two batched matrix products with rows last, and what lies between
is a view (or as one fused kernel, structlin/kernels):

    z[(g b), (r f d), T] = A[(g b), (r f d), a]  x[(g b), a, T]
    y[f, e, (d T)]       = B[f, e, (g b r)]      z[f, (g b r), (d T)]

The other contraction order is the same with the roles of A and B (and of b and a, d and e) exchanged. Three factors and
more are one batched product a step, in the plan's order. Source: arXiv 2410.02117, section 3; the two-product form, its
cost and the chain derived here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from structlin.kernels.products.face import structured_product
from structlin.nn.guide import Guide
from structlin.nn.normalisation import cap_rms
from structlin.nn.spec import Draw, Module, ParamSpec
from structlin.structure import CATALOG, LinearPlan, Sizes, Theta, plan_theta
from structlin.structure.index import Index
from structlin.structure.plan import factor_axes, input_axes, output_axes


@dataclass(frozen=True)
class LinearOptions:
    """How a linear starts, learns and is kept from growing."""

    base_d_in: float
    """Fan-in at which a dense layer's rate is lr0."""
    starts_at_zero: bool = False
    """Whether the map is zero at first: the factor contracted last is."""
    rate_rule: str = "structure"
    """structure: muP per factor; naive: the dense multiplier for every factor; plain: the rate of everything else."""
    weight_norm: str = "none"
    """RMS cap of every factor: none, fixed or learned."""
    bias: bool = False
    """Whether a vector is added to the output."""
    shares_cap: bool = False
    """Of stacked maps: whether all have one RMS cap a factor, and one scale where it is learned."""
    init: str = "spectral"
    """spectral: every factor by its own fans; fixed: all N(0, init_std); orthonormal: the blocks of every factor with
    orthonormal rows or columns; svd: the two factors nearest to a weight N(0, init_std)."""
    init_std: float = 0.02
    rate: float = 1.0
    """Learning rate of all its parameters over that of their rules."""


class Factored(Module):
    """The specs of a linear map's factors, and the factors as they are used."""

    def __init__(self, plan: LinearPlan, options: LinearOptions, copies: int | None = None) -> None:
        """``copies``: how many maps are stacked along a first dimension of every factor; None: one, alone."""
        super().__init__()
        self.plan, self.options = plan, options
        # A dense weight is never capped: weight normalisation is for factors.
        self.weight_norm = "none" if plan.dense else options.weight_norm
        self.copies = copies
        # A cap each, along the first dimension of a factor.
        self._caps = None if options.shares_cap else copies
        self._stds = {factor.name: factor.std for factor in plan.factors}
        self._specs: dict[str, ParamSpec] = {}
        for factor in plan.factors:
            zero = options.starts_at_zero and factor.is_last
            rate = options.rate * factor.adam_multiplier(options.base_d_in, options.rate_rule)
            std = factor.std if options.init == "spectral" else options.init_std
            is_orthonormal = options.init == "orthonormal" and not plan.dense and not zero
            blocks = (factor.fan_out, factor.fan_in) if is_orthonormal else None
            self._specs[factor.name] = ParamSpec("factor", 0.0 if zero else std, rate, blocks=blocks)
            if self.weight_norm == "learned":
                ones = torch.ones(()) if self._caps is None else torch.ones(self._caps)
                self.register_parameter(f"scale_{factor.name}", nn.Parameter(ones))
                self._specs[f"scale_{factor.name}"] = ParamSpec("scale", 0.0, options.rate, mean=1.0)

    @property
    def sizes(self) -> Sizes:
        """The integer sizes of one map."""
        return self.plan.sizes

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """Specs of the factors and, where there are any, of their scales and of the bias."""
        return self._specs

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every parameter from its spec by torch's own generator: a layer is never made without a start."""
        for name, spec in self._specs.items():
            parameter = getattr(self, name)
            if spec.blocks is None:
                spec.start(parameter.normal_(0.0, 1.0))
            elif not parameter.is_meta:
                parameter.copy_(spec.start(torch.randn(parameter.shape, dtype=torch.float64)))
        if not next(self.parameters()).is_meta:
            self.start_together(lambda _, shape: torch.randn(tuple(shape), dtype=torch.float64))

    def factor(self, name: str) -> Tensor:
        """A factor as it is used: normalised, each copy on its own or all as one, where weight normalisation asks."""
        raw: Tensor = getattr(self, name)
        if self.weight_norm == "none":
            return raw
        scale = getattr(self, f"scale_{name}") if self.weight_norm == "learned" else None
        return cap_rms(raw, self._stds[name], scale, stacked=self._caps is not None)


class Linear(Factored, ABC):
    """A linear map d_in -> d_out, with a bias where asked for, as its factors and their specs."""

    bias: nn.Parameter | None

    def __init__(self, plan: LinearPlan, options: LinearOptions) -> None:
        super().__init__(plan, options)
        # Plain numbers: a compiler that traces a forward pass then meets no cached function of the plan.
        sizes = plan.sizes
        self.d_in, self.d_out, self.used_in, self.used_out = sizes.d_in, sizes.d_out, sizes.used_in, sizes.used_out
        shapes = dict(zip((factor.name for factor in plan.factors), self._shapes(), strict=True))
        # Registered by name, whatever the order of contraction: sums over all parameters then have one order.
        for name in sorted(shapes):
            self.register_parameter(name, nn.Parameter(torch.empty(shapes[name])))
        self.register_parameter("bias", nn.Parameter(torch.empty(plan.sizes.d_out)) if options.bias else None)
        if options.bias:
            self._specs["bias"] = ParamSpec("bias", 0.0, options.rate)
        self.guide: Guide | None = None
        self.reset_parameters()

    @abstractmethod
    def _shapes(self) -> Sequence[tuple[int, ...]]:
        """Shapes of the factors as they are stored, in the order of contraction."""

    @abstractmethod
    def equation_factors(self) -> tuple[Tensor, ...]:
        """The factors as the equation names them: outputs, ranks, inputs, as in A (f, d, r, g, a)."""

    @abstractmethod
    def mapped(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """The factors' map of x (..., d_in), or of its GELU: (..., d_out), without guide and bias."""

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """x (..., d_in), or its GELU, -> (..., d_out)."""
        y = self.mapped(x, gelu=gelu)
        if self.guide is not None:
            y = self.guide(functional.gelu(x) if gelu else x, y)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    @torch.no_grad()
    def take_guide(self) -> None:
        """Hold a dense matrix beside the factors that is their map, and learns as a dense layer does."""
        fan_in, rule = self.options.base_d_in, self.options.rate_rule
        dense = plan_theta(Theta.parse(CATALOG["dense"]), self.d_in, self.d_out)
        self.guide = Guide(self.to_dense().contiguous(), dense.factors[0].adam_multiplier(fan_in, rule))

    @abstractmethod
    def take_factors(self, factors: Sequence[Tensor]) -> None:
        """Hold these factors, whose axes are those of ``equation_factors``, as the raw weights."""

    def to_dense(self) -> Tensor:
        """The matrix W with y = W x (+ bias) of the factors, of shape (d_out, d_in)."""
        weights = self.factor(self.plan.factors[0].name)
        return self.mapped(torch.eye(self.sizes.d_in, dtype=weights.dtype, device=weights.device)).T

    @abstractmethod
    def from_dense(self, weight: Tensor) -> Tensor:
        """Take the map nearest to a (d_out, d_in) matrix; returns the squared residual, a scalar tensor."""


class DenseLinear(Linear):
    """One d_out x d_in weight."""

    weight: nn.Parameter

    def _shapes(self) -> Sequence[tuple[int, ...]]:
        return [(self.sizes.d_out, self.sizes.d_in)]

    def mapped(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """x (..., d_in), or its GELU, -> (..., d_out)."""
        return functional.linear(functional.gelu(x) if gelu else x, self.weight)

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """The same with the bias, in one product."""
        return functional.linear(functional.gelu(x) if gelu else x, self.weight, self.bias)

    def equation_factors(self) -> tuple[Tensor, ...]:
        """The weight."""
        return (self.weight,)

    @torch.no_grad()
    def take_factors(self, factors: Sequence[Tensor]) -> None:
        """Copy the weight."""
        self.weight.copy_(factors[0])

    @torch.no_grad()
    def from_dense(self, weight: Tensor) -> Tensor:
        """Copy the matrix; the residual is zero."""
        self.weight.copy_(weight)
        return torch.zeros((), dtype=weight.dtype)


class EinsumLinear(Linear):
    """Any two-factor einsum, contracted in the plan's order."""

    A: nn.Parameter
    B: nn.Parameter

    def __init__(self, plan: LinearPlan, options: LinearOptions) -> None:
        super().__init__(plan, options)
        self._order = tuple(factor.name for factor in plan.factors)
        self._reordered = (plan.sizes.f, plan.sizes.e, plan.sizes.d) if plan.output_order == "efd" else None
        self.leading: int | None = None
        """Of its ranks so many compute, the first ones; None: all."""

    def take_ranks(self, share: Fraction) -> None:
        """Compute with the first ranks alone, this share of all. ValueError where that is no whole number."""
        ranks = share * self.sizes.r
        if ranks.denominator != 1 or not 0 < ranks <= self.sizes.r:
            raise ValueError(f"{share} of rank {self.sizes.r} is no whole rank")
        self.leading = None if share == 1 else int(ranks)

    def _shapes(self) -> Sequence[tuple[int, ...]]:
        shape_A, shape_B = product_shapes(self.plan)
        return (shape_A, shape_B) if self.plan.a_first else (shape_B, shape_A)

    def mapped(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """x (..., d_in), or its GELU, -> (..., d_out)."""
        x_TG = fit_features(x.reshape(-1, self.d_in), self.used_in)
        first, second = (self.factor(name) for name in self._order)
        if self.leading is not None:
            first, second = first[:, : self.leading].contiguous(), second[..., : self.leading].contiguous()
        y_TF = structured_product(x_TG, first, second, self._order[0] == "A", gelu)
        if self._reordered is not None:
            y_TF = y_TF.reshape(-1, *self._reordered).transpose(1, 2).reshape(-1, self.used_out)
        return fit_features(y_TF, self.d_out).reshape(*x.shape[:-1], self.d_out)

    def equation_factors(self) -> tuple[Tensor, ...]:
        """A (f, d, r, g, a) and B (f, e, r, g, b)."""
        A, B = self.factor("A"), self.factor("B")
        if self.plan.a_first:
            return A.permute(2, 3, 1, 0, 4), B.permute(0, 1, 4, 2, 3)
        return A.permute(0, 1, 4, 2, 3), B.permute(2, 3, 1, 0, 4)

    @torch.no_grad()
    def take_factors(self, factors: Sequence[Tensor]) -> None:
        """Copy A (f, d, r, g, a) and B (f, e, r, g, b)."""
        A, B = factors
        self._set_factors(A.permute(0, 3, 4, 1, 2), B.permute(0, 3, 4, 1, 2))

    @torch.no_grad()
    def from_dense(self, weight: Tensor) -> Tensor:
        """Best Frobenius approximation of a (d_out, d_in) matrix; returns the squared residual |W - to_dense()|^2.

        For each block (g, f) the matrix is rearranged to (a d) x (b e) and truncated at rank r: the residual is the
        sum of the dropped squared singular values. Where rounding=paper appends zeros these are approximated too, so
        that what is left is then near the best only. Monarch's analytic projection (arXiv 2204.00595) is r = 1. The
        spectral norm is shared evenly by the two factors.
        """
        self._take(weight)
        return (weight - self.to_dense()).square().sum()

    @torch.no_grad()
    def start_together(self, draw: Draw) -> None:
        """Under init=svd: the factors nearest to the weight with which the dense layer of this name would start."""
        if self.options.init != "svd":
            return
        self._take(draw("weight", (self.d_out, self.d_in)).mul_(self.options.init_std))
        if self.options.starts_at_zero:
            getattr(self, self.plan.factors[-1].name).zero_()

    def _take(self, weight: Tensor) -> None:
        """Set the factors to those nearest to a (d_out, d_in) matrix."""
        s = self.sizes
        used = fit_features(fit_features(weight, s.used_in).T, s.used_out).T
        if self.plan.output_order == "efd":
            used = used.reshape(s.e, s.f, s.d, s.used_in).transpose(0, 1)
        blocks = used.reshape(s.f, s.e, s.d, s.g, s.b, s.a).permute(0, 3, 5, 2, 4, 1)
        blocks = blocks.reshape(s.f, s.g, s.a * s.d, s.b * s.e)
        U, S, V = torch.linalg.svd(blocks, full_matrices=False)
        kept = min(s.r, S.shape[-1])
        root = S[..., :kept].sqrt()
        A = weight.new_zeros(s.f, s.g, s.a, s.d, s.r)
        B = weight.new_zeros(s.f, s.g, s.b, s.e, s.r)
        A[..., :kept] = (U[..., :kept] * root[..., None, :]).reshape(s.f, s.g, s.a, s.d, kept)
        B[..., :kept] = (V[..., :kept, :].mT * root[..., None, :]).reshape(s.f, s.g, s.b, s.e, kept)
        self._set_factors(A, B)

    def _set_factors(self, A: Tensor, B: Tensor) -> None:
        """Store A (f, g, a, d, r) and B (f, g, b, e, r) in the layout of the products."""
        if self.plan.a_first:
            self.A.copy_(A.permute(1, 4, 0, 3, 2))
            self.B.copy_(B.permute(0, 3, 1, 2, 4))
        else:
            self.A.copy_(A.permute(0, 3, 1, 2, 4))
            self.B.copy_(B.permute(1, 4, 0, 3, 2))


@dataclass(frozen=True)
class Hop:
    """What a factor of a chain does: what it reads is brought into another order, and one batched product made."""

    name: str
    reads: tuple[int, ...]
    """Lengths of the axes that there are, without the rows."""
    turn: tuple[int, ...]
    """Permutes them, rows last, to (indices kept, indices that end, indices that pass by)."""
    matrices: tuple[int, int, int]
    """B matrices of N outputs and C inputs."""
    leaves: tuple[int, ...]

    def order(self) -> NDArray[np.int64]:
        """Which feature, of those there are, each one that the product reads is."""
        return _order(self.reads, self.turn)


class ChainLinear(Linear):
    """Three factors and more: one batched product a step, rows last.

    A factor is stored as (indices kept with z, indices it brings, indices that end), which the product reads as a batch
    of matrices; what passes by stands with the rows.
    """

    def __init__(self, plan: LinearPlan, options: LinearOptions) -> None:
        super().__init__(plan, options)
        axes = input_axes(plan.sizes.num_factors)
        reads = self._lengths(axes)
        self.hops: list[Hop] = []
        for factor in plan.factors:
            step = factor.step
            batch, new, contracted, passing = map(self._lengths, (step.batch, step.new, step.contracted, step.passing))
            matrices = math.prod(batch), math.prod(new), math.prod(contracted)
            turn = _permutation(axes, (*step.batch, *step.contracted, *step.passing))
            self.hops.append(Hop(factor.name, reads, turn, matrices, (*batch, *new, *passing)))
            reads = self.hops[-1].leaves
            axes = (*step.batch, *step.new, *step.passing)
        self._last_turn = _permutation(axes, output_axes(plan.sizes.num_factors))

    def _shapes(self) -> Sequence[tuple[int, ...]]:
        steps = [factor.step for factor in self.plan.factors]
        return [self._lengths((*step.batch, *step.new, *step.contracted)) for step in steps]

    def mapped(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """x (..., d_in), or its GELU, -> (..., d_out)."""
        x = functional.gelu(x) if gelu else x
        x_TX = fit_features(x.reshape(-1, self.d_in), self.used_in)
        rows = x_TX.shape[0]
        z = x_TX.t().reshape(*self.hops[0].reads, rows)
        for hop in self.hops:
            B, N, C = hop.matrices
            z_BCP = z.permute(hop.turn).reshape(B, C, -1)
            z = torch.bmm(self.factor(hop.name).reshape(B, N, C), z_BCP).view(*hop.leaves, rows)
        y_TF = z.permute(self._last_turn).reshape(self.used_out, rows).t()
        return fit_features(y_TF, self.d_out).reshape(*x.shape[:-1], self.d_out)

    def outputs(self) -> NDArray[np.int64]:
        """Which feature, of those that the last factor leaves, each output is."""
        return _order(self.hops[-1].leaves, self._last_turn)

    def equation_factors(self) -> tuple[Tensor, ...]:
        """G1, G2, ...: each with its outputs, ranks and inputs (structure/plan.py, ``factor_axes``)."""
        found = {}
        for factor in self.plan.factors:
            step = factor.step
            own = (*step.batch, *step.new, *step.contracted)
            order = [own.index(axis) for axis in factor_axes(self.sizes.num_factors, step.number)]
            found[step.number] = self.factor(factor.name).permute(order)
        return tuple(found[number] for number in sorted(found))

    @torch.no_grad()
    def take_factors(self, factors: Sequence[Tensor]) -> None:
        """Copy G1, G2, ... of the equation."""
        for factor in self.plan.factors:
            step = factor.step
            named = factor_axes(self.sizes.num_factors, step.number)
            order = [named.index(axis) for axis in (*step.batch, *step.new, *step.contracted)]
            getattr(self, factor.name).copy_(factors[step.number - 1].permute(order))

    def from_dense(self, weight: Tensor) -> Tensor:
        """ValueError: no closed form is known for the nearest map of three factors and more."""
        raise ValueError(
            f"the nearest map of {self.sizes.num_factors} factors has no closed form; take a structure of two factors"
        )

    def _lengths(self, axes: Sequence[Index]) -> tuple[int, ...]:
        return tuple(self.sizes[index.name] for index in axes)


def _permutation(axes: Sequence[Index], wanted: Sequence[Index]) -> tuple[int, ...]:
    """What brings a tensor (*axes, T) into another order of its axes."""
    return (*(axes.index(index) for index in wanted), len(axes))


def _order(lengths: tuple[int, ...], turn: tuple[int, ...]) -> NDArray[np.int64]:
    """Where each feature of a turned tensor was before; the turn's last axis is the rows."""
    return np.arange(math.prod(lengths)).reshape(lengths).transpose(turn[:-1]).ravel()


def product_shapes(plan: LinearPlan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B as the products read them: the first contracted is (g, r, out, in), the second (out, in, r)."""
    s = plan.sizes
    if plan.a_first:
        return (s.g, s.r, s.f, s.d, s.a), (s.f, s.e, s.g, s.b, s.r)
    return (s.f, s.d, s.g, s.a, s.r), (s.g, s.r, s.f, s.e, s.b)


def of_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(GELU(x)), by a kernel that never writes GELU(x) where the layer has one."""
    y: Tensor = layer(x, gelu=True) if isinstance(layer, Linear) else layer(functional.gelu(x))
    return y


def make_linear(plan: LinearPlan, options: LinearOptions) -> Linear:
    """The layer of a plan: dense, two factors, or a chain of more."""
    kinds: dict[int, type[Linear]] = {1: DenseLinear, 2: EinsumLinear}
    return kinds.get(plan.sizes.num_factors, ChainLinear)(plan, options)


def fit_features(x: Tensor, features: int) -> Tensor:
    """Cut or zero-pad the last dimension; rounding=paper makes sizes whose product is not the width."""
    surplus = x.shape[-1] - features
    if surplus > 0:
        return x[..., :features]
    return functional.pad(x, (0, -surplus)) if surplus < 0 else x
