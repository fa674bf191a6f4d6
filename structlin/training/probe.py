"""How fast does a run train when nothing else does? A short measurement, made once per machine and shape and kept."""

from __future__ import annotations

import time
from statistics import median

import torch

from structlin.anatomy.compute import step_flops
from structlin.anatomy.memory import fitted
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.nn.blocks import recompute
from structlin.tasks.catalogue import open_learner
from structlin.training.compiling import compiled
from structlin.training.device import gpu_bytes, pick_device, settle
from structlin.training.optim import make_optimizer
from structlin.training.parts import parts_of
from structlin.training.update import WARM_UPS, Replayed, make_update
from structlin.training.world import ONE_PROCESS

# Enough arithmetic to be measured, little enough to be done in about a second on a slow core.
PROBE_FLOPS = 4e10
MOST_STEPS = 12


def tokens_per_second(science: Science, placement: Placement) -> float:
    """Training tokens (or samples) a second of a run's model alone on this machine, on a random batch.

    A step takes the run's own batch, or on a CPU fewer sequences where a whole one would take long; the median over a
    few steps after one of burn-in.
    """
    device = pick_device(placement)
    learner = open_learner(science)
    settle(device, placement, science)
    if device.type == "cuda" and placement.fit == "auto":
        placement = fitted(science, placement, gpu_bytes(placement, device)).placement
    rows = rows_of(science, placement, device)
    model = learner.build_model().to(device)
    if placement.recompute:
        recompute(model)
    forward = compiled(model, placement, device)
    parts = parts_of(science, placement) if device.type == "cuda" else 1
    optimizer = make_optimizer(model, science.optim)
    update = make_update(science, learner, model, forward, optimizer, placement, device, parts, ONE_PROCESS)
    inputs, targets = learner.random_batch(rows, torch.Generator().manual_seed(0))
    batch = (inputs.to(device), targets.to(device))
    flops = step_flops(science) // science.rows * rows
    steps = int(min(MOST_STEPS, max(3, PROBE_FLOPS // flops)))
    seconds = []
    first = WARM_UPS + 1 if isinstance(update, Replayed) else 1
    for _ in range(first + steps):
        began = time.perf_counter()
        update(batch, 0.0)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return rows * science.model.context / median(seconds[first:])


def rows_of(science: Science, placement: Placement, device: torch.device) -> int:
    """Sequences of a measured step: all on a GPU, which a part would leave idle; on a CPU what takes a second."""
    if device.type == "cuda":
        return science.rows
    a_row = step_flops(science) / science.rows
    return max(1, min(science.rows, int(PROBE_FLOPS // (3 * a_row))))
