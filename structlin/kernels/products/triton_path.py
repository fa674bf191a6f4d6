"""How are the GPU's kernels called? With sizes as constants, and blocks by a rule of sizes (kernels/blocks.py).

Gradients of the factors are summed over shares of the rows and then over the shares, without atomics, and blocks follow
from sizes alone: so equal inputs give equal bits on GPUs of one model. Under Triton's interpreter (TRITON_INTERPRET=1)
the same kernels run on a CPU, with one choice of blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from structlin.kernels.blocks import Blocks, Ruled, power_of_two
from structlin.kernels.limits import gpu_form
from structlin.kernels.products import triton_kernels
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.triton_kernels import Layout

INTERPRETED = bool(triton.knobs.runtime.interpret)
# The least inner size of a product on tensor cores.
LEAST_INNER = 16
# The largest F, a and e of a layer of rank 1 whose gradients are one kernel: width 1,024.
LARGEST_WHOLE = 32
# Programs that fill a GPU of 132 multiprocessors twice, and the fewest rows that are worth a share (assumed).
BUSY_PROGRAMS, LEAST_SHARE = 264, 512
# Groups of a block in the smallest choice for the gradients.
LEAST_GROUPS = 4
# Float32 accumulators a thread may hold, by bytes of an operand: above, compiling for compute capability 9.0 takes up
# to a minute and spills kilobytes of registers.
THREAD_ACCUMULATORS = {2: 160, 4: 96}


def fuses(sizes: ProductSizes) -> bool:
    """Whether both products run as one kernel, which can also do what is faster as one dense product."""
    return gpu_form(sizes) != "pair"


def forward(x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor:
    """x (T, used_in) -> (T, used_out); all contiguous."""
    y = x.new_empty(x.shape[0], sizes.used_out)
    _map(x, first, second, y, layout(sizes))
    return y


def backward(
    dy: Tensor, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes, needs_x: bool, needs_factors: bool
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x and of both factors (None where not needed); z and its gradient are made again."""
    if needs_x and needs_factors and is_whole(sizes) and x.shape[0]:
        written = torch.empty_like(x)
        return written, *_factor_gradients(dy, x, first, second, sizes, written)
    dx = None
    if needs_x:
        dx = torch.empty_like(x)
        _map(dy, second, first, dx, exchanged(layout(sizes)))
    return dx, *(_factor_gradients(dy, x, first, second, sizes) if needs_factors else (None, None))


def is_whole(sizes: ProductSizes) -> bool:
    """Whether one kernel makes all three gradients: x and dy are then read once (rank 1, widths up to 1,024)."""
    s = sizes
    return s.r == 1 and max(s.f * s.d, s.a, s.e) <= LARGEST_WHOLE


def layout(sizes: ProductSizes) -> Layout:
    """Sizes and strides of the forward pass; the tensors are contiguous."""
    s = sizes
    G, F = s.g * s.b, s.f * s.d
    sizes_of_both = (G, s.b, s.a, s.r, F, s.d, s.e)
    x_T_g_b_a = (s.used_in, s.b * s.a, *((s.a, 1) if s.a_first else (1, s.b)))
    first_g_r_F_a = (s.r * F * s.a, F * s.a, s.a, 1)
    second_f_G_r_e = (s.e * G * s.r, s.r, 1, G * s.r)
    y_T_f_d_e = (s.used_out, s.d * s.e, *((1, s.d) if s.a_first else (s.e, 1)))
    return Layout(*sizes_of_both, *x_T_g_b_a, *first_g_r_F_a, *second_f_G_r_e, *y_T_f_d_e)


def exchanged(s: Layout) -> Layout:
    """The same product from y to x: in and out, and both factors, change their roles."""
    sizes_of_both = (s.F, s.d, s.e, s.r, s.G, s.b, s.a)
    first_g_r_F_a = (s.second_f, s.second_r, s.second_G, s.second_e)
    second_f_G_r_e = (s.first_g, s.first_F, s.first_r, s.first_a)
    y_T_f_d_e, x_T_g_b_a = (s.x_T, s.x_g, s.x_b, s.x_a), (s.y_T, s.y_f, s.y_d, s.y_e)
    return Layout(*sizes_of_both, *x_T_g_b_a, *first_g_r_F_a, *second_f_G_r_e, *y_T_f_d_e)


# ---- launches -------------------------------------------------------------------------------------------------------


def _map(x: Tensor, first: Tensor, second: Tensor, y: Tensor, s: Layout) -> None:
    """y of x; nothing where there are no rows."""
    rows = x.shape[0]
    if rows == 0:
        return

    def grid(chosen: Mapping[str, Any]) -> tuple[int]:
        return (triton.cdiv(rows, chosen["T_B"]) * triton.cdiv(s.F, chosen["F_B"]),)

    with on(x):
        _ruled_map[grid](x, first, second, y, rows, **map_constants(s, x.dtype, rows))


def _factor_gradients(
    dy: Tensor, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes, dx: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gradients of both factors: of each share of the rows, then summed over the shares and over what is shared.

    ``dx``: where the gradient of x is written with them.
    """
    s, c, rows = layout(sizes), sizes, x.shape[0]
    shares, share = split_rows(rows, s)
    d_first = x.new_empty(shares, c.g, c.b, c.r, c.f, c.d, c.a, dtype=torch.float32)
    d_second = x.new_empty(shares, c.f, c.d, c.e, c.g, c.b, c.r, dtype=torch.float32)

    def grid(chosen: Mapping[str, Any]) -> tuple[int, int, int]:
        G_B = chosen["K_B"] // chosen["R_B"]
        blocks_of_K = triton.cdiv(s.G, G_B) * triton.cdiv(s.r, chosen["R_B"])
        return blocks_of_K, triton.cdiv(s.F, chosen["F_B"]), shares

    with on(x):
        if dx is None:
            constants = gradient_constants(s, x.dtype, rows)
            _ruled_gradients[grid](x, dy, first, second, d_first, d_second, rows, share, **constants)
        else:
            constants = whole_constants(s, x.dtype, rows)
            _ruled_whole[grid](x, dy, first, second, dx, d_first, d_second, rows, share, **constants)
    return d_first.sum((0, 2)).to(first.dtype), d_second.sum((0, 2)).to(second.dtype)


def split_rows(rows: int, s: Layout) -> tuple[int, int]:
    """Number of shares and rows of each (but the last, which may have fewer): a function of sizes alone."""
    blocks = triton.cdiv(s.G * s.r, LEAST_INNER) * triton.cdiv(s.F, LEAST_INNER)
    shares = max(1, min(triton.cdiv(BUSY_PROGRAMS, blocks), rows // LEAST_SHARE))
    share = triton.cdiv(triton.cdiv(rows, shares), 64) * 64
    return max(1, triton.cdiv(rows, share)) if share else 1, share


def on(tensor: Tensor) -> torch.cuda.device | torch.cuda.device_of:
    """Kernels are launched on the current device: make it the tensor's."""
    return torch.cuda.device_of(tensor)


# ---- constants and blocks -------------------------------------------------------------------------------------------


def map_constants(s: Layout, dtype: torch.dtype, rows: int) -> dict[str, Any]:
    """What ``map_rows`` is compiled for, but for its blocks."""
    return {
        "s": s,
        "ROWS_BITS": rows.bit_length(),
        "WIDEN": INTERPRETED,
        "PRECISION": precision(dtype),
        "R_B": min(triton.next_power_of_2(s.r), LEAST_INNER),
        "E_B": max(LEAST_INNER, triton.next_power_of_2(s.e)),
    }


def gradient_constants(s: Layout, dtype: torch.dtype, rows: int) -> dict[str, Any]:
    """The same for ``factor_gradients``."""
    return {
        **map_constants(s, dtype, rows),
        "R_B": min(triton.next_power_of_2(s.r), LEAST_GROUPS),
        "A_B": max(LEAST_INNER, triton.next_power_of_2(s.a)),
    }


def whole_constants(s: Layout, dtype: torch.dtype, rows: int) -> dict[str, Any]:
    """The same for ``whole_gradients``, whose block of F is all of it: the inner size of the product that gives dx."""
    return {**gradient_constants(s, dtype, rows), "F_B": max(LEAST_INNER, power_of_two(s.F))}


def precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied: exactly, or as tf32 where torch.set_float32_matmul_precision allows it."""
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact else "tf32"


def _blocks(T_B: int, K_B: int, F_B: int, warps: int, **more: int) -> Blocks:
    return Blocks({"T_B": T_B, "K_B": K_B, "F_B": F_B, **more}, warps)


# From small to large. The first of each suits every layer that is fused, in every dtype.
MAP_BLOCKS = [
    _blocks(16, 16, 4, 4, A_B=16),
    _blocks(32, 16, 8, 8, A_B=32),
    _blocks(16, 16, 16, 4, A_B=32),
    _blocks(32, 16, 16, 4, A_B=32),
    _blocks(32, 16, 16, 8, A_B=32),
    _blocks(32, 32, 16, 8, A_B=32),
    _blocks(64, 16, 16, 8, A_B=32),
    # Where a is wide enough: 1.2 to 1.5 times as fast as the others on an H200 (docs/gpu.md).
    _blocks(32, 16, 8, 4, A_B=64),
]
GRADIENT_BLOCKS = [
    _blocks(16, LEAST_GROUPS, 4, 4),
    _blocks(16, 8, 8, 4),
    _blocks(16, 16, 16, 4),
    _blocks(16, 16, 16, 8),
    _blocks(32, 16, 16, 8),
    _blocks(64, 16, 16, 8),
]
WHOLE_BLOCKS = [
    Blocks({"T_B": 16, "K_B": LEAST_GROUPS}, 8),
    Blocks({"T_B": 16, "K_B": 8}, 8),
    Blocks({"T_B": 16, "K_B": 16}, 8),
    Blocks({"T_B": 32, "K_B": 8}, 8),
    Blocks({"T_B": 32, "K_B": 16}, 8),
]


def choices(blocks: Sequence[Blocks], constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """Of a list the choices to try: those that leave registers and waste no place, the largest first, and its first."""
    if INTERPRETED:
        return [blocks[-1] if "F_B" in constants else blocks[2]]
    s = constants["s"]
    limit = THREAD_ACCUMULATORS[size]

    def suits(one: Blocks) -> bool:
        # K is what is summed, at most a block of 16 to a tensor core; F is masked, so a block above it is idle.
        fits_F = one.kwargs.get("F_B", 0) <= max(4, power_of_two(s.F))
        fits_K = one.kwargs["K_B"] <= max(16, power_of_two(s.G * s.r))
        fits_a = one.kwargs.get("A_B", 0) <= max(32, power_of_two(s.a))
        return fits_F and fits_K and fits_a and accumulators(one, constants) <= limit

    return [*reversed([one for one in blocks[1:] if suits(one)]), blocks[0]]


def accumulators(one: Blocks, constants: Mapping[str, Any]) -> float:
    """Float32 sums that a thread holds; a block of ``a`` is a constant of the gradients alone."""
    c = {**constants, **one.kwargs}
    groups, z_wide = c["K_B"] // c["R_B"], c["F_B"] * c["R_B"]
    if "A_B" in constants:
        held = groups * z_wide * c["A_B"] + c["F_B"] * c["K_B"] * c["E_B"] + 2 * groups * z_wide * c["T_B"]
        if "F_B" in constants:
            held += groups * c["T_B"] * c["A_B"]
    else:
        held = c["F_B"] * c["T_B"] * c["E_B"] + groups * z_wide * c["T_B"]
    return float(held / (32 * one.num_warps))


def map_choices(constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """The rule of ``map_rows``."""
    return choices(MAP_BLOCKS, constants, size)


def gradient_choices(constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """The rule of ``factor_gradients``."""
    return choices(GRADIENT_BLOCKS, constants, size)


def whole_choices(constants: Mapping[str, Any], size: int) -> list[Blocks]:
    """The rule of ``whole_gradients``, whose block of F is a constant."""
    return choices(WHOLE_BLOCKS, constants, size)


_ruled_map = Ruled(triton_kernels.map_rows, map_choices)
_ruled_gradients = Ruled(triton_kernels.factor_gradients, gradient_choices)
_ruled_whole = Ruled(triton_kernels.whole_gradients, whole_choices)
