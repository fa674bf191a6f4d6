"""How fast is one structured layer, forward and backward? Against its published formulation, dense and the GEMM peak.

    python -m bench.layer [tokens=8192] [repeats=9] [out=bench/results] [only=btt]

Rates are useful FLOPs (6 per multiply-accumulate and row) over the median time; "x published" divides times of the same
layer, once like for like under our allocator settings, once with the published formulation under plain malloc, as its
users run it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench import published, tables, workers
from structlin.errors import door
from structlin.kernels.products import cpp, op, shared_factors, torch_path
from structlin.kernels.products.layout import ProductSizes
from structlin.structure import Sizes, Term, factorise, lookup, plan_linear

WIDTHS = (256, 512, 1024)
CASES: list[workers.Case] = [
    *({"structure": "btt", "rank": rank, "d": d} for rank in (1, 4) for d in WIDTHS),
    {"structure": "btt", "rank": 1, "d": 768},
    *({"structure": name, "rank": None, "d": d} for name in ("g2", "tt3", "tt1") for d in WIDTHS),
]
PEAK_SIZE = 2048


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    tables.measure("layer", arguments, CASES, _rows, _line, HEADER, tokens=8192, repeats=9)


# ---- the variants ---------------------------------------------------------------------------------------------------


def variants_of(case: workers.Case) -> workers.Variants:
    """Forward and backward of the case in every formulation, and a square GEMM."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes, rows = sizes_of(case), int(case["tokens"])
    in_order = _roles(sizes)
    x = torch.randn(rows, sizes.used_in, requires_grad=True)
    dy = torch.randn(rows, sizes.used_out)
    first = torch.randn(in_order.g, in_order.r, in_order.f, in_order.d, in_order.a, requires_grad=True)
    second = torch.randn(in_order.f, in_order.e, in_order.g, in_order.b, in_order.r, requires_grad=True)
    weight = torch.randn(sizes.used_out, sizes.used_in, requires_grad=True)
    square = torch.randn(PEAK_SIZE, PEAK_SIZE)

    def step(layer: Callable[..., Tensor], *factors: Tensor) -> Callable[[], object]:
        return lambda: torch.autograd.grad(layer(x, *factors), (x, *factors), dy)

    a_is_first = in_order.a_first
    A = first.detach().permute(0, 4, 1, 2, 3).contiguous().requires_grad_()
    B = second.detach().permute(0, 2, 3, 4, 1).contiguous().requires_grad_()
    variants = {
        "dense": step(functional.linear, weight),
        "published": step(published.product, A, B),
        "torch": step(without_compiler(in_order), first, second),
        "peak": lambda: square @ square,
    }
    if cpp.kernel(in_order) is not None:
        variants["cpp"] = step(lambda x, *factors: op.products(x, factors[0], factors[1], a_is_first), first, second)
    return variants


def without_compiler(sizes: ProductSizes) -> Callable[..., Tensor]:
    """What a layer of these sizes runs without a compiler, of x and both factors."""
    if shared_factors.is_faster(sizes):
        return lambda x, first, second: shared_factors.rows_first(x, first, second, sizes.a_first)
    return lambda *tensors: TorchPath.apply(*tensors, sizes)


class TorchPath(torch.autograd.Function):
    """What the operators run without a compiler."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: Tensor, second: Tensor, sizes: ProductSizes) -> Tensor:
        """x (T, used_in) -> (T, used_out)."""
        ctx.save_for_backward(x, first, second)
        ctx.sizes = sizes
        return torch_path.forward(x, first, second, sizes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and both factors."""
        x, first, second = ctx.saved_tensors
        return *torch_path.backward(gradients[0], x, first, second, ctx.sizes, True, True), None


def sizes_of(case: workers.Case) -> Sizes:
    """The sizes of a square layer of the case."""
    theta = lookup(case["structure"])
    if case["rank"]:
        theta = theta.with_rank(Term(Fraction(0), Fraction(case["rank"])))
    return factorise(theta, case["d"], case["d"])


def _roles(sizes: Sizes) -> ProductSizes:
    s = sizes
    if not plan_linear(s).a_first:
        raise ValueError(f"the published formulation here contracts A first, which is dearer for {s}")
    return ProductSizes(s.g, s.b, s.a, s.r, s.f, s.d, s.e, a_first=True)


# ---- the table ------------------------------------------------------------------------------------------------------

HEADER = (
    f"{'layer':12s}{'d':>6s}{'rank':>5s} | {'GFLOP/s: peak':>13s}{'dense':>7s}{'publ.':>7s}{'torch':>7s}{'cpp':>7s} | "
    f"{'cpp/dense':>9s}{'time/dense':>11s} | {'x publ.: cpp':>12s}{'torch':>7s} | "
    f"{'like for like: cpp':>18s}{'torch':>7s}"
)


def _rows(case: workers.Case, medians: tables.Medians) -> Iterator[tables.Row]:
    yield {**case, **_summary(case, medians), "seconds": medians}


def _summary(case: workers.Case, medians: tables.Medians) -> tables.Row:
    """Rates and ratios; the published formulation under plain malloc unless said otherwise."""
    sizes, ours, plain = sizes_of(case), medians[workers.OURS], medians[workers.PLAIN]
    useful, dense = (6 * case["tokens"] * work / 1e9 for work in (plan_linear(sizes).macs, sizes.d_in * sizes.d_out))
    best = ours.get("cpp", ours["torch"])
    return {
        "realised_rank": sizes.r,
        "recomputed_flops": op.recomputed_flops(case["tokens"], _roles(sizes), "cpp"),
        "peak_gflops": 2 * PEAK_SIZE**3 / 1e9 / ours["peak"],
        "dense_gflops": dense / ours["dense"],
        "published_gflops": useful / plain["published"],
        "torch_gflops": useful / ours["torch"],
        "cpp_gflops": useful / best,
        "rate_over_dense": useful / best / (dense / ours["dense"]),
        "time_over_dense": best / ours["dense"],
        "times_published": plain["published"] / best,
        "torch_times_published": plain["published"] / ours["torch"],
        "like_for_like": ours["published"] / best,
        "torch_like_for_like": ours["published"] / ours["torch"],
    }


def _line(row: tables.Row) -> str:
    return (
        f"{row['structure']:12s}{row['d']:6d}{row['realised_rank']:5d} | {row['peak_gflops']:13.0f}"
        f"{row['dense_gflops']:7.0f}{row['published_gflops']:7.1f}{row['torch_gflops']:7.1f}{row['cpp_gflops']:7.1f} | "
        f"{row['rate_over_dense']:9.2f}{row['time_over_dense']:11.2f} | {row['times_published']:12.2f}"
        f"{row['torch_times_published']:7.2f} | {row['like_for_like']:18.2f}{row['torch_like_for_like']:7.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        workers.serve(variants_of)
    else:
        door(main)
