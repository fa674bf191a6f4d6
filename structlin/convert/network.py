"""How do a matrix and the factors of a plan read as tensors with named axes?

    W[y..., x...] = sum over ranks of the product of all factors, G_k having the axes that join factor k

A matrix (d_out, d_in) is cut or zero-padded to what the factors use (rounding=paper makes sizes whose product is not
the width): of what they add the entries are free, since nobody reads them. Axes of size 1 are left out throughout.
Source: the equation of a plan (structlin/structure/plan.py); derived here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from structlin.nn.linear import fit_features
from structlin.structure import LinearPlan
from structlin.structure.index import Index
from structlin.structure.plan import factor_axes, input_axes

Axes = tuple[Index, ...]
Factors = tuple[Tensor, ...]
"""The factors in their order, each with the present axes of ``Network.axes``."""


@dataclass(frozen=True)
class Network:
    """The axes of a plan's factors and of its matrix."""

    plan: LinearPlan

    @property
    def count(self) -> int:
        """How many factors there are."""
        return self.plan.sizes.num_factors

    @cached_property
    def axes(self) -> tuple[Axes, ...]:
        """The axes of each factor, as its equation has them: outputs, ranks, inputs."""
        return tuple(self._present(factor_axes(self.count, number)) for number in range(1, self.count + 1))

    @cached_property
    def rows(self) -> Axes:
        """The axes of the matrix's rows, the outermost first."""
        return self._present(self.plan.output_axes)

    @cached_property
    def columns(self) -> Axes:
        """The axes of its columns."""
        return self._present(input_axes(self.count))

    @property
    def matrix_axes(self) -> Axes:
        """Rows, then columns."""
        return (*self.rows, *self.columns)

    @cached_property
    def ranks(self) -> Axes:
        """The present ranks."""
        return self._present(index for index, _ in self.plan.sizes.items() if index.side == "r")

    def size(self, axes: Iterable[Index]) -> tuple[int, ...]:
        """The lengths of axes."""
        return tuple(self.plan.sizes[index.name] for index in axes)

    def _present(self, axes: Iterable[Index]) -> Axes:
        return tuple(index for index in axes if self.plan.sizes[index.name] > 1)

    # --- matrices -----------------------------------------------------------------------------------------------------

    def tensor(self, weight: Tensor) -> Tensor:
        """A matrix (d_out, d_in) along ``matrix_axes``: what the factors do not use is cut, what they add is zero."""
        sizes = self.plan.sizes
        used = fit_features(fit_features(weight, sizes.used_in).T, sizes.used_out).T
        return used.reshape(self.size(self.matrix_axes))

    def matrix(self, tensor: Tensor) -> Tensor:
        """The inverse: (d_out, d_in), with zeros for features that no factor reads or writes."""
        sizes = self.plan.sizes
        used = tensor.reshape(sizes.used_out, sizes.used_in)
        return fit_features(fit_features(used, sizes.d_in).T, sizes.d_out).T

    @property
    def has_free_rows(self) -> bool:
        """Whether the factors write features that are cut."""
        return self.plan.sizes.used_out > self.plan.sizes.d_out

    @property
    def has_free_columns(self) -> bool:
        """Whether the factors read zeros that were appended."""
        return self.plan.sizes.used_in > self.plan.sizes.d_in

    # --- factors ------------------------------------------------------------------------------------------------------

    def product(self, factors: Factors) -> Tensor:
        """The tensor of the factors along ``matrix_axes``."""
        return contract(list(zip(factors, self.axes, strict=True)), self.matrix_axes)

    def equation(self, factors: Factors) -> Factors:
        """The factors with all axes of their equations, those of size 1 too, as a layer takes them."""
        shapes = (self.size(factor_axes(self.count, number)) for number in range(1, self.count + 1))
        return tuple(one.reshape(shape) for one, shape in zip(factors, shapes, strict=True))

    def present(self, factors: Sequence[Tensor]) -> Factors:
        """The inverse: the factors of a layer's equation without the axes of size 1."""
        return tuple(one.reshape(self.size(axes)) for one, axes in zip(factors, self.axes, strict=True))


def contract(parts: Sequence[tuple[Tensor, Axes]], kept: Axes) -> Tensor:
    """The product of tensors with named axes, one after another; an axis that nothing later needs is summed."""
    (found, axes), *rest = parts
    if not rest:
        return _einsum([(found, axes)], kept)
    for place, (tensor, own) in enumerate(rest):
        needed = {*kept, *(index for _, later in rest[place + 1 :] for index in later)}
        union = (*axes, *(index for index in own if index not in axes))
        left = kept if place + 1 == len(rest) else tuple(index for index in union if index in needed)
        found, axes = _einsum([(found, axes), (tensor, own)], left), left
    return found


def _einsum(parts: Sequence[tuple[Tensor, Axes]], kept: Axes) -> Tensor:
    numbers: dict[Index, int] = {}
    operands: list[Tensor | list[int]] = []
    for tensor, axes in parts:
        operands += [tensor, [numbers.setdefault(index, len(numbers)) for index in axes]]
    found: Tensor = torch.einsum(*operands, [numbers[index] for index in kept])
    return found


def share_norms(factors: Factors) -> Factors:
    """The same map with equal Frobenius norms: what one factor has more, another has less. Zeros stay as they are."""
    norms = torch.stack([one.norm() for one in factors])
    if not bool((norms > 0).all()):
        return factors
    even = norms.log().mean().exp()
    return tuple(one * (even / norm) for one, norm in zip(factors, norms, strict=True))
