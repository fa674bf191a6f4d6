"""Layers and grouped products on a GPU: are they right, and how fast are they?"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.fake.cases import all_fused
from bench.gpu.check import Check
from structlin.errors import UserError
from structlin.kernels.experts.grouped import grouped_product
from structlin.nn.linear import LinearOptions, make_linear
from structlin.structure import plan_theta, theta_of
from structlin.structure.catalog import PAPER_IDS

LIMITS = {"float32": 1e-5, "bfloat16": 0.03}
"""Largest error of a layer over the largest entry: bfloat16 rounds inputs, what lies between and results to 8 bits."""
FAMILIES: dict[str, dict[str, object]] = {
    "low_rank": {"rank": "d/4"},
    "monarch": {"blocks": 4},
    "blast": {"blocks": 4, "rank": "d/8"},
}
FUSED = ("btt1", "btt11", "btt8", "g2")
CPU_ROWS, GPU_ROWS = 64, 4096


def layers(check: Check, found: dict[str, Any]) -> None:
    """Every structure and family at several widths, forward and backward, against float64."""
    widths = (256, 1024, 4096) if check.on_gpu else (64, 256)
    rows = GPU_ROWS if check.on_gpu else CPU_ROWS
    for name in ("dense", *PAPER_IDS, *FAMILIES):
        for width in widths:
            for dtype in LIMITS:
                key = f"{name} {width} {dtype}"
                if not check.has_time(f"layer {key}"):
                    return
                try:
                    theta = theta_of(name, arguments=FAMILIES.get(name, {}))
                    found[key] = error = layer_error(theta, width, rows, dtype, check.device)
                except UserError as error_of_user:
                    found[key] = str(error_of_user)
                    continue
                check.expect(error <= LIMITS[dtype], f"{key}: error {error:.2e} is above {LIMITS[dtype]:.0e}")
    for name in FUSED if check.on_gpu else ():
        # The kernels of layers that the rule computes in another way on this GPU.
        with all_fused():
            found[f"{name} 256 fused"] = error = layer_error(theta_of(name), 256, rows, "bfloat16", check.device)
        check.expect(error <= LIMITS["bfloat16"], f"{name} 256 fused: error {error:.2e}")


def layer_error(theta: Any, width: int, rows: int, dtype: str, device: torch.device) -> float:
    """The largest error of y, dx and the factors' gradients, each over its largest entry, against float64."""
    torch.manual_seed(0)
    layer = make_linear(plan_theta(theta, width, width), LinearOptions(width)).to(device)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, width**-0.25)
    found: list[Tensor] = []
    wanted: list[Tensor] = []
    for wide in (False, True):
        kind = torch.float64 if wide else getattr(torch, dtype)
        one = layer.to(kind) if wide or dtype == "float32" else layer
        x, dy = (normal(rows, width, seed, device).to(kind if wide else torch.float32) for seed in (1, 2))
        x.requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16" and not wide):
            y = one(x)
        values = [y, *torch.autograd.grad(y, (x, *one.parameters()), dy.to(y.dtype))]
        (wanted if wide else found).extend(value.detach().double() for value in values)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


def normal(rows: int, columns: int, seed: int, device: torch.device) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(device)


def groups(check: Check, found: dict[str, Any]) -> None:
    """Grouped products of 1,023 and 1,024 groups, forward and backward."""
    for number in (1023, 1024) if check.on_gpu else (31, 32):
        dtype = torch.bfloat16 if check.on_gpu else torch.float32
        x = normal(8 * number, 64, 0, check.device).to(dtype).requires_grad_()
        weights = normal(number * 32, 64, 1, check.device).view(number, 32, 64).to(dtype).requires_grad_()
        ends = torch.arange(8, 8 * number + 1, 8, dtype=torch.int32, device=check.device)
        y = grouped_product(x, weights, ends)
        torch.autograd.grad(y.float().square().sum(), (x, weights))
        wanted = torch.einsum("gti,goi->gto", x.view(number, 8, 64).double(), weights.double()).flatten(0, 1)
        found[str(number)] = error = float((y.double() - wanted).abs().max().detach() / wanted.abs().max().detach())
        check.expect(error < 0.02, f"{number} groups: error {error:.2e}")


def layer_speed(check: Check, found: dict[str, Any]) -> None:
    """Layers, forward and backward, against dense and against two plain products of the same work."""
    rows = 65_536 if check.on_gpu else 512
    dtype = torch.bfloat16 if check.on_gpu else torch.float32
    for width in (256, 1024, 4096) if check.on_gpu else (256,):
        x = normal(rows, width, 0, check.device).to(dtype).requires_grad_()
        for name in ("dense", "btt1", "btt11", "btt8", "g2", "l2"):
            layer = make_linear(plan_theta(theta_of(name), width, width), LinearOptions(width)).to(check.device, dtype)

            def both(layer: Any = layer, x: Tensor = x) -> None:
                layer(x).backward(x.detach())

            found[f"{name} {width}"] = milliseconds(both, check.device)
        rank = max(16, width // 32)
        narrow, back = (normal(*shape, 1, check.device).to(dtype) for shape in ((rank, width), (width, rank)))
        pair = [weight.requires_grad_() for weight in (narrow, back)]

        def plain(x: Tensor = x, pair: list[Tensor] = pair) -> None:
            functional.linear(functional.linear(x, pair[0]), pair[1]).backward(x.detach())

        found[f"two plain products {width}"] = milliseconds(plain, check.device)


def milliseconds(function: Callable[[], object], device: torch.device, seconds: float = 0.5) -> float:
    """Median time of a call, of as many as fit the seconds, after three."""
    times = []
    began = time.monotonic()
    for number in range(200):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - start)
        if number >= 5 and time.monotonic() - began > seconds:
            break
    return 1e3 * median(times)
