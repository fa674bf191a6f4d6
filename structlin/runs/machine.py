"""On which machine? Names of its processor and GPUs without torch, so that bills and records can say it alike."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from structlin.config.placement import Placement
from structlin.runs import devices

BACKEND = ("device", "device_name", "threads", "backend", "torch_version", "world_size")
"""What of a run's provenance its table and its copy at W&B show."""


def machine_key(placement: Placement) -> str:
    """Names the hardware that one training process of this placement uses; throughputs are kept under it."""
    gpus = gpu_names() if placement.device != "cpu" else []
    if gpus:
        return placement.as_it_runs(gpus[0])
    return placement.as_it_runs(f"{cpu_name()}, {placement.threads} thread{'s' if placement.threads > 1 else ''}")


def gpu_names() -> list[str]:
    """Models of the NVIDIA GPUs that this process may use, e.g. ["NVIDIA H200"].

    UserError for a CUDA_VISIBLE_DEVICES that names none (devices.visible).
    """
    gpus, names = devices.listed(), devices.here()
    return [devices.model(name, gpus) for name in names] if gpus else []


def cpu_name() -> str:
    """Model name of the processor and its number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"
