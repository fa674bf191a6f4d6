"""What does the GPU run? Both products of a structured layer as one kernel, the gradients of both factors as another,
which for small layers of rank 1 makes that of x too.

Letters as in layout.py, with G = (g, b), F = (f, d), K = (G, r) and Z = (F, r) joined. A kernel
works on blocks of them and of rows T, a and e, each a power of two and masked at the edge:

    z[G, T, Z] = x[G, T, a]  first[G, a, Z]      batched over G
    y[F, T, e] = z[F, T, K]  second[F, K, e]     batched over F

What lies between is a permutation of registers through shared memory and never reaches the device's memory. A program
of ``map_rows`` makes y for some rows and some F out of blocks of K, so each z is made once. The gradient of x is the
same map with in and out exchanged: strides are arguments, and one kernel serves both passes. Products take the
tensors' dtype and sum in float32; z is rounded to the tensors' dtype, as in every backend.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl


class Layout(NamedTuple):
    """Sizes and strides of one call: constants of the compilation, and what blocks follow from."""

    G: int
    b: int
    a: int
    r: int
    F: int
    d: int
    e: int
    x_T: int
    x_g: int
    x_b: int
    x_a: int
    first_g: int
    first_r: int
    first_F: int
    first_a: int
    second_f: int
    second_G: int
    second_r: int
    second_e: int
    y_T: int
    y_f: int
    y_d: int
    y_e: int


@triton.jit
def product(left, right, total, WIDEN: tl.constexpr, PRECISION: tl.constexpr):
    """total + left right, batched; WIDEN is for the interpreter, whose products know no bfloat16."""
    if WIDEN:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def load_rows(x, T, G, a, end, s: tl.constexpr):
    """x[G, T, a]."""
    at_G = (G // s.b) * s.x_g + (G % s.b) * s.x_b
    at = T.to(tl.int64)[None, :, None] * s.x_T + at_G[:, None, None] + (a * s.x_a)[None, None, :]
    inside = (G < s.G)[:, None, None] & (end > T)[None, :, None] & (a < s.a)[None, None, :]
    return tl.load(x + at, mask=inside, other=0.0)


@triton.jit
def store_rows(x, values, T, G, a, end, s: tl.constexpr):
    """x[G, T, a] = values."""
    at_G = (G // s.b) * s.x_g + (G % s.b) * s.x_b
    at = T.to(tl.int64)[None, :, None] * s.x_T + at_G[:, None, None] + (a * s.x_a)[None, None, :]
    inside = (G < s.G)[:, None, None] & (end > T)[None, :, None] & (a < s.a)[None, None, :]
    tl.store(x + at, values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def place_results(T, F, e, end, s: tl.constexpr):
    """Offsets of y[F, T, e], and which of them exist."""
    at_F = (F // s.d) * s.y_f + (F % s.d) * s.y_d
    at = T.to(tl.int64)[None, :, None] * s.y_T + at_F[:, None, None] + (e * s.y_e)[None, None, :]
    return at, (F < s.F)[:, None, None] & (end > T)[None, :, None] & (e < s.e)[None, None, :]


@triton.jit
def load_first(first, G, a, Z_F, Z_r, s: tl.constexpr):
    """first[G, a, Z], repeated over b."""
    at = (G // s.b * s.first_g)[:, None, None] + (a * s.first_a)[None, :, None]
    at += (Z_F * s.first_F + Z_r * s.first_r)[None, None, :]
    inside = (G < s.G)[:, None, None] & (a < s.a)[None, :, None] & ((Z_F < s.F) & (Z_r < s.r))[None, None, :]
    return tl.load(first + at, mask=inside, other=0.0)


@triton.jit
def place_second(F, K_G, K_r, e, s: tl.constexpr):
    """Offsets of second[F, K, e], repeated over d, and which of them exist."""
    at = (F // s.d * s.second_f)[:, None, None] + (e * s.second_e)[None, None, :]
    at += (K_G * s.second_G + K_r * s.second_r)[None, :, None]
    return at, (F < s.F)[:, None, None] & ((K_G < s.G) & (K_r < s.r))[None, :, None] & (e < s.e)[None, None, :]


@triton.jit
def map_rows(
    x,
    first,
    second,
    y,
    rows,
    s: tl.constexpr,
    ROWS_BITS: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    R_B: tl.constexpr,
    E_B: tl.constexpr,
    T_B: tl.constexpr,
    K_B: tl.constexpr,
    F_B: tl.constexpr,
    A_B: tl.constexpr,
):
    """y (rows, F e) of x (rows, G a); the grid is (blocks of rows x blocks of F).

    Blocks of F come first in the order of programs, so that those that read the same rows of x run together.
    """
    G_B: tl.constexpr = K_B // R_B
    num_F: tl.constexpr = (s.F + F_B - 1) // F_B
    num_r: tl.constexpr = (s.r + R_B - 1) // R_B
    num_K: tl.constexpr = (s.G + G_B - 1) // G_B * num_r
    T = tl.program_id(0) // num_F * T_B + tl.arange(0, T_B)
    F_start = tl.program_id(0) % num_F * F_B
    F = F_start + tl.arange(0, F_B)
    e = tl.arange(0, E_B)
    Z_F = F_start + tl.arange(0, F_B * R_B) // R_B
    total = tl.zeros((F_B, T_B, E_B), dtype=tl.float32)
    for k in range(num_K):
        G_start = k // num_r * G_B
        r_start = k % num_r * R_B
        G = G_start + tl.arange(0, G_B)
        Z_r = r_start + tl.arange(0, F_B * R_B) % R_B
        z_GTZ = tl.zeros((G_B, T_B, F_B * R_B), dtype=tl.float32)
        for a_start in range(0, s.a, A_B):
            a = a_start + tl.arange(0, A_B)
            x_GTa = load_rows(x, T, G, a, rows, s)
            z_GTZ = product(x_GTa, load_first(first, G, a, Z_F, Z_r, s), z_GTZ, WIDEN, PRECISION)
        z_GTFr = tl.reshape(z_GTZ.to(x.dtype.element_ty), (G_B, T_B, F_B, R_B))
        z_FTK = tl.reshape(tl.permute(z_GTFr, (2, 1, 0, 3)), (F_B, T_B, K_B))
        K_G = G_start + tl.arange(0, K_B) // R_B
        K_r = r_start + tl.arange(0, K_B) % R_B
        at, inside = place_second(F, K_G, K_r, e, s)
        total = product(z_FTK, tl.load(second + at, mask=inside, other=0.0), total, WIDEN, PRECISION)
    at, inside = place_results(T, F, e, rows, s)
    tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def factor_gradients(
    x,
    dy,
    first,
    second,
    d_first,
    d_second,
    rows,
    share,
    s: tl.constexpr,
    ROWS_BITS: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    R_B: tl.constexpr,
    E_B: tl.constexpr,
    A_B: tl.constexpr,
    T_B: tl.constexpr,
    K_B: tl.constexpr,
    F_B: tl.constexpr,
):
    """Float32 sums over one share of the rows: d_first (shares, G, r, F, a) and d_second (shares, F, e, G, r).

    The grid is (blocks of K, blocks of F, shares). z and its gradient are made again, once per pair of blocks; a and e
    are one block each. The caller sums what is shared: first over b, second over d.
    """
    G_B: tl.constexpr = K_B // R_B
    num_r: tl.constexpr = (s.r + R_B - 1) // R_B
    G_start = tl.program_id(0) // num_r * G_B
    r_start = tl.program_id(0) % num_r * R_B
    F_start = tl.program_id(1) * F_B
    G = G_start + tl.arange(0, G_B)
    F = F_start + tl.arange(0, F_B)
    a = tl.arange(0, A_B)
    e = tl.arange(0, E_B)
    Z_F = F_start + tl.arange(0, F_B * R_B) // R_B
    Z_r = r_start + tl.arange(0, F_B * R_B) % R_B
    K_G = G_start + tl.arange(0, K_B) // R_B
    K_r = r_start + tl.arange(0, K_B) % R_B
    first_GaZ = load_first(first, G, a, Z_F, Z_r, s)
    at_second, inside_second = place_second(F, K_G, K_r, e, s)
    second_FKe = tl.load(second + at_second, mask=inside_second, other=0.0)
    total_first = tl.zeros((G_B, F_B * R_B, A_B), dtype=tl.float32)
    total_second = tl.zeros((F_B, K_B, E_B), dtype=tl.float32)
    end = tl.minimum(tl.program_id(2) * share + share, rows)
    for start in range(tl.program_id(2) * share, end, T_B):
        T = start + tl.arange(0, T_B)
        x_GTa = load_rows(x, T, G, a, end, s)
        at, inside = place_results(T, F, e, end, s)
        dy_FTe = tl.load(dy + at, mask=inside, other=0.0)
        z_GTZ = product(x_GTa, first_GaZ, tl.zeros((G_B, T_B, F_B * R_B), dtype=tl.float32), WIDEN, PRECISION)
        # Rounded as in the forward pass: the gradient belongs to the z that was multiplied there.
        z_GTFr = tl.reshape(z_GTZ.to(x.dtype.element_ty), (G_B, T_B, F_B, R_B))
        z_FKT = tl.reshape(tl.permute(z_GTFr, (2, 0, 3, 1)), (F_B, K_B, T_B))
        total_second = product(z_FKT, dy_FTe, total_second, WIDEN, PRECISION)
        second_FeK = tl.permute(second_FKe, (0, 2, 1))
        dz_FTK = product(dy_FTe, second_FeK, tl.zeros((F_B, T_B, K_B), dtype=tl.float32), WIDEN, PRECISION)
        dz_FTGr = tl.reshape(dz_FTK.to(x.dtype.element_ty), (F_B, T_B, G_B, R_B))
        dz_GZT = tl.reshape(tl.permute(dz_FTGr, (2, 0, 3, 1)), (G_B, F_B * R_B, T_B))
        total_first = product(dz_GZT, x_GTa, total_first, WIDEN, PRECISION)
    # 64 bits: shares times weights may pass 2^31.
    place = tl.program_id(2).to(tl.int64)
    at = (G * (s.r * s.F * s.a))[:, None, None] + ((Z_r * s.F + Z_F) * s.a)[None, :, None] + a[None, None, :]
    inside = (G < s.G)[:, None, None] & ((Z_F < s.F) & (Z_r < s.r))[None, :, None] & (a < s.a)[None, None, :]
    tl.store(d_first + place * (s.G * s.r * s.F * s.a) + at, total_first, mask=inside)
    at = (F * (s.e * s.G * s.r))[:, None, None] + (K_G * s.r + K_r)[None, :, None] + (e * (s.G * s.r))[None, None, :]
    tl.store(d_second + place * (s.F * s.e * s.G * s.r) + at, total_second, mask=inside_second)


@triton.jit
def whole_gradients(
    x,
    dy,
    first,
    second,
    dx,
    d_first,
    d_second,
    rows,
    share,
    s: tl.constexpr,
    ROWS_BITS: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
    R_B: tl.constexpr,
    E_B: tl.constexpr,
    A_B: tl.constexpr,
    T_B: tl.constexpr,
    K_B: tl.constexpr,
    F_B: tl.constexpr,
):
    """``factor_gradients`` and dx (rows, G a) with it, of layers of rank 1 all of whose F are one block.

    The grid is (blocks of K, 1, shares): x is read and dx written once, and programs of a share, which run together,
    read the same dy.
    """
    G_B: tl.constexpr = K_B // R_B
    num_r: tl.constexpr = (s.r + R_B - 1) // R_B
    G_start = tl.program_id(0) // num_r * G_B
    r_start = tl.program_id(0) % num_r * R_B
    F_start = tl.program_id(1) * F_B
    G = G_start + tl.arange(0, G_B)
    F = F_start + tl.arange(0, F_B)
    a = tl.arange(0, A_B)
    e = tl.arange(0, E_B)
    Z_F = F_start + tl.arange(0, F_B * R_B) // R_B
    Z_r = r_start + tl.arange(0, F_B * R_B) % R_B
    K_G = G_start + tl.arange(0, K_B) // R_B
    K_r = r_start + tl.arange(0, K_B) % R_B
    first_GaZ = load_first(first, G, a, Z_F, Z_r, s)
    at_second, inside_second = place_second(F, K_G, K_r, e, s)
    second_FKe = tl.load(second + at_second, mask=inside_second, other=0.0)
    total_first = tl.zeros((G_B, F_B * R_B, A_B), dtype=tl.float32)
    total_second = tl.zeros((F_B, K_B, E_B), dtype=tl.float32)
    end = tl.minimum(tl.program_id(2) * share + share, rows)
    for start in range(tl.program_id(2) * share, end, T_B):
        T = start + tl.arange(0, T_B)
        x_GTa = load_rows(x, T, G, a, end, s)
        at, inside = place_results(T, F, e, end, s)
        dy_FTe = tl.load(dy + at, mask=inside, other=0.0)
        z_GTZ = product(x_GTa, first_GaZ, tl.zeros((G_B, T_B, F_B * R_B), dtype=tl.float32), WIDEN, PRECISION)
        # Rounded as in the forward pass: the gradient belongs to the z that was multiplied there.
        z_GTFr = tl.reshape(z_GTZ.to(x.dtype.element_ty), (G_B, T_B, F_B, R_B))
        z_FKT = tl.reshape(tl.permute(z_GTFr, (2, 0, 3, 1)), (F_B, K_B, T_B))
        total_second = product(z_FKT, dy_FTe, total_second, WIDEN, PRECISION)
        second_FeK = tl.permute(second_FKe, (0, 2, 1))
        dz_FTK = product(dy_FTe, second_FeK, tl.zeros((F_B, T_B, K_B), dtype=tl.float32), WIDEN, PRECISION)
        dz_FTGr = tl.reshape(dz_FTK.to(x.dtype.element_ty), (F_B, T_B, G_B, R_B))
        dz_GZT = tl.reshape(tl.permute(dz_FTGr, (2, 0, 3, 1)), (G_B, F_B * R_B, T_B))
        total_first = product(dz_GZT, x_GTa, total_first, WIDEN, PRECISION)
        dz_GTZ = tl.permute(dz_GZT, (0, 2, 1))
        first_GZa = tl.permute(first_GaZ, (0, 2, 1))
        dx_GTa = product(dz_GTZ, first_GZa, tl.zeros((G_B, T_B, A_B), dtype=tl.float32), WIDEN, PRECISION)
        store_rows(dx, dx_GTa, T, G, a, end, s)
    # 64 bits: shares times weights may pass 2^31.
    place = tl.program_id(2).to(tl.int64)
    at = (G * (s.r * s.F * s.a))[:, None, None] + ((Z_r * s.F + Z_F) * s.a)[None, :, None] + a[None, None, :]
    inside = (G < s.G)[:, None, None] & ((Z_F < s.F) & (Z_r < s.r))[None, :, None] & (a < s.a)[None, None, :]
    tl.store(d_first + place * (s.G * s.r * s.F * s.a) + at, total_first, mask=inside)
    at = (F * (s.e * s.G * s.r))[:, None, None] + (K_G * s.r + K_r)[None, :, None] + (e * (s.G * s.r))[None, None, :]
    tl.store(d_second + place * (s.F * s.e * s.G * s.r) + at, total_second, mask=inside_second)
