"""How is one run trained by several processes? Each is this module, started by torchrun, with the same job file.

    torchrun --nproc-per-node 8 [--nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST] -m structlin.training.rank JOB

JOB is a JSON file with a worker's request: {"job": {...}, "runs": path, "data_root": path, "placement": {...}}. What
came of it stands in the run's folder, written by rank 0 alone. SIGTERM, SIGINT, SIGUSR1 or SIGUSR2 to any rank makes
all of them save a checkpoint after the same step and end.

Exit codes: 0 done, diverged, interrupted, superseded or trained by somebody else; 1 failed, or another rank is gone;
2 the user's mistake.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from structlin.anatomy.memory import peak
from structlin.config.identity import build
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError, one_line
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.training.device import pick_device
from structlin.training.distributed import Group, meet
from structlin.training.entry import BEREFT, execute
from structlin.training.failures import DeadGpu
from structlin.training.worker import StopFlag

UNFINISHED = ("failed", BEREFT)
"""Ends after which the ranks are no longer in step with each other."""

MEMORY_SHARE = 0.95
"""Of a GPU's memory that the accounted bytes may fill; the rest is for buffers of communication (assumed)."""


@record
def main() -> int:
    """Train the job of the file named on the command line as one rank of torchrun's; returns the exit code."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: torchrun --nproc-per-node N -m structlin.training.rank JOB.json")
    should_stop = StopFlag()
    request = json.loads(Path(sys.argv[1]).read_text())
    try:
        return 1 if _train(request, should_stop) in UNFINISHED else 0
    except DeadGpu:
        return 1
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return 2


def _train(request: dict[str, Any], should_stop: StopFlag) -> str:
    placement = build(Placement, request["placement"], "placement")
    job = Job.from_mapping(request["job"])
    device = pick_device(placement)
    meet(device)
    world = Group(choose_sharding(job.science, placement, device, dist.get_world_size()))
    state = execute(job, Store(Path(request["runs"])), Path(request["data_root"]), placement, should_stop, world)
    if state not in UNFINISHED:
        world.close()
    return state


def choose_sharding(science: Science, placement: Placement, device: torch.device, world_size: int) -> str:
    """ddp or fsdp: as asked, else fsdp where a rank of ddp would need more than ``MEMORY_SHARE`` of its GPU."""
    if placement.sharding != "auto":
        return placement.sharding
    if device.type == "cpu":
        return "ddp"
    available = torch.cuda.get_device_properties(device).total_memory
    return "fsdp" if needed_bytes(science, placement, world_size) > MEMORY_SHARE * available else "ddp"


def needed_bytes(science: Science, placement: Placement, world_size: int) -> int:
    """Bytes of one rank under ddp: weights, gradients and optimizer whole, activations of its share of the rows."""
    return round(peak(science, placement, world_size).needed)


def leave(code: int) -> NoReturn:
    """End this process at once, as all that counts is on disk.

    DistributedDataParallel keeps gloo's threads alive after ``close``. One that drops its last tensor while the
    interpreter is being taken down aborts the process (seen once, on a busy machine): torchrun
    would call a finished run failed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main() or 0)
