"""On what does a run train? The device, its settings, and the record of both that goes into provenance."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from structlin import __version__
from structlin.anatomy.kinds import rounding_of
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.host.files import read_json
from structlin.kernels import compiler
from structlin.kernels.backends import backend_name
from structlin.runs.devices import VARIABLE
from structlin.runs.machine import cpu_name, machine_key
from structlin.tasks.protocol import Learner
from structlin.training.world import World


def pick_device(placement: Placement) -> torch.device:
    """The device asked for; UserError where CUDA is asked for and absent."""
    if placement.device == "cuda" and not torch.cuda.is_available():
        value = os.environ.get(VARIABLE)
        shown = "" if value is None else f" with {VARIABLE}={value}"
        raise UserError(f"device=cuda, but torch sees no CUDA device here{shown}; use device=cpu or device=auto")
    if placement.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(placement.threads)
        return torch.device("cpu")
    return torch.device("cuda")


def unbuilt_kernels(learner: Learner, model: nn.Module, device: torch.device) -> list[str]:
    """The kernels of a model on the CPU that cannot be built here, where torch takes their place.

    Found by what will ask for them: a random sequence goes through the model, forwards and backwards. It leaves no
    gradient, and every kernel that can be built, built.
    """
    if device.type != "cpu":
        return []
    compiler.forget_missed()
    learner.loss(model, learner.random_batch(1, torch.Generator().manual_seed(0))).backward()
    model.zero_grad(set_to_none=True)
    return compiler.missed()


def backend_record(
    device: torch.device, placement: Placement, dtype: str, unbuilt: Sequence[str], world: World
) -> dict[str, Any]:
    """All that has to be equal for two runs to be equal bit by bit; ``unbuilt``: kernels that torch replaces."""
    backend = backend_name(device, getattr(torch, dtype))
    if unbuilt and backend.startswith("cpp"):
        backend = f"{backend}, in part torch"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": placement.threads if device.type == "cpu" else 0,
        "backend": f"{backend} compiled" if placement.compile else backend,
        "unbuilt": list(unbuilt),
        "torch_version": torch.__version__,
        "world_size": world.world_size,
        "sharding": world.sharding,
    }


def provenance(
    device: torch.device,
    placement: Placement,
    science: Science,
    manifest_hash: str,
    unbuilt: Sequence[str],
    world: World,
    corpus: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Where the numbers come from; no environment variable enters it. ``corpus``: its tokens and its plateau."""
    return {
        **backend_record(device, placement, science.model.dtype, unbuilt, world),
        "recompute": placement.recompute,
        "structlin": __version__,
        "code": code_state(),
        "python": platform.python_version(),
        "host": platform.node(),
        "machine": machine_key(placement),
        "data_manifest": manifest_hash,
        "corpus": dict(corpus or {}),
        "rounding": rounding_of(science),
    }


def code_state() -> str:
    """The commit of the code and whether it was changed since; unknown outside a git checkout.

    Code frozen for a submission carries its state in code.json beside the package.
    """
    root = Path(__file__).resolve().parents[2]
    if (root / "code.json").exists():
        frozen = read_json(root / "code.json")
        return f"{frozen['commit']}, frozen with the changes {frozen['diff_sha256'][:12]}"
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}{' with changes' if changed else ''}"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
