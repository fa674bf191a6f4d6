"""What is saved so that a run goes on as if nothing had happened? Model, optimizer, step and random state.

Batches, rates and the horizon are pure functions of the step and are not saved. Files are written beside and
renamed, and read with weights_only=True: nothing read from disk is ever executed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from structlin.host.files import write_atomically
from structlin.runs.checkpoints import path_of
from structlin.training.world import World


def state_of(step: int, model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """All that a checkpoint holds: whole tensors by the names of the model, whatever the number of ranks.

    Complete on the first rank of the world only, but every rank has to ask for it.
    """
    return {
        "step": step,
        "model": world.whole(model.state_dict()),
        "optimizer": world.whole(optimizer.state_dict()),
        "random_state": torch.get_rng_state(),
    }


def write(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write step-XXXXXXXX.pt; an OSError (full disk) leaves older checkpoints as they were."""
    write_atomically(path_of(folder, step), lambda stream: torch.save(state, stream))


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint into a model and its optimizer; returns the step.

    Raises an exception of torch for a file that is torn or does not fit.
    """
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random_state"])
    return int(state["step"])
