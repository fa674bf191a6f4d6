"""What became of a GPU by an error? Its memory is full, or its context is dead: every later call of the process fails.

Out of memory is the run's own: it needs less of it a step, not another try. After an illegal access, an ECC error or an
Xid the process has to end, and the run is given back as one whose node failed, for another GPU or process.
"""

from __future__ import annotations

import re

import torch

from structlin.errors import one_line

DEAD = re.compile(
    r"CUDA error|an illegal memory access|uncorrectable ECC|unspecified launch failure|device-side assert|GPU is lost|"
    r"CUDA-capable device\(s\) is/are busy|\bXid\b|CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|NCCL error",
    re.IGNORECASE,
)
OWN_FAULT = re.compile(r"device-side assert", re.IGNORECASE)
"""What a program does to itself: the context is dead as well, but another GPU would not help."""


class DeadGpu(Exception):
    """This process can use its GPU no more; what it trained has been given back."""


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether CUDA had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "CUDA out of memory" in str(error)


def is_dead(error: BaseException) -> bool:
    """Whether the process's CUDA context is lost with it."""
    return isinstance(error, RuntimeError) and not is_out_of_gpu_memory(error) and bool(DEAD.search(str(error)))


def reason_of(error: BaseException, way_out: str = "") -> str:
    """One line for the run's status: "gpu memory: ...", "node: ...", or the error by its name."""
    if is_out_of_gpu_memory(error):
        return f"gpu memory: {way_out or one_line(error)}"
    if is_dead(error) and not OWN_FAULT.search(str(error)):
        return f"node: {one_line(error)}"
    return f"{type(error).__name__}: {one_line(error)}"


def empty_memory() -> None:
    """Give what a run leaves of the GPU's memory back before the next one."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
