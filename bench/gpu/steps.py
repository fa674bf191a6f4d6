"""Whole steps on a GPU: waits, memory, what compiling takes, speed alone and side by side."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.fake.cases import case
from bench.gpu.check import Check, in_processes
from bench.gpu.layers import milliseconds
from structlin.anatomy.compute import step_flops
from structlin.anatomy.memory import GB, peak
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.launch.worker_process import environment as worker_environment
from structlin.nn.blocks import recompute
from structlin.tasks.next_token import NextTokenLearner
from structlin.training.compiling import compiled
from structlin.training.device import pick_device, settle
from structlin.training.optim import make_optimizer
from structlin.training.parts import parts_of
from structlin.training.update import WARM_UPS, make_update
from structlin.training.world import ONE_PROCESS

BANDWIDTH, RATE = 2.8e12, 5.5e14
"""Of the rooflines that predict (docs/gpu.md): bytes and bfloat16 FLOPs a second of an H100."""


def whole_step(one: Science, placement: Placement, device: torch.device) -> Callable[[], Tensor]:
    """A whole optimizer step on a batch that stays."""
    torch._dynamo.reset()
    settle(device, placement, one)
    learner = NextTokenLearner(one)
    model = learner.build_model().to(device)
    if placement.recompute:
        recompute(model)
    optimizer = make_optimizer(model, one.optim)
    forward, parts = compiled(model, placement, device), parts_of(one, placement)
    inputs, targets = (part.to(device) for part in learner.random_batch(one.rows, torch.Generator().manual_seed(0)))
    update = make_update(one, learner, model, forward, optimizer, placement, device, parts, ONE_PROCESS)
    return lambda: update((inputs, targets), 1e-4)[0]


WAYS = {
    "eager": Placement(compile="false", graphs="false"),
    "graph": Placement(compile="false", graphs="true"),
    "compile graph": Placement(compile="true", graphs="true"),
}
"""How a step may be launched; the last is what auto takes on a GPU."""
OTHER_WAYS = {
    "combine graph": Placement(compile="combine", graphs="true"),
    "deterministic": Placement(compile="true", graphs="true", deterministic=True),
}
MIXTURE, LONG = "dense:256:moe=btt:norm=learned", "dense:256:context=512"
WIDE_MIXTURE = f"{MIXTURE.replace('256', '1024')}:tokens=16384"
STEPS = (
    *((text, way) for text in (MIXTURE, WIDE_MIXTURE) for way in WAYS),
    *((text, way) for text in (LONG, "btt1:256", MIXTURE) for way in ("compile graph", "deterministic")),
    *((f"{name}:4096:tokens=16384", way) for name in ("dense", "btt1", "btt11") for way in WAYS),
    *((f"{name}:{width}", way) for width in (256, 1024) for name in ("dense", "btt1", "btt11") for way in WAYS),
    ("btt1:256", "combine graph"),
    # Last: more than three minutes to compile on one H200's host (docs/gpu.md).
    *((text, "combine graph") for text in (MIXTURE, WIDE_MIXTURE)),
)
"""What is timed: of a mixture, which has the most small kernels, also whether they are better launched together; what
equal bits cost, beyond 256 tokens too, where attention takes another way for them."""


def compiling(check: Check, found: dict[str, Any]) -> None:
    """Seconds until a compiled step has run, several in new processes at a time; what follows finds it in the cache."""
    calls = {
        f"{text} {way}": (text, way)
        for text, way in dict.fromkeys(STEPS)
        if (WAYS | OTHER_WAYS)[way].compile != "false"
    }
    for key, seconds in in_processes(check, "compiling", _first_steps, calls if check.on_gpu else {}):
        found[key] = seconds


def _first_steps(text: str, way: str) -> float:
    began = time.monotonic()
    device = pick_device(Placement())
    step = whole_step(case(text).science, (WAYS | OTHER_WAYS)[way], device)
    for _ in range(WARM_UPS + 1):
        step()
    torch.cuda.synchronize()
    return time.monotonic() - began


def syncs(check: Check, found: dict[str, Any]) -> None:
    """No wait of the host for the device in five steps."""
    if not check.on_gpu:
        return
    for text in ("btt1:256", "dense:256:moe=btt:norm=learned"):
        for way, placement in WAYS.items():
            if not check.has_time(f"waits of {text} {way}"):
                return
            step = whole_step(case(text).science, placement, check.device)
            for _ in range(WARM_UPS + 2):
                step()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(5):
                    step()
                found[f"{text} {way}"] = "none"
            except RuntimeError as error:
                found[f"{text} {way}"] = str(error)[:200]
                check.expect(False, f"{text} {way} waits for the device: {str(error)[:100]}")
            finally:
                torch.cuda.set_sync_debug_mode("default")


def memory(check: Check, found: dict[str, Any]) -> None:
    """Peaks of steps against the model (anatomy/memory.py)."""
    if not check.on_gpu:
        return
    texts = ("dense:1024", "btt1:1024", "g2:1024", "dense:256:moe=btt:norm=learned", "btt1:1024:recompute")
    for text in (*texts, "dense:1024:micro=16384", "btt1:256:data=gpt2:micro=65536"):
        if not check.has_time(f"peak of {text}"):
            return
        one = case(text)
        needs = peak(one.science, one.placement)
        if needs.needed > 0.9 * torch.cuda.get_device_properties(check.device).total_memory:
            continue
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        # Launch by launch: a graph's memory stays as its largest moment was.
        step = whole_step(one.science, replace(one.placement, graphs="false"), check.device)
        step()
        step()
        measured = torch.cuda.max_memory_allocated() / GB
        found[text] = {"measured_gb": measured, "model_gb": needs.total / GB}
        check.compare(f"peak of {text}, GB", measured, needs.total / GB)
        del step


def steps(check: Check, found: dict[str, Any]) -> None:
    """Whole steps: tokens a second, MFU, host and device time, in every way to launch them."""
    predicted = _predicted()
    on_cpu = [(text, "eager") for text in ("dense:64:tokens=1024", "btt1:64:tokens=1024")]
    for text, way in dict.fromkeys(STEPS) if check.on_gpu else on_cpu:
        key = f"{text} {way}"
        if not check.has_time(f"step {key}"):
            return
        one = case(text).science
        step = whole_step(one, (WAYS | OTHER_WAYS)[way], check.device)
        taken = milliseconds(step, check.device, 1.0)
        start = time.perf_counter()
        step()
        host = 1e3 * (time.perf_counter() - start)
        flops = step_flops(one)
        found[key] = {
            "milliseconds": taken,
            "host_milliseconds": host,
            "tokens_per_second": one.optim.batch_tokens / taken * 1e3,
            "flops_per_second": flops / taken * 1e3,
            "mfu_of_h100": flops / taken * 1e3 / 989e12,
        }
        counted = ":".join([text, *({"compile", "combine"} & set(way.split()))])
        if check.on_gpu and counted in predicted:
            check.compare(f"{key}, ms", taken, max(predicted[counted], 1e3 * flops / RATE))
        del step


def _predicted() -> dict[str, float]:
    """Milliseconds of a step by the bytes that it moves (bench/results/fake-cuda.json)."""
    kept = json.loads((Path(__file__).parents[1] / "results" / "fake-cuda.json").read_text())["rows"]
    return {row["case"]: 1e3 * row["gb_moved"] * GB / BANDWIDTH for row in kept}


def side_by_side(check: Check, found: dict[str, Any]) -> None:
    """1, 2 and 4 runs on a GPU: tokens a second of all together, with and without MPS."""
    if not check.on_gpu:
        return
    code = (
        "import sys,torch;from bench.gpu.steps import whole_step,milliseconds;from bench.fake.cases import case;"
        "from structlin.config.placement import Placement;d=torch.device('cuda');one=case(sys.argv[1]).science;"
        "print(one.optim.batch_tokens/milliseconds(whole_step(one,Placement(),d),d,6.0)*1e3)"
    )
    for with_mps in (False, True) if shutil.which("nvidia-cuda-mps-control") else (False,):
        if with_mps:
            subprocess.run(["nvidia-cuda-mps-control", "-d"], check=False)
        for number in (1, 2, 4):
            if not check.has_time(f"{number} runs a GPU{' under MPS' if with_mps else ''}"):
                break
            command = [sys.executable, "-c", code, "btt1:256"]
            children = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=worker_environment(Placement()))
                for _ in range(number)
            ]
            try:
                speeds = [float(child.communicate(timeout=90)[0] or "nan") for child in children]
            finally:
                for child in children:
                    child.kill()
            found[f"{number} runs{' under MPS' if with_mps else ''}"] = sum(speeds)
        if with_mps:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, check=False, timeout=30)
