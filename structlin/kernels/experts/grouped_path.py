"""How are the kernels of grouped products called? As those of single layers are (triton_path.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton
from torch import Tensor

from structlin.kernels.blocks import Blocks, Ruled, power_of_two
from structlin.kernels.experts import grouped_kernels
from structlin.kernels.experts.grouped_kernels import Groups
from structlin.kernels.products.triton_path import INTERPRETED, on, precision


def multiply(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """x (N, in), contiguous; weights (G, out, in), of any strides; ends (G,) -> (N, out)."""
    rows, y = x.shape[0], x.new_empty(x.shape[0], weights.shape[1])
    if rows == 0:
        return y

    def grid(chosen: Mapping[str, Any]) -> tuple[int]:
        return (triton.cdiv(rows, chosen["T_B"]) * triton.cdiv(weights.shape[1], chosen["OUT_B"]),)

    with on(x):
        _ruled_products[grid](x, weights, ends, y, rows, **product_constants(weights, rows))
    return y


def gradient(dy: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """Of the weights, (G, out, in), from dy (N, out) and x (N, in), both contiguous."""
    groups, num_out, inner, rows = ends.shape[0], dy.shape[1], x.shape[1], x.shape[0]
    d_weights = x.new_empty(groups, num_out, inner)

    def grid(chosen: Mapping[str, Any]) -> tuple[int, int, int]:
        return groups, triton.cdiv(num_out, chosen["OUT_B"]), triton.cdiv(inner, chosen["IN_B"])

    with on(x):
        _ruled_gradients[grid](dy, x, ends, d_weights, rows, **constants(d_weights, rows))
    return d_weights


def constants(weights: Tensor, rows: int) -> dict[str, Any]:
    """What both kernels are compiled for, but for their blocks."""
    groups, num_out, inner = weights.shape
    return {
        "s": Groups(groups, inner, num_out, *weights.stride()),
        "ROWS_BITS": rows.bit_length(),
        "WIDEN": INTERPRETED,
        "PRECISION": precision(weights.dtype),
    }


def product_constants(weights: Tensor, rows: int) -> dict[str, Any]:
    """The same for ``multiply_groups``."""
    return {**constants(weights, rows), "GROUPS_B": triton.next_power_of_2(weights.shape[0])}


def _blocks(T_B: int, OUT_B: int, IN_B: int, warps: int) -> Blocks:
    return Blocks({"T_B": T_B, "OUT_B": OUT_B, "IN_B": IN_B}, warps, num_stages=3)


# From small to large.
BLOCKS = [
    _blocks(16, 16, 16, 4),
    _blocks(32, 32, 32, 4),
    _blocks(64, 32, 32, 4),
    _blocks(64, 64, 32, 4),
    _blocks(128, 64, 32, 8),
    _blocks(128, 128, 32, 8),
]
# The gradients sum over rows, so what is large for the products is OUT_B by IN_B here.
GRADIENT_BLOCKS = [
    _blocks(16, 16, 16, 4),
    _blocks(32, 32, 32, 4),
    _blocks(32, 64, 32, 4),
    _blocks(32, 64, 64, 4),
    _blocks(32, 128, 64, 8),
    _blocks(32, 128, 128, 8),
]


def choices(blocks: Sequence[Blocks], constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """Of a list the choices to try: those no larger than what they hold, the largest first, and its first."""
    if INTERPRETED:
        return [blocks[2]]
    s = constants["s"]

    def suits(one: Blocks) -> bool:
        wide, deep = power_of_two(s.out), power_of_two(s.inner)
        # Of the products a block is T_B by OUT_B, of the gradients OUT_B by IN_B; groups are longer than any T_B.
        return one.kwargs["OUT_B"] <= max(16, wide) and one.kwargs["IN_B"] <= max(16, deep)

    return [*reversed([one for one in blocks[1:] if suits(one)]), blocks[0]]


def product_choices(constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """The rule of ``multiply_groups``."""
    return choices(BLOCKS, constants, size)


def gradient_choices(constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """The rule of ``weight_gradients``."""
    return choices(GRADIENT_BLOCKS, constants, size)


_ruled_products = Ruled(grouped_kernels.multiply_groups, product_choices)
_ruled_gradients = Ruled(grouped_kernels.weight_gradients, gradient_choices)
