"""When is the batch of a step read? On a GPU while the steps before it train, on a CPU when its turn has come.

A batch is a pure function of its step, so reading ahead changes nothing but the waiting. On a GPU a thread (of images
that are augmented a few) reads the next few batches while this one trains, and the copy from pinned memory makes the
host wait for nothing. On a CPU the reader would take the cores from the training: reading is below 1% of a step (of
augmented images more: bench/loader.py), and a thread makes no step faster (docs/lab-book.md), so there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from structlin.tasks.protocol import Batch

AHEAD = 4
"""Batches that are read before their steps: a slow file system has so many steps' time for one of them."""

Read = Callable[[int], Batch]
"""The batch of a step, counted from 0, on the CPU."""


@contextmanager
def batches(read: Read, device: torch.device, end: int, readers: int = 1) -> Iterator[Read]:
    """A function that gives the batch of a step on the device, for rising steps below ``end``."""
    if device.type != "cuda":
        yield read
        return
    with read_ahead(read, end, readers) as ahead:
        yield lambda step: _copied(ahead(step), device)


@contextmanager
def read_ahead(read: Read, end: int, readers: int = 1) -> Iterator[Read]:
    """``read``, which begins with the next steps below ``end`` in threads of its own when a step is asked for.

    What reading a step raises is raised where that step is asked for, and nowhere else.
    """
    pool = ThreadPoolExecutor(readers, thread_name_prefix="batches")
    begun: dict[int, Future[Batch]] = {}

    def batch(step: int) -> Batch:
        reading = begun.pop(step, None)
        found = read(step) if reading is None else reading.result()
        for following in range(step + 1, min(end, step + 1 + AHEAD)):
            if following not in begun:
                begun[following] = pool.submit(read, following)
        return found

    try:
        yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _copied(batch: Batch, device: torch.device) -> Batch:
    """On the device as soon as it gets there: the host goes on, and pinned memory lives until it has been copied."""
    inputs, targets = (part.pin_memory().to(device, non_blocking=True) for part in batch)
    return inputs, targets
