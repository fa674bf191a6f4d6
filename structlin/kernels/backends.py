"""Which backend serves tensors of a device and dtype, and what does a run record of it?

triton  float32 and bfloat16 on CUDA GPUs of compute capability 8.0 or more (and on CPUs under Triton's interpreter)
cpp     float32 and bfloat16 on CPUs, where g++ builds the kernels
torch   everything else
"""

from __future__ import annotations

import logging
import os
import shutil
import sysconfig
from functools import cache
from importlib import metadata, util
from pathlib import Path

import torch

from structlin.kernels import compiler

_LOG = logging.getLogger(__name__)
DTYPES = (torch.float32, torch.bfloat16)
# bfloat16 on tensor cores, and the shared memory that the blocks need.
LEAST_CAPABILITY = (8, 0)


def backend_of(device: torch.device, dtype: torch.dtype) -> str:
    """triton, cpp or torch. "cpp" is said only after a kernel has been built."""
    if dtype not in DTYPES:
        return "torch"
    if has_triton(device) if device.type == "cuda" else interprets(device):
        return "triton"
    if device.type == "cpu" and compiler.works():
        return "cpp"
    return "torch"


def backend_name(device: torch.device, dtype: torch.dtype) -> str:
    """What a run records for tensors of this device and dtype (the dtype of autocast under it), with the version."""
    backend = backend_of(device, dtype)
    if backend == "triton":
        how = "" if device.type == "cuda" else " (interpreter)"
        return f"triton {metadata.version('triton')}{how}"
    found = compiler.find_compiler() if backend == "cpp" else None
    return backend if found is None else f"cpp ({compiler.version(found)})"


@cache
def has_triton(device: torch.device) -> bool:
    """Whether Triton is installed and compiles for this GPU; where only a compiler is missing, that is said."""
    serves = (
        torch.version.cuda is not None
        and util.find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY
    )
    if serves and not triton_compiler():
        _LOG.warning(
            "Triton needs a C compiler and Python's headers to start its kernels, and this node lacks one of them, so "
            "structured layers use the slower torch path; install gcc and python3-dev, or load a compiler's module"
        )
        return False
    return serves


@cache
def triton_compiler() -> str:
    """The C compiler that Triton builds its launchers with; empty where there is none, or no header of Python's."""
    found = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    if found is None or not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return ""
    return found


def interprets(device: torch.device) -> bool:
    """Whether Triton's kernels run on a CPU: slow, and what tests them where there is no GPU."""
    asked = os.environ.get("TRITON_INTERPRET") == "1"
    return asked and device.type == "cpu" and util.find_spec("triton") is not None
