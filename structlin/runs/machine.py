"""On which machine? Names of its processor and GPUs without torch, so that bills and records can say it alike."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from functools import cache
from pathlib import Path

from structlin.config.launch import GPU_MEMORY_GB
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


def cores() -> int:
    """CPU cores that this process may use: those it is bound to, and no more than the quota of its container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time a second that the control groups around this process allow; infinite without a quota.

    Version 2 writes "quota period" to cpu.max of every group on the way to the root, version 1 two files in its own
    hierarchy. A container sees its own group as the root.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        lines = []
    least = float("inf")
    for _, kinds, path in lines or [["0", "", "/"]]:
        bases = [root] if not kinds else [root / kinds, root / "cpu"] if "cpu" in kinds.split(",") else []
        for base in bases:
            place = base / path.strip("/")
            for folder in (place, *place.parents):
                least = min(least, _quota_of(folder))
                if folder == base:
                    break
    return least if least == float("inf") else max(1.0, least)


def _quota_of(folder: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        quota, _, period = (folder / "cpu.max").read_text().strip().partition(" ")
        return float("inf") if quota == "max" else int(quota) / int(period or 100_000)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return float("inf") if quota_us <= 0 else quota_us / int((folder / "cpu.cfs_period_us").read_text())
    return float("inf")


_SIZE = re.compile(r"(\d+)\s*GB", re.IGNORECASE)


def gpu_memory_gb() -> float:
    """Memory of the first GPU that this process may use, as its name says it; 0 where there is none, or no telling.

    "NVIDIA A100-SXM4-40GB" says 40 and "NVIDIA H200" means 141; a part of a GPU (MIG 1g.5gb) has what its profile says.
    """
    names = gpu_names()
    if not names:
        return 0.0
    name = names[0].lower()
    sizes = _SIZE.findall(name)
    if sizes:
        return float(sizes[-1])
    if "mig" in name:
        return 0.0
    return float(max((size for kind, size in GPU_MEMORY_GB.items() if re.search(rf"\b{kind}\b", name)), default=0))


@cache
def cpu_name() -> str:
    """Model name of the processor and its number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"
