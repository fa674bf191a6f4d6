"""How long will a run take where nothing like it was measured? A guess by its arithmetic, always shown as one.

On a CPU a step takes a fixed time for its calls and the rest by its FLOPs: measured for structures of width 16 to
192, 3 layers, on a core of an Intel Xeon with AVX-512 (torch 2.13.0), where the guess is within a factor of two. On a
GPU it takes the time to move its activations, or that of its FLOPs where it is longer: within a factor of three of
the steps measured on an H200 (docs/gpu.md), on the slow side, since others move less a second.
"""

from __future__ import annotations

from structlin.anatomy.compute import flops_between
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.runs.machine import gpu_names

CORE_FLOPS, GPU_FLOPS = 1.4e10, 3e14
"""Training FLOP/s of a thread in dense layers, and of a GPU in large products in bfloat16."""
STRUCTURED = 0.5
"""Share of a thread's in structured layers, which are several small products."""
CORE_LAYER_SECONDS, GPU_LAYER_SECONDS = 6e-3, 1e-4
"""Seconds of a block in a step however little it computes."""
GPU_PLACE_SECONDS = 2.5e-10
"""Of a token, a block and a unit of width on a GPU: what a block reads and writes for each."""
MIXTURE, WIDE = 8, 3
"""Times as long take mixtures in every linear, and products in float32, on a GPU."""


def guessed_seconds(science: Science, steps: int, placement: Placement) -> float:
    """Seconds of training ``steps`` steps alone on this machine, evaluations and start left out."""
    if placement.device != "cpu" and gpu_names():
        return _gpu_seconds(science, steps)
    speed = CORE_FLOPS * placement.threads
    if science.structure.name != "dense" or science.moe.kind != "none":
        speed *= STRUCTURED
    return steps * science.model.num_layers * CORE_LAYER_SECONDS + flops_between(science, 0, steps) / speed


def _gpu_seconds(science: Science, steps: int) -> float:
    model = science.model
    moved = GPU_PLACE_SECONDS * science.optim.batch_tokens * model.num_layers * model.d_model
    moved *= MIXTURE if science.moe.kind != "none" else 1
    computed = flops_between(science, 0, steps) / GPU_FLOPS * (1 if model.dtype == "bfloat16" else WIDE)
    return steps * model.num_layers * GPU_LAYER_SECONDS + max(steps * moved, computed)
