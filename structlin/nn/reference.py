"""What should a structured layer compute? A slow, obvious reference: one einsum over all factors, and the matrix."""

from __future__ import annotations

import string

import torch
from torch import Tensor

from structlin.nn.linear import Linear, fit_features
from structlin.structure.index import Index, indices
from structlin.structure.plan import factor_axes, input_axes


def reference_forward(layer: Linear, x: Tensor) -> Tensor:
    """x (T, d_in) -> (T, d_out) by one einsum over the input and all factors."""
    s, inputs = layer.sizes, input_axes(layer.sizes.num_factors)
    x_TX = fit_features(x, s.used_in).reshape(-1, *(s[index.name] for index in inputs))
    y = torch.einsum(
        f"T{_spelled(layer, inputs)},{_factors(layer)}->T{_spelled(layer, layer.plan.output_axes)}",
        x_TX,
        *layer.equation_factors(),
    )
    y_TY = fit_features(y.reshape(-1, s.used_out), s.d_out)
    return y_TY if layer.bias is None else y_TY + layer.bias


def reference_matrix(layer: Linear) -> Tensor:
    """W (d_out, d_in) written out element by element from the definition W = sum over ranks of the factors' product."""
    s, inputs = layer.sizes, input_axes(layer.sizes.num_factors)
    output = _spelled(layer, layer.plan.output_axes) + _spelled(layer, inputs)
    W = torch.einsum(f"{_factors(layer)}->{output}", *layer.equation_factors()).reshape(s.used_out, s.used_in)
    return fit_features(fit_features(W, s.d_in).T, s.d_out).T


def _factors(layer: Linear) -> str:
    count = layer.sizes.num_factors
    return ",".join(_spelled(layer, factor_axes(count, number)) for number in range(1, count + 1))


def _spelled(layer: Linear, axes: tuple[Index, ...]) -> str:
    """Letters of axes; T is the rows'."""
    letters = dict(zip(indices(layer.sizes.num_factors), string.ascii_letters.replace("T", ""), strict=False))
    return "".join(letters[index] for index in axes)
