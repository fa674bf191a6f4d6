"""What does a run need of a cluster, and which runs share an array element?

Time is steps / throughput with a margin, memory comes from the ledger; a profile may fix either. Both are rounded up
to a ladder, so that equal needs meet in one array. A throughput nobody has measured is assumed low (``ASSUMED``):
the run is then promised too much time, never too little, and what it reaches is measured for the next submission.
"""

from __future__ import annotations

from dataclasses import dataclass

from structlin.anatomy.compute import flops_between
from structlin.anatomy.ledger import ledger
from structlin.anatomy.memory import GB, fitted, peak
from structlin.config.launch import SlurmLaunch
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.runs.job import Job

MOST_RUNS_PER_GPU = 4
"""More runs side by side slow each other down (assumed)."""
TIME_MARGIN = 1.5
MEMORY_MARGIN = 1.25
ASSUMED_GPU_FLOPS = 5e12
"""Training FLOP/s of a GPU before it was measured: small structured models leave most of it idle (assumed)."""
ASSUMED_CORE_FLOPS = 2e9
"""The same for a CPU core (assumed; a core of 2020 and later measures 1e10 and more)."""
ASSUMED_STEP_SECONDS = 0.02
"""No step is taken for shorter before it was measured: small models wait for Python (assumed)."""
PROCESS_BYTES = 0.75e9
"""A training process before its model: interpreter, torch (measured .4 GB on CPU) and its allocator."""
GPU_PROCESS_BYTES = 6.0e9
"""The same with CUDA (assumed)."""


@dataclass(frozen=True, order=True)
class Resources:
    """What an array element asks SLURM for, on each of its nodes; elements with equal ones share an array."""

    nodes: int
    gpus: int
    cpus: int
    memory_gb: int
    minutes: int
    runs_per_gpu: int = 1


@dataclass(frozen=True)
class Order:
    """A job to be submitted, and what is known about it."""

    job: Job
    steps: int
    """Steps that are still to be trained."""
    tokens_per_second: float | None
    """By measurement under this profile; None: never measured."""
    more_time: float = 1.0
    """Factor after it ran out of time."""
    more_memory: float = 1.0
    """Factor after it ran out of memory."""
    after: tuple[str, ...] = ()
    """Arrays that have to end before it: its trunk, or a shorter request for the same run."""
    exclude: tuple[str, ...] = ()
    """Nodes that have failed it lately."""
    cluster: str = ""
    """That of the arrays in ``after``, which it has to go to; empty where it may go to any."""

    @property
    def is_measured(self) -> bool:
        """Whether its time is known rather than assumed."""
        return self.tokens_per_second is not None


def run_seconds(order: Order, launch: SlurmLaunch, placement: Placement) -> float:
    """Seconds of training a run still needs, with the margin."""
    if order.tokens_per_second is not None:
        seconds = order.steps * order.job.science.optim.batch_tokens / order.tokens_per_second
    else:
        speed = ASSUMED_GPU_FLOPS if launch.gpus else ASSUMED_CORE_FLOPS * placement.threads
        # Ranks share the work, runs on one GPU share the GPU.
        shared = runs_per_gpu(order.job.science, launch, placement)
        speed *= launch.gpus_per_run / shared if launch.gpus else launch.gpus_per_run
        last = order.job.target_step
        flops = flops_between(order.job.science, last - order.steps, last)
        seconds = max(order.steps * ASSUMED_STEP_SECONDS, flops / speed)
    return seconds * TIME_MARGIN * order.more_time


def runs_per_gpu(science: Science, launch: SlurmLaunch, placement: Placement) -> int:
    """Runs like this one side by side on a GPU (or in an element without): as asked, or as many as fit its memory.

    UserError where more are asked for than fit.
    """
    asked = launch.runs_per_gpu
    available = launch.memory_of_gpu_gb * GB
    if not launch.gpus or launch.is_parallel or not available:
        return max(1, asked)
    needs = peak(
        science, fitted(science, placement, available).placement if placement.fit == "auto" else placement
    ).needed
    fits = int(available // needs)
    if asked == 0:
        return max(1, min(MOST_RUNS_PER_GPU, fits))
    if asked > 1 and asked > fits:
        raise UserError(
            f"launch.runs_per_gpu = {asked} runs of {science.variant} at d_model = {science.model.d_model} with "
            f"{needs / GB:.3g} GB each do not fit the {available / GB:.3g} GB of a GPU; give at most {max(1, fits)}, "
            "or 0 for as many as fit"
        )
    return asked


def run_bytes(order: Order, launch: SlurmLaunch, placement: Placement) -> float:
    """Host memory of a run on a node: weights, gradients and two moments of Adam, activations, and the process.

    On a GPU the host holds only what a checkpoint copies.
    """
    costs = ledger(order.job.science)
    if launch.gpus:
        per_rank = GPU_PROCESS_BYTES + 3 * costs.weight_bytes
    else:
        activations = costs.kept_bytes(fused=False, recompute=placement.recompute)
        per_rank = PROCESS_BYTES + 4 * costs.weight_bytes + activations / launch.gpus_per_run
    ranks = launch.gpus_per_run // launch.nodes
    return per_rank * ranks * MEMORY_MARGIN * order.more_memory
