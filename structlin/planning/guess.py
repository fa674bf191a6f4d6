"""How long will a run take where nothing like it was measured? A guess by its arithmetic, always shown as one.

A step takes a fixed time for its calls and the rest by its FLOPs: measured for structures of width 16 to 192, 3 layers,
on a core of an Intel Xeon with AVX-512 (torch 2.13.0), where the guess is within a factor of two; on GPUs assumed.
"""

from __future__ import annotations

from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.planning.horizon import flops_per_step
from structlin.runs.machine import gpu_names

CORE_FLOPS, GPU_FLOPS = 1.4e10, 2e13
"""Training FLOP/s of a thread and of a GPU in dense layers."""
STRUCTURED = 0.5
"""Share of that in structured layers, which are several small products."""
CORE_LAYER_SECONDS, GPU_LAYER_SECONDS = 6e-3, 2e-3
"""Seconds of a block in a step however little it computes."""


def guessed_seconds(science: Science, steps: int, placement: Placement) -> float:
    """Seconds of training ``steps`` steps alone on this machine, evaluations and start left out."""
    is_gpu = placement.device != "cpu" and bool(gpu_names())
    speed = GPU_FLOPS if is_gpu else CORE_FLOPS * placement.threads
    if science.structure.name != "dense" or science.moe.kind != "none":
        speed *= STRUCTURED
    calls = science.model.num_layers * (GPU_LAYER_SECONDS if is_gpu else CORE_LAYER_SECONDS)
    return steps * (calls + flops_per_step(science) / speed)
