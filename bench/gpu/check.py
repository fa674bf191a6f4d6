"""What is known of a GPU so far, what time is left, and cases that are checked several at a time."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

import torch

FAR = 1.5
"""A number is far from its prediction where it is so many times as large, or as small."""


@dataclass
class Check:
    """What is known so far, and what time is left."""

    device: torch.device
    minutes: float
    began: float = field(default_factory=time.monotonic)
    until: float = math.inf
    """When the section at work has had its share of the time."""
    found: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    far: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    keep: Callable[[Check], object] = lambda check: None
    """Writes down what is known; asked before each case, since a machine may go, or a compiler take for ever."""

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to check."""
        return self.device.type == "cuda"

    @property
    def seconds_left(self) -> float:
        """Until the end of the time given."""
        return 60 * self.minutes - (time.monotonic() - self.began)

    def has_time(self, what: str) -> bool:
        """Whether the section at work may begin another case; notes where it may not."""
        self.keep(self)
        if time.monotonic() < self.until:
            return True
        self.left_out.append(f"{what} and what follows it")
        return False

    def expect(self, good: bool, said: str) -> bool:
        """Note a failure where it is none."""
        if not good:
            self.failures.append(said)
        return good

    def compare(self, what: str, measured: float, predicted: float) -> None:
        """Note a number that is far from its prediction."""
        ratio = measured / predicted if predicted else math.inf
        if not 1 / FAR <= ratio <= FAR:
            self.far.append(f"{what}: {measured:.3g}, predicted {predicted:.3g} (x {ratio:.2f})")


def in_processes(
    check: Check, what: str, function: Callable[..., Any], calls: Mapping[str, tuple[Any, ...]]
) -> Iterator[tuple[str, Any]]:
    """What is not timed against anything, in processes of its own, as it ends; what no time is left for is noted."""
    context = multiprocessing.get_context("spawn")
    workers = min(8, len(calls), max(1, len(os.sched_getaffinity(0)) // 2))
    if workers == 1:
        # One at a time needs no process of its own.
        for key, call in calls.items():
            if not check.has_time(f"{what} {key}"):
                return
            yield key, function(*call)
        return
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(function, *call): key for key, call in calls.items()}
        try:
            for future in as_completed(futures, timeout=max(1.0, check.until - time.monotonic())):
                yield futures[future], future.result()
        except TimeoutError:
            check.left_out += [f"{what} {key}" for future, key in futures.items() if not future.done()]
            for process in multiprocessing.active_children():
                process.kill()
