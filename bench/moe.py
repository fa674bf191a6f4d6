"""Does a mixture compute only what it counts? Its layers against computing all experts and masking, and dense FFNs.

    python -m bench.moe [tokens=8192] [repeats=5] [out=bench/results] [only=btt]

A row is one layer, forward and backward with its router, in float32 on one thread. Two references compute every expert
and multiply what was not chosen by zero: "publ." is the published formulation (token-major batched products, every
operand copied), written anew, "mask" a faster one in plain torch (a block tensor train of rank E with the rows last).
"torch" and "fused" are the layer, without and with a C++ compiler. "x publ." is over the published formulation under
plain malloc, "alike" over a reference under the row's own allocator setting. For whole FFNs the comparison is a dense
FFN of the same active FLOPs: hidden width k times larger. Times are medians of the process's CPU time, which other work
on the machine disturbs less than a clock on the wall. GFLOP/s are of the experts that a formulation computes: all, or
the chosen ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bench import published, tables, workers
from structlin.errors import door
from structlin.kernels.experts import cpp as moe_cpp
from structlin.kernels.products import cpp
from structlin.kernels.products.layout import ProductSizes
from structlin.nn.experts import Experts
from structlin.nn.linear import LinearOptions
from structlin.nn.moe import MoeFfn, MoeLinear
from structlin.nn.router import Router
from structlin.nn.spec import initialise
from structlin.structure import lookup, plan_theta

TOP_K = 2
EXPANSION = 4
CASES: list[workers.Case] = [
    *({"layer": "btt", "d": d, "experts": experts} for d in (512,) for experts in (8, 16)),
    *({"layer": "ffn", "d": 512, "experts": experts} for experts in (8, 16)),
]


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    tables.measure("moe", arguments, CASES, _rows, _line, HEADER, tokens=8192, repeats=5)


# ---- the variants ---------------------------------------------------------------------------------------------------


def variants_of(case: workers.Case) -> workers.Variants:
    """Forward and backward of the case in every formulation."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(int(case["tokens"]), int(case["d"]), requires_grad=True)
    dy = torch.randn(x.shape)
    make = _ffn if case["layer"] == "ffn" else _btt

    def step(forward: Callable[[Tensor], Tensor], module: nn.Module) -> Callable[[], object]:
        inputs = [x, *module.parameters()]
        return lambda: torch.autograd.grad(forward(x), inputs, dy)

    return make(int(case["d"]), int(case["experts"]), step)


Step = Callable[[Callable[[Tensor], Tensor], nn.Module], Callable[[], object]]


def _btt(d: int, num_experts: int, step: Step) -> workers.Variants:
    plan = plan_theta(lookup("btt"), d, d)
    sizes = plan.sizes
    layer = MoeLinear(_router(d, num_experts), Experts(plan, num_experts, LinearOptions(d)))
    _start(layer)
    variants = {
        "published": step(lambda x: published_mixture(layer, x), layer),
        "mask": step(lambda x: masked(layer, x), layer),
        "torch": _without_kernels(step(layer, layer)),
    }
    if moe_cpp.kernel(ProductSizes(sizes.g, 1, sizes.a, 1, sizes.f, 1, sizes.e, True)) is not None:
        variants["fused"] = step(layer, layer)
    return variants


def _ffn(d: int, num_experts: int, step: Step) -> workers.Variants:
    up, down = plan_theta(lookup("dense"), d, EXPANSION * d), plan_theta(lookup("dense"), EXPANSION * d, d)
    experts = (Experts(plan, num_experts, LinearOptions(d)) for plan in (up, down))
    layer = MoeFfn(_router(d, num_experts), *experts)
    hidden = TOP_K * EXPANSION * d
    dense = nn.Sequential(nn.Linear(d, hidden, bias=False), nn.GELU(), nn.Linear(hidden, d, bias=False))
    _start(layer)
    return {"dense": step(dense, dense), "torch": step(layer, layer)}


def published_mixture(layer: MoeLinear, x: Tensor) -> Tensor:
    """The layer with every expert computed as the published code does it."""
    s, num_experts = layer.experts.sizes, layer.router.weight.shape[0]
    first = layer.experts.A.view(num_experts, s.g, s.f, s.a).permute(1, 3, 0, 2)[..., None]
    second = layer.experts.B.view(num_experts, s.f, s.e, s.g).permute(1, 3, 0, 2)[:, :, None]
    return published.product(x, first, second, _all_weights(layer, x).t())


def masked(layer: MoeLinear, x: Tensor) -> Tensor:
    """The layer with every expert computed: a block tensor train of rank E whose middle is weighted, mostly by zero.

    z (g, E, f, T) and y (f, e, T).
    """
    s, num_experts, rows = layer.experts.sizes, layer.router.weight.shape[0], x.shape[0]
    weight_ET = _all_weights(layer, x)
    first_gRa = layer.experts.A.view(num_experts, s.g, s.f, s.a).transpose(0, 1).reshape(s.g, -1, s.a)
    second_feK = layer.experts.B.view(num_experts, s.f, s.e, s.g).permute(1, 2, 3, 0).reshape(s.f, s.e, -1)
    x_gaT = x.view(rows, s.g, s.a).permute(1, 2, 0).contiguous()
    z_gEfT = torch.bmm(first_gRa, x_gaT).view(s.g, num_experts, s.f, rows) * weight_ET[:, None]
    y_feT = torch.bmm(second_feK, z_gEfT.permute(2, 0, 1, 3).reshape(s.f, -1, rows))
    return y_feT.view(-1, rows).t().contiguous()


def _all_weights(layer: MoeLinear, x: Tensor) -> Tensor:
    """Weights of all experts (E, T), zero where a token did not choose."""
    routes = layer.router(x)
    counts = torch.diff(routes.ends_E, prepend=routes.ends_E.new_zeros(1))
    expert_N = torch.arange(counts.shape[0]).repeat_interleave(counts)
    return x.new_zeros(counts.shape[0], x.shape[0]).index_put((expert_N, routes.token_N), routes.weight_N)


def _router(d: int, num_experts: int) -> Router:
    return Router(d, num_experts, TOP_K, base_d_in=d)


def _start(layer: nn.Module) -> None:
    """First weights, and random routes instead of the ties of step 0."""
    initialise(layer, 0)
    for module in layer.modules():
        if isinstance(module, Router):
            nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)


def _without_kernels(run: Callable[[], object]) -> Callable[[], object]:
    def plain() -> object:
        with _plain_torch():
            return run()

    return plain


@contextmanager
def _plain_torch() -> Iterator[None]:
    """As on a machine without a compiler."""
    kernels = {module: module.kernel for module in (cpp, moe_cpp)}
    for module in kernels:
        setattr(module, "kernel", lambda sizes: None)  # noqa: B010
    try:
        yield
    finally:
        for module, kernel in kernels.items():
            setattr(module, "kernel", kernel)  # noqa: B010


# ---- the table ------------------------------------------------------------------------------------------------------

HEADER = (
    f"{'layer':6s}{'d':>4s}{'E':>4s}{'tokens':>7s}  {'allocator':16s} | {'ms: publ.':>9s}{'mask':>6s}{'dense':>6s}"
    f"{'torch':>6s}{'fused':>6s} | {'x publ.: torch':>14s}{'fused':>6s} | {'alike: torch':>12s}{'fused':>6s} | "
    f"{'x mask alike: torch':>19s}{'fused':>6s} | {'speed/dense':>11s} | {'GFLOP/s: publ':>13s}{'mask':>5s}{'best':>5s}"
)
OVER = (("times_published", 14), ("times_published_alike", 12), ("times_mask_alike", 19))


def _rows(case: workers.Case, medians: tables.Medians) -> Iterator[tables.Row]:
    for allocator, seconds in medians.items():
        yield {**case, "allocator": allocator, **_ratios(seconds, medians[workers.PLAIN]), "seconds": seconds}


def _ratios(seconds: dict[str, float], plain: dict[str, float]) -> dict[str, float]:
    """Of one allocator's medians; ``plain``: those under plain malloc."""
    found = {}
    for name in ("torch", "fused"):
        if "published" in seconds and name in seconds:
            found[f"{name}_times_published"] = plain["published"] / seconds[name]
            found[f"{name}_times_published_alike"] = seconds["published"] / seconds[name]
            found[f"{name}_times_mask_alike"] = seconds["mask"] / seconds[name]
    if "dense" in seconds:
        found["speed_over_dense"] = seconds["dense"] / seconds["torch"]
    return found


def _line(row: tables.Row) -> str:
    times = {name: 1e3 * seconds for name, seconds in row["seconds"].items()}
    computed = {"published": row["experts"], "mask": row["experts"], "torch": TOP_K, "fused": TOP_K}
    rates = {name: 1e3 * _gflops(row, computed[name]) / time for name, time in times.items() if name in computed}
    rates["best"] = max(rates.get("fused", 0.0), rates["torch"])
    parts = [
        f"{row['layer']:6s}{row['d']:4d}{row['experts']:4d}{row['tokens']:7d}  {row['allocator']:16s}",
        _cells(times, ("published", "mask", "dense", "torch", "fused"), (9, 6, 6, 6, 6), 0),
        *(_cells(row, (f"torch_{over}", f"fused_{over}"), (width, 6), 2) for over, width in OVER),
        _cells(row, ("speed_over_dense",), (11,), 2),
        _cells(rates, ("published", "mask", "best"), (13, 5, 5), 0),
    ]
    return " | ".join(parts)


def _cells(values: Mapping[str, float], names: Sequence[str], widths: Sequence[int], digits: int) -> str:
    shown = (f"{values[name]:.{digits}f}" if name in values else "-" for name in names)
    return "".join(f"{text:>{width}s}" for text, width in zip(shown, widths, strict=True))


def _gflops(row: tables.Row, experts: int) -> float:
    """Forward and backward of a layer that computes so many experts."""
    d = row["d"]
    work = plan_theta(lookup("btt"), d, d).macs if row["layer"] == "btt" else 2 * EXPANSION * d * d
    return float(6 * row["tokens"] * (experts * work + d * row["experts"]) / 1e9)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        workers.serve(variants_of)
    else:
        door(main)
