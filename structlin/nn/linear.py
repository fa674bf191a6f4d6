"""The layers: one EinsumLinear for every theta, and DenseLinear.

Letters (structure/sizes.py): T rows; x[T, g, b, a], A[f, d, r, g, a], B[f, e, r, g, b], y[T, f, e, d].

Every theta is a block tensor train of sizes (g b, a, f d, e, r) whose first factor is shared over b and whose second
is shared over d. So all of them run as two batched matrix products with rows last, and what lies between is a view
(or as one fused kernel, nn/kernels):

    z[(g b), (r f d), T] = A[(g b), (r f d), a]  x[(g b), a, T]
    y[f, e, (d T)]       = B[f, e, (g b r)]      z[f, (g b r), (d T)]

The other contraction order is the same with the roles of A and B (and of b and a, d and e) exchanged.
Source: arXiv 2410.02117, section 3; the two-product form and its cost derived here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.kernels.products.face import structured_product
from structlin.nn.normalisation import cap_rms
from structlin.nn.spec import Module, ParamSpec
from structlin.structure import Sizes
from structlin.structure.cost import a_first
from structlin.structure.scaling import FactorScale, factor_scales


class Factored(Module):
    """The specs of a linear map's factors, and the factors as they are used."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        base_d_in: int,
        starts_at_zero: bool = False,
        rate_rule: str = "structure",
        weight_norm: str = "none",
        copies: int | None = None,
    ) -> None:
        """``base_d_in``: fan-in at which a dense layer's rate is lr0. ``weight_norm``: none, fixed or learned.

        ``copies``: how many maps of these sizes are stacked along a first dimension of every factor; None: one, alone.
        """
        super().__init__()
        self.sizes = sizes
        # A dense weight is never capped: weight normalisation is for factors.
        self.weight_norm = "none" if sizes.dense else weight_norm
        self.copies = copies
        self.scales = factor_scales(sizes)
        self._specs: dict[str, ParamSpec] = {}
        for scale in self.scales:
            zero = starts_at_zero and scale.is_last
            rate = scale.adam_multiplier(base_d_in, rate_rule)
            self._specs[scale.name] = ParamSpec("factor", 0.0 if zero else scale.std, rate, decay=True)
            if self.weight_norm == "learned":
                ones = torch.ones(()) if copies is None else torch.ones(copies)
                self.register_parameter(f"scale_{scale.name}", nn.Parameter(ones))
                self._specs[f"scale_{scale.name}"] = ParamSpec("scale", 0.0, mean=1.0)

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """Specs of the factors and, with learned weight normalisation, of their scales."""
        return self._specs

    def factor(self, name: str) -> Tensor:
        """A factor as it is used: normalised, each copy on its own, where weight normalisation asks for it."""
        raw: Tensor = getattr(self, name)
        if self.weight_norm == "none":
            return raw
        scale = getattr(self, f"scale_{name}") if self.weight_norm == "learned" else None
        return cap_rms(raw, self._scale(name).std, scale, stacked=self.copies is not None)

    def _scale(self, name: str) -> FactorScale:
        return next(scale for scale in self.scales if scale.name == name)


class Linear(Factored):
    """A linear map d_in -> d_out without bias, as its factors and their specs."""

    def to_dense(self) -> Tensor:
        """The matrix W with y = W x, of shape (d_out, d_in)."""
        weights = self.factor(self.scales[0].name)
        identity = torch.eye(self.sizes.d_in, dtype=weights.dtype, device=weights.device)
        return self(identity).T


class DenseLinear(Linear):
    """One d_out x d_in weight."""

    def __init__(self, sizes: Sizes, **options: object) -> None:
        super().__init__(sizes, **options)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.zeros(sizes.d_out, sizes.d_in))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        return functional.linear(x, self.weight)

    @torch.no_grad()
    def from_dense(self, weight: Tensor) -> Tensor:
        """Copy the matrix; the residual is zero."""
        self.weight.copy_(weight)
        return torch.zeros((), dtype=weight.dtype)


class EinsumLinear(Linear):
    """Any two-factor einsum, contracted in the cheaper order."""

    def __init__(self, sizes: Sizes, **options: object) -> None:
        super().__init__(sizes, **options)  # type: ignore[arg-type]
        self.a_first = a_first(sizes)
        shape_A, shape_B = product_shapes(sizes)
        self.A = nn.Parameter(torch.zeros(shape_A))
        self.B = nn.Parameter(torch.zeros(shape_B))

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """x (..., d_in), or its GELU, -> (..., d_out)."""
        s = self.sizes
        x_TG = fit_features(x.reshape(-1, s.d_in), s.used_in)
        A, B = self.factor("A"), self.factor("B")
        first, second = (A, B) if self.a_first else (B, A)
        y = fit_features(structured_product(x_TG, first, second, self.a_first, gelu), s.d_out)
        return y.reshape(*x.shape[:-1], s.d_out)

    def equation_factors(self) -> tuple[Tensor, Tensor]:
        """The factors as the equation names them: A (f, d, r, g, a) and B (f, e, r, g, b)."""
        A, B = self.factor("A"), self.factor("B")
        if self.a_first:
            return A.permute(2, 3, 1, 0, 4), B.permute(0, 1, 4, 2, 3)
        return A.permute(0, 1, 4, 2, 3), B.permute(2, 3, 1, 0, 4)

    @torch.no_grad()
    def from_dense(self, weight: Tensor) -> Tensor:
        """Best Frobenius approximation of a (d_out, d_in) matrix; returns the squared residual |W - to_dense()|^2.

        For each block (g, f) the matrix is rearranged to (a d) x (b e) and truncated at rank r: the residual is the
        sum of the dropped squared singular values. Where rounding=paper appends zeros these are approximated too, so
        that what is left is then near the best only. Monarch's analytic projection (arXiv 2204.00595) is r = 1. The
        spectral norm is shared evenly by the two factors.
        """
        s = self.sizes
        used = fit_features(fit_features(weight, s.used_in).T, s.used_out).T
        blocks = used.reshape(s.f, s.e, s.d, s.g, s.b, s.a).permute(0, 3, 5, 2, 4, 1)
        blocks = blocks.reshape(s.f, s.g, s.a * s.d, s.b * s.e)
        U, S, V = torch.linalg.svd(blocks, full_matrices=False)
        kept = min(s.r, S.shape[-1])
        root = S[..., :kept].sqrt()
        A = torch.zeros(s.f, s.g, s.a, s.d, s.r, dtype=weight.dtype)
        B = torch.zeros(s.f, s.g, s.b, s.e, s.r, dtype=weight.dtype)
        A[..., :kept] = (U[..., :kept] * root[..., None, :]).reshape(s.f, s.g, s.a, s.d, kept)
        B[..., :kept] = (V[..., :kept, :].mT * root[..., None, :]).reshape(s.f, s.g, s.b, s.e, kept)
        self._set_factors(A, B)
        return (weight - self.to_dense()).square().sum()

    def _set_factors(self, A: Tensor, B: Tensor) -> None:
        """Store A (f, g, a, d, r) and B (f, g, b, e, r) in the layout of the products."""
        if self.a_first:
            self.A.copy_(A.permute(1, 4, 0, 3, 2))
            self.B.copy_(B.permute(0, 3, 1, 2, 4))
        else:
            self.A.copy_(A.permute(0, 3, 1, 2, 4))
            self.B.copy_(B.permute(1, 4, 0, 3, 2))


def product_shapes(sizes: Sizes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B as the products read them: the first contracted is (g, r, out, in), the second (out, in, r)."""
    s = sizes
    if a_first(s):
        return (s.g, s.r, s.f, s.d, s.a), (s.f, s.e, s.g, s.b, s.r)
    return (s.f, s.d, s.g, s.a, s.r), (s.g, s.r, s.f, s.e, s.b)


def of_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """layer(GELU(x)), by a kernel that never writes GELU(x) where the layer has one."""
    y: Tensor = layer(x, gelu=True) if isinstance(layer, EinsumLinear) else layer(functional.gelu(x))
    return y


def make_linear(sizes: Sizes, **options: object) -> DenseLinear | EinsumLinear:
    """The layer of these sizes: dense where the structure is dense."""
    return DenseLinear(sizes, **options) if sizes.dense else EinsumLinear(sizes, **options)


def fit_features(x: Tensor, features: int) -> Tensor:
    """Cut or zero-pad the last dimension; rounding=paper makes sizes whose product is not the width."""
    surplus = x.shape[-1] - features
    if surplus > 0:
        return x[..., :features]
    return functional.pad(x, (0, -surplus)) if surplus < 0 else x
