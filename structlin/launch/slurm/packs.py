"""Which runs share an array element, and which elements an array? Those of equal needs (resources.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from structlin.config.launch import SlurmLaunch
from structlin.config.placement import Placement
from structlin.launch.slurm.resources import Order, Resources, run_bytes, run_seconds, runs_per_gpu
from structlin.runs.job import Job

T = TypeVar("T")
MEMORY_LADDER_GB = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
EARLY_SECONDS = 60
"""SLURM may warn so much earlier than it was asked to."""
START_MINUTES = 3
"""Until the first step: interpreter, imports, data, kernels, the first compilation."""


@dataclass(frozen=True)
class Pack:
    """The jobs of one array element."""

    orders: tuple[Order, ...]
    resources: Resources
    after: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    cluster: str = ""

    @property
    def jobs(self) -> list[Job]:
        """What it trains."""
        return [order.job for order in self.orders]


@dataclass(frozen=True)
class _Need:
    """What decides which jobs may share an element."""

    minutes: float
    memory_gb: int
    rounds: int
    """Jobs one after another in a lane."""
    runs_per_gpu: int
    more_time: float
    more_memory: float
    after: tuple[str, ...]
    exclude: tuple[str, ...]
    cluster: str


def packs(orders: Iterable[Order], launch: SlurmLaunch, placement: Placement) -> list[Pack]:
    """Jobs of equal needs side by side in as many lanes as ``launch`` says, short ones also one after another.

    Packs of equal resources and dependencies follow one another: each such group becomes one or more arrays.
    """
    groups: dict[_Need, list[Order]] = {}
    for order in orders:
        groups.setdefault(_need(order, launch, placement), []).append(order)
    found = [
        Pack(tuple(members), _resources(need, len(members), launch, placement), need.after, need.exclude, need.cluster)
        for need, orders_of_need in groups.items()
        for members in _evenly(orders_of_need, _lanes(need, launch) * need.rounds)
    ]
    return sorted(found, key=lambda pack: (pack.after, pack.exclude, pack.cluster, pack.resources))


def arrays(found: Sequence[Pack], most: int) -> Iterator[list[Pack]]:
    """Packs of equal resources and dependencies, in arrays of at most ``most`` elements."""
    groups: dict[tuple[object, ...], list[Pack]] = {}
    for pack in found:
        groups.setdefault((pack.after, pack.exclude, pack.cluster, pack.resources), []).append(pack)
    for members in groups.values():
        yield from _evenly(members, most)


def _need(order: Order, launch: SlurmLaunch, placement: Placement) -> _Need:
    minutes = _octave(run_seconds(order, launch, placement) / 60)
    # Only what was measured is queued up: a wrong guess would not add up over a whole lane.
    rounds = max(1, int(launch.min_minutes // minutes)) if order.is_measured else 1
    memory = _rung(run_bytes(order, launch, placement) / 1e9)
    shared = runs_per_gpu(order.job.science, launch, placement)
    more = (order.more_time, order.more_memory, order.after, order.exclude, order.cluster)
    return _Need(minutes, memory, rounds, shared, *more)


def _lanes(need: _Need, launch: SlurmLaunch) -> int:
    return replace(launch, runs_per_gpu=need.runs_per_gpu).lanes


def _resources(need: _Need, jobs: int, launch: SlurmLaunch, placement: Placement) -> Resources:
    minutes = need.minutes * math.ceil(jobs / _lanes(need, launch))
    return Resources(
        nodes=launch.nodes,
        gpus=launch.gpus_per_node,
        cpus=_cpus(launch, placement),
        memory_gb=_memory(launch, need.memory_gb * _lanes(need, launch), need.more_memory),
        minutes=_minutes(launch, minutes, need.more_time),
        runs_per_gpu=need.runs_per_gpu,
    )


def shares(sizes: Sequence[int], most: int) -> list[int]:
    """``%N`` of each array so that ``most`` elements run at once in all; 0 stands for no limit.

    By size, at least one each. Where there are more arrays than ``most``, one waits for the end of another.
    """
    if most == 0:
        return list(sizes)
    spare, more = max(0, most - len(sizes)), [size - 1 for size in sizes]
    found = [1 + min(extra, spare * extra // max(1, sum(more))) for extra in more]
    # What rounding left over goes to the largest arrays.
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        found[index] += max(0, min(most - sum(found), sizes[index] - found[index]))
    return found


def _evenly(members: Sequence[T], most: int) -> Iterator[list[T]]:
    """As few parts as hold at most ``most`` each, of nearly equal size."""
    count = math.ceil(len(members) / most)
    for part in range(count):
        yield list(members[part * len(members) // count : (part + 1) * len(members) // count])


def _cpus(launch: SlurmLaunch, placement: Placement) -> int:
    if launch.gpus_per_node:
        return launch.cpus_per_gpu * launch.gpus_per_node
    return placement.threads * (launch.gpus_per_run // launch.nodes if launch.is_parallel else launch.lanes)


def _memory(launch: SlurmLaunch, by_ledger: float, more: float) -> int:
    return math.ceil(by_ledger) if launch.memory_gb is None else math.ceil(launch.memory_gb * more)


def _minutes(launch: SlurmLaunch, by_bill: float, more: float) -> int:
    """Whole minutes, those of the warning on top, at most what the site lets."""
    if launch.time_minutes is not None:
        return min(launch.max_minutes, math.ceil(launch.time_minutes * more))
    warning = (launch.signal_seconds + EARLY_SECONDS) / 60
    return min(launch.max_minutes, math.ceil(START_MINUTES + by_bill + warning))


def _octave(minutes: float) -> float:
    """The power of two minutes above, so that few groups arise."""
    return 2.0 ** math.ceil(math.log2(max(minutes, 1 / 16)))


def _rung(gigabytes: float) -> int:
    return next((rung for rung in MEMORY_LADDER_GB if rung >= gigabytes), math.ceil(gigabytes))
