"""Is the model compiled before it trains? On a GPU, where a step waits for memory traffic and for Python.

torch.compile fuses residual, norm, cast, GELU, RMS caps and routing into few kernels; our own operators are opaque to
it. Where it fails, the step runs as written, which a log line says.
"""

from __future__ import annotations

import torch
from torch import nn

from structlin.config.placement import Placement


def compiled(forward: nn.Module, placement: Placement, device: torch.device) -> nn.Module:
    """The module as a step calls it."""
    if not placement.compiles(device.type):
        return forward
    if device.type == "cuda":
        torch._dynamo.config.suppress_errors = placement.compile == "auto"
        # Layers of one model differ in their sizes: each is a graph of its own, and none is made general.
        torch._dynamo.config.recompile_limit = 64
    # Blocks of what is combined by a rule, not by timing, which would decide over last bits.
    options = {"combo_kernels": True, "combo_kernels_autotune": 0} if placement.compile == "combine" else None
    found: nn.Module = torch.compile(forward, dynamic=False, options=options)  # type: ignore
    return found
