"""Where do a run's numbers come from? The record of device, backend, code and data that goes into provenance."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from structlin import __version__
from structlin.anatomy.kinds import rounding_of
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.host.code import code_state, own_hash
from structlin.kernels import compiler
from structlin.kernels.backends import backend_name
from structlin.kernels.blocks import taken
from structlin.models.whole import whole_gradients
from structlin.runs.driver import driver_version
from structlin.runs.machine import cpu_name, machine_key
from structlin.tasks.protocol import Learner
from structlin.training.parts import tokens_of_part
from structlin.training.world import World


def unbuilt_kernels(learner: Learner, model: nn.Module, device: torch.device, task: str = "") -> list[str]:
    """The kernels of a model on the CPU that cannot be built here, where torch takes their place.

    Found by what will ask for them: a random sequence goes through the model, forwards and backwards, and a whole step
    of the ``task`` is asked for. It leaves no gradient, and every kernel that can be built, built.
    """
    if device.type != "cpu":
        return []
    compiler.forget_missed()
    learner.loss(model, learner.random_batch(1, torch.Generator().manual_seed(0))).backward()
    model.zero_grad(set_to_none=True)
    whole_gradients(model, task)
    return compiler.missed()


def backend_record(
    device: torch.device, placement: Placement, dtype: str, unbuilt: Sequence[str], world: World
) -> dict[str, Any]:
    """All that has to be equal for two runs to be equal bit by bit; ``unbuilt``: kernels that torch replaces."""
    backend = backend_name(device, torch_dtype(dtype))
    if unbuilt and backend.startswith("cpp"):
        backend = f"{backend}, in part torch"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": placement.threads if device.type == "cpu" else 0,
        "backend": f"{backend} compiled" if placement.compiles(device.type) else backend,
        "unbuilt": list(unbuilt),
        "torch_version": torch.__version__,
        "world_size": world.world_size,
        "sharding": world.sharding,
        "deterministic": placement.deterministic or device.type == "cpu",
    }


def torch_dtype(dtype: str) -> torch.dtype:
    """The dtype of products; those of tf32 are of float32 tensors."""
    found: torch.dtype = torch.float32 if dtype == "tf32" else getattr(torch, dtype)
    return found


def gpu_record(device: torch.device) -> dict[str, Any]:
    """Driver, CUDA and the GPU, whose model alone does not say what memory it has; and the blocks of its kernels."""
    if device.type != "cuda":
        return {}
    found = torch.cuda.get_device_properties(device)
    return {
        "driver": driver_version(),
        "cuda": torch.version.cuda,
        "gpu": {
            "name": found.name,
            "uuid": str(getattr(found, "uuid", "")),
            "memory_bytes": found.total_memory,
            "capability": f"{found.major}.{found.minor}",
            "multiprocessors": found.multi_processor_count,
        },
        "blocks": taken(),
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
        **gpu_record(device),
        "recompute": placement.recompute,
        "micro_tokens": tokens_of_part(science, placement, world.world_size),
        "fit": placement.fit,
        "structlin": __version__,
        "code": code_state(),
        "code_hash": own_hash(),
        "python": platform.python_version(),
        "host": platform.node(),
        "machine": machine_key(placement),
        "data_manifest": manifest_hash,
        "corpus": dict(corpus or {}),
        "rounding": rounding_of(science),
    }
