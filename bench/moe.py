"""Does a mixture compute only what it counts? Its layers against computing all experts and masking, and dense FFNs.

    python -m bench.moe [tokens=8192] [repeats=5] [out=bench/results] [only=btt]

A row is one layer, forward and backward with its router, in float32 on one thread. "mask" computes every expert and
multiplies what was not chosen by zero, as the published code does, in the fastest of two formulations in plain torch
(one block tensor train of rank E with the rows last). "torch" and "fused" are the layer, without and with a C++
compiler. For whole FFNs the comparison is a dense FFN of the same active FLOPs: hidden width k times larger. Times are
medians of the process's CPU time, which other work on the machine disturbs less than a clock on the wall.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import workers
from structlin.nn.experts import Experts
from structlin.nn.kernels import cpp
from structlin.nn.kernels.layout import ProductSizes
from structlin.nn.moe import MoeFfn, MoeLinear
from structlin.nn.router import Router
from structlin.nn.spec import initialise
from structlin.structure import factorise, lookup
from structlin.structure.cost import macs

TOP_K = 2
EXPANSION = 4
CASES: list[workers.Case] = [
    *({"layer": "btt", "d": d, "experts": experts} for d in (512,) for experts in (8, 16)),
    *({"layer": "ffn", "d": 512, "experts": experts} for experts in (8, 16)),
]


def main(arguments: list[str]) -> None:
    """Print the table; write it as text and JSON where ``out`` is given."""
    options = dict(argument.split("=", 1) for argument in arguments)
    tokens, repeats = int(options.get("tokens", 8192)), int(options.get("repeats", 5))
    cases = [{**case, "tokens": tokens} for case in CASES if options.get("only", "") in str(case["layer"])]
    description = workers.machine()
    lines = [", ".join(f"{key} {value}" for key, value in description.items()), HEADER]
    print("\n".join(lines), flush=True)
    rows = []
    for case, medians in workers.measure("bench.moe", cases, repeats):
        for allocator, seconds in medians.items():
            rows.append({**case, "allocator": allocator, **_ratios(seconds), "seconds": seconds})
            lines.append(_line(rows[-1]))
            print(lines[-1], flush=True)
    if "out" in options:
        folder = Path(options["out"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"moe-{description['date']}.txt").write_text("\n".join(lines) + "\n")
        (folder / f"moe-{description['date']}.json").write_text(json.dumps({**description, "rows": rows}, indent=1))


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
    sizes = factorise(lookup("btt"), d, d)
    layer = MoeLinear(_router(d, num_experts), Experts(sizes, num_experts, base_d_in=d))
    _start(layer)
    variants = {"mask": step(lambda x: masked(layer, x), layer), "torch": _without_kernels(step(layer, layer))}
    if cpp.kernel(ProductSizes(sizes.g, 1, sizes.a, 1, sizes.f, 1, sizes.e, True)) is not None:
        variants["fused"] = step(layer, layer)
    return variants


def _ffn(d: int, num_experts: int, step: Step) -> workers.Variants:
    up, down = factorise(lookup("dense"), d, EXPANSION * d), factorise(lookup("dense"), EXPANSION * d, d)
    experts = (Experts(sizes, num_experts, base_d_in=d) for sizes in (up, down))
    layer = MoeFfn(_router(d, num_experts), *experts)
    hidden = TOP_K * EXPANSION * d
    dense = nn.Sequential(nn.Linear(d, hidden, bias=False), nn.GELU(), nn.Linear(hidden, d, bias=False))
    _start(layer)
    return {"dense": step(dense, dense), "torch": step(layer, layer)}


def masked(layer: MoeLinear, x: Tensor) -> Tensor:
    """The layer with every expert computed: a block tensor train of rank E whose middle is weighted, mostly by zero.

    z (g, E, f, T) and y (f, e, T); the published code has the tokens first, which is slower (bench/layer.py).
    """
    s, num_experts, rows = layer.experts.sizes, layer.router.weight.shape[0], x.shape[0]
    routes = layer.router(x)
    counts = torch.diff(routes.ends_E, prepend=routes.ends_E.new_zeros(1))
    expert_N = torch.arange(num_experts).repeat_interleave(counts)
    weight_ET = x.new_zeros(num_experts, rows).index_put((expert_N, routes.token_N), routes.weight_N)
    first_gRa = layer.experts.A.view(num_experts, s.g, s.f, s.a).transpose(0, 1).reshape(s.g, -1, s.a)
    second_feK = layer.experts.B.view(num_experts, s.f, s.e, s.g).permute(1, 2, 3, 0).reshape(s.f, s.e, -1)
    x_gaT = x.view(rows, s.g, s.a).permute(1, 2, 0).contiguous()
    z_gEfT = torch.bmm(first_gRa, x_gaT).view(s.g, num_experts, s.f, rows) * weight_ET[:, None]
    y_feT = torch.bmm(second_feK, z_gEfT.permute(2, 0, 1, 3).reshape(s.f, -1, rows))
    return y_feT.view(-1, rows).t().contiguous()


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
    kernel = cpp.kernel
    setattr(cpp, "kernel", lambda sizes: None)  # noqa: B010
    try:
        yield
    finally:
        setattr(cpp, "kernel", kernel)  # noqa: B010


# ---- the table ------------------------------------------------------------------------------------------------------

HEADER = (
    f"{'layer':6s}{'d':>6s}{'experts':>9s}{'tokens':>8s}  {'allocator':18s} | {'ms: mask':>9s}{'dense':>8s}"
    f"{'torch':>8s}{'fused':>8s} | {'x mask: torch':>13s}{'fused':>7s} | {'speed/dense FFN':>15s} | {'GFLOP/s':>8s}"
)


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    found = {}
    if "mask" in seconds:
        found = {
            f"{name}_times_mask": seconds["mask"] / seconds[name] for name in ("torch", "fused") if name in seconds
        }
    if "dense" in seconds:
        found["speed_over_dense"] = seconds["dense"] / seconds["torch"]
    return found


def _line(row: dict[str, Any]) -> str:
    seconds, d = row["seconds"], row["d"]
    best = min(seconds.get("fused", seconds["torch"]), seconds["torch"])
    work = macs(factorise(lookup("btt"), d, d)) if row["layer"] == "btt" else 2 * EXPANSION * d * d
    useful = 6 * row["tokens"] * (TOP_K * work + d * row["experts"]) / 1e9

    def show(value: float | None, width: int, scale: float = 1.0, digits: int = 0) -> str:
        return f"{'-' if value is None else f'{value * scale:.{digits}f}':>{width}s}"

    times = "".join(
        show(seconds.get(name), width, 1e3) for name, width in (("mask", 9), ("dense", 8), ("torch", 8), ("fused", 8))
    )
    return (
        f"{row['layer']:6s}{d:6d}{row['experts']:9d}{row['tokens']:8d}  {row['allocator']:18s} | {times} | "
        f"{show(row.get('torch_times_mask'), 13, digits=2)}{show(row.get('fused_times_mask'), 7, digits=2)} | "
        f"{show(row.get('speed_over_dense'), 15, digits=2)} | {useful / best:8.1f}"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        workers.serve(variants_of)
    else:
        main(sys.argv[1:])
