"""What is written while training goes on? One piece of work at a time, in a thread; what it raises is raised later."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Background:
    """One thread, started at its first work."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._work: Future[None] | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Start the work once the one before has ended."""
        self.wait()
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="background")
        self._work = self._pool.submit(work)

    def wait(self) -> None:
        """Until the work has ended; raises what it raised."""
        work, self._work = self._work, None
        if work is not None:
            work.result()


def on_host(state: Any) -> Any:
    """A state whose tensors no later step changes: copies of them in the host's memory."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return type(state)((key, on_host(value)) for key, value in state.items())
    if isinstance(state, list | tuple):
        return type(state)(on_host(value) for value in state)
    return state


def may_run_beside(device: torch.device, sharding: str) -> bool:
    """Whether checkpoints are written beside the steps: of one process on a GPU, whose steps leave the host idle."""
    return device.type == "cuda" and sharding == "none"
