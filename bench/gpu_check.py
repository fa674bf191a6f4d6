"""Is everything right on this GPU, and how fast is it? Every claim that no CPU can prove, checked in one command.

    make gpu-check          (python -m bench.gpu_check [out=bench/results] [minutes=20] [only=layers,bits])

About 20 minutes on one GPU; on a CPU three, for what a CPU can do. It writes gpu-NAME-DATE.json with every number and
gpu-NAME-DATE.md, a page that names each check that failed and each number that differs from its prediction
(docs/gpu.md) by more than a factor of 1.5. Paste the JSON into an issue: predictions become measurements by it.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench.gpu.check import Check
from bench.gpu.layers import LIMITS, groups, layer_speed, layers
from bench.gpu.runs import bits, small, sweep, two_gpus
from bench.gpu.steps import compiling, memory, side_by_side, steps, syncs
from structlin.anatomy.memory import GB
from structlin.config.placement import Placement
from structlin.errors import key_values
from structlin.kernels import backends
from structlin.kernels.blocks import taken
from structlin.runs.driver import driver_version
from structlin.runs.machine import cpu_name, gpu_names
from structlin.training.device import CUBLAS_WORKSPACE, pick_device, settle


def environment(check: Check, found: dict[str, Any]) -> None:
    """Driver, build, architecture, compiler, Triton, NCCL, MIG."""
    found |= {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": driver_version(),
        "gpus": gpu_names(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "compiler": backends.triton_compiler(),
        "backend": {name: backends.backend_name(check.device, getattr(torch, name)) for name in LIMITS},
        "mps": shutil.which("nvidia-cuda-mps-control") is not None,
    }
    if check.on_gpu:
        one = torch.cuda.get_device_properties(check.device)
        found |= {"name": one.name, "memory_gb": one.total_memory / GB, "capability": f"{one.major}.{one.minor}"}
        found |= {"architectures": torch.cuda.get_arch_list(), "count": torch.cuda.device_count()}
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        check.expect(found["backend"]["bfloat16"].startswith("triton"), f"Triton does not serve: {found['backend']}")


SECTIONS: tuple[tuple[Callable[[Check, dict[str, Any]], None], float], ...] = (
    (environment, 1),
    (groups, 1),
    (bits, 4),
    (layers, 3),
    (syncs, 2),
    (memory, 2),
    (layer_speed, 1),
    (compiling, 3),
    (steps, 3),
    (side_by_side, 2),
    (two_gpus, 1),
    (sweep, 3),
)
"""With the share of the time each may take: what one leaves over is the others'."""


def run(check: Check, only: set[str]) -> None:
    """All sections, one after another; one that breaks off is a failure and stops no other. Each is kept as it ends."""
    chosen = [(section, share) for section, share in SECTIONS if not only or section.__name__ in only]
    for index, (section, share) in enumerate(chosen):
        name = section.__name__
        began = time.monotonic()
        check.until = began + check.seconds_left * share / sum(one for _, one in chosen[index:])
        if not check.has_time(name):
            continue
        found = check.found[name] = {}
        try:
            section(check, found)
        except Exception as error:
            found["broke"] = traceback.format_exc()[-2000:]
            check.failures.append(f"{name} broke: {type(error).__name__}: {str(error)[:200]}")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        check.found["blocks"] = taken()
        check.keep(check)


def page(record: Mapping[str, Any]) -> str:
    """What went wrong, what is far from its prediction, and the numbers of a record as it is kept."""
    lines = [f"# {record['name']}", ""]
    for title, part in (("Failed", "failures"), ("Far from their prediction", "far"), ("Left out", "left_out")):
        lines += [f"## {title}", "", *(f"- {item}" for item in record[part] or ["nothing"]), ""]
    for section, values in record["found"].items():
        lines += [f"## {section}", "", "| what | found |", "|---|---|"]
        lines += [f"| {key} | {_shown(value)} |" for key, value in values.items()] + [""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return str(value).replace("\n", " ")[:500]


def main(arguments: list[str]) -> int:
    """0 where nothing failed."""
    values = key_values(arguments, {"out": "bench/results", "minutes": "0", "only": "-"})
    # As a worker has it (launch/worker_process.py), before the first product makes a handle.
    os.environ.setdefault(CUBLAS_WORKSPACE, ":4096:8")
    device = pick_device(Placement(threads=len(os.sched_getaffinity(0))))
    settle(device, Placement(), small())
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    safe = "-".join("".join(c if c.isalnum() else " " for c in called).split())
    stem = Path(values["out"]) / f"gpu-{safe}-{time.strftime('%Y-%m-%d')}"
    stem.parent.mkdir(parents=True, exist_ok=True)

    def keep(check: Check) -> None:
        record = {"name": called, **{key: getattr(check, key) for key in ("failures", "far", "left_out", "found")}}
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        stem.with_suffix(".md").write_text(page(record))

    check = Check(device, float(values["minutes"]) or (20.0 if device.type == "cuda" else 3.0), keep=keep)
    run(check, set() if values["only"] == "-" else set(values["only"].split(",")))
    print(stem.with_suffix(".md").read_text())
    print(f"kept: {stem}.json and {stem}.md")
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
