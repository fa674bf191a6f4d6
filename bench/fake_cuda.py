"""What would a training step do on a GPU? Told without one: on tensors of device "cuda" that hold nothing.

    FAKE/bin/python -m bench.fake_cuda [cases=dense:256,btt1:1024:recompute] [out=bench/results]

FAKE is an environment of its own with torch's CUDA build (several GB): python -m venv FAKE; FAKE/bin/pip install
torch==2.13.0 numpy, and g++. Nothing runs: every operation says its shapes (torch's FakeTensorMode), and counted are
kernels, bytes that they read and write (each tensor once), what is alive at a time, and waits of the host.

What is counted is exact for operations launched one by one. Of a compiled model they are the kernels into which
Inductor schedules its forward and its backward pass; loss, clipping and optimizer stay as they are, as in a run. How
long a step takes is not counted: no time stands here. Peaks are those of live tensors; an allocator keeps a few percent
more.

A case is structure:width and words: recompute, micro=TOKENS, tokens=, layers=, context=, norm=, dtype=, moe=KIND,
experts=, data=gpt2 (byte pairs), paper (rounding), compile, combine (compile, and Inductor's combo kernels: independent
ones in one launch), fused (every layer of two factors in the fused kernels, whatever the rule says).
"""

from __future__ import annotations

import collections
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.fake.cases import Case, all_fused, case, placed
from bench.fake.compiled import Compiled
from bench.fake.count import Count
from bench.fake.device import pretend
from structlin.anatomy.memory import peak
from structlin.errors import key_values
from structlin.tasks.next_token import NextTokenLearner
from structlin.training.parts import gradients, parts_of
from structlin.training.world import ONE_PROCESS


@dataclass(frozen=True)
class Counted:
    """What a step of a case does."""

    case: Case
    kernels: int
    gigabytes_moved: float
    peak_gb: float
    where: str
    waits: list[str]
    model_gb: float
    by_kernel: collections.Counter[str] = field(repr=False)
    by_moved: collections.Counter[str] = field(repr=False)


def count(one: Case) -> Counted:
    """One optimizer step, counted."""
    combines = torch._inductor.config.patch(combo_kernels=one.placement.compile == "combine")
    with all_fused() if "fused" in one.name.split(":") else nullcontext(), combines:
        return _count(one)


def _count(one: Case) -> Counted:
    counter, mode = Count(), FakeTensorMode(allow_non_fake_inputs=True)
    compiles = one.placement.compiles("cuda")
    with mode, counter, placed(one) as (model, optimizer, batch):
        counter.kernels.clear()
        counter.moved.clear()
        counter.waits.clear()
        learner, parts = NextTokenLearner(one.science), parts_of(one.science, one.placement)
        forward: Any = Compiled(model, counter, mode) if compiles else model
        gradients(one.science, learner, model, forward, batch, parts, ONE_PROCESS)
        before = counter.kernels.copy(), counter.moved.copy(), list(counter.waits)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # Clipping asks the capability of a device for lists of tensors, which fakes do not have: nine launches.
        counter.kernels, counter.moved, counter.waits = before
        counter.kernels["clip"] += 9
        counter.moved["clip"] += 3 * sum(4 * parameter.numel() for parameter in model.parameters())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model_gb = peak(one.science, one.placement).total / 1e9
    return Counted(
        one,
        sum(counter.kernels.values()),
        sum(counter.moved.values()) / 1e9,
        model_gb if compiles else counter.peak / 1e9,
        "not counted" if compiles else counter.where,
        counter.waits,
        model_gb,
        counter.kernels,
        counter.moved,
    )


STEPS = [f"{name}:{width}" for width in (256, 1024) for name in ("dense", "btt1", "btt11")]
STEPS += [f"dense:{width}:moe=btt:norm=learned" for width in (256, 1024)]
COMPILED = [f"{text}:compile" for text in (*STEPS, "btt1:256:fused", "btt11:1024:fused")]
COMPILED += [f"{text}:combine" for text in STEPS if "moe" in text]
PEAKS = [f"{name}:{width}" for width in (256, 1024, 2048) for name in ("dense", "btt1", "btt11", "g2", "l2")]
PEAKS += [
    f"dense:{width}:moe={kind}:norm=learned{more}"
    for width in (256, 1024)
    for kind in ("btt", "ffn", "dense", "low_rank")
    for more in ("", ":experts=16")
]
PEAKS += ["btt1:1024:moe=ffn:norm=learned", "dense:1024:moe=ffn:layers=9:experts=16:norm=learned"]
PEAKS += [f"{name}:1024:{more}" for name in ("dense", "btt1", "g2") for more in ("recompute", "micro=16384")]
PEAKS += ["dense:1024:moe=btt:norm=learned:recompute", "dense:1024:moe=btt:norm=learned:micro=16384"]
PEAKS += [
    "btt1:256:data=gpt2:micro=65536",
    "dense:1536:data=gpt2:micro=32768",
    "btt1:1024:data=gpt2:micro=16384:recompute",
]
PEAKS += ["btt1:512:norm=fixed", "dense:512:dtype=float32", "btt1:512:dtype=float32"]


def main(arguments: list[str]) -> int:
    """Print the table, and keep it where ``out`` says."""
    values = key_values(arguments, {"cases": "", "out": "-", "kernels": "0"})
    pretend()
    texts = (
        values["cases"].split(",")
        if values["cases"]
        else [*STEPS, *COMPILED, *(name for name in PEAKS if name not in STEPS)]
    )
    rows = []
    for text in texts:
        began = time.monotonic()
        found = count(case(text))
        row = {
            "case": text,
            "kernels": found.kernels,
            "gb_moved": round(found.gigabytes_moved, 2),
            "peak_gb": round(found.peak_gb, 3),
            "model_gb": round(found.model_gb, 3),
            "waits": len(found.waits),
        }
        rows.append(row)
        ratio, seconds = found.model_gb / found.peak_gb, time.monotonic() - began
        print(
            f"{text:55s} {found.kernels:6d} kernels {found.gigabytes_moved:9.1f} GB moved, "
            f"peak {found.peak_gb:8.2f} GB, model {ratio:.3f} of it, {len(found.waits)} waits, "
            f"{seconds:.0f} s, at {found.where}",
            flush=True,
        )
        if values["out"] != "-":
            path = Path(values["out"]) / "fake-cuda.json"
            path.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")
        for name, number in found.by_kernel.most_common(int(values["kernels"])):
            print(f"    {number:6d} {found.by_moved[name] / 1e9:9.2f} GB {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
