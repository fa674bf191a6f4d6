"""What the tests train on several processes: python -m tests.training.ranks WORLD_SIZE OUT DATA_ROOT KINDS.

It imports torch, which takes seconds of a processor, and then forks the ranks; they run one case after another.
"""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from structlin.config.guide import GuideConfig
from structlin.config.moe import MoeConfig
from structlin.config.science import EvaluationConfig, Science
from structlin.config.structure import StructureConfig
from structlin.nn.ranks import ALONE, Ranks
from structlin.nn.router import Router, auxiliary_loss
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.tasks.catalogue import open_learner, open_task
from structlin.tasks.shared import share
from structlin.training import checkpoint
from structlin.training.entry import execute
from structlin.training.optim import make_optimizer
from structlin.training.parts import gradients
from structlin.training.world import World
from tests.tiny import PLACEMENT, tiny

PLACED = replace(PLACEMENT, log_steps=1)
STOP_AFTER = 7
SECONDS = 300
"""Of all cases together; a rank that waits for another one ends then."""


def science(dtype: str, **changes: Any) -> Science:
    """Two layers with learned scales (scalars, which FSDP cannot cut); validation batches that do not go round."""
    model = replace(tiny().model, num_layers=2, weight_norm="learned", dtype=dtype)
    return tiny(model=model, evaluation=EvaluationConfig(tokens=11 * 16), **changes)


EXACT, ROUNDED = science("float64"), science("float32")
EXPERTS = science("float64", moe=MoeConfig(kind="btt", num_experts=4))
GUIDED = science("float64", guide=GuideConfig("stochastic", steps=8))
"""Guides that are not drawn take no part in a step; from step 8 on there are none."""
NESTED = replace(EXACT, structure=StructureConfig("(1|0|0|0|1|0|4*0)"), nested="layer:1/4,1")
"""Ranks that are not drawn have gradients of zero."""
RECIPE = replace(
    EXACT,
    model=replace(
        EXACT.model, weight_norm="none", positions="rope", tied=True, kv_heads=1, qk_norm=False, init="orthonormal",
        biases=("blocks.*", "norm"),
    ),
    optim=replace(EXACT.optim, rate_rule="plain", weight_decay=0.1, decayed=("factor", "embedding", "gain", "bias")),
)  # fmt: skip
"""One table is read by both ends of the model."""
BEGUN, STOPPED, FULL = (science("float64", seed=seed) for seed in (1, 2, 3))
"""BEGUN has been trained by one process; STOPPED is stopped half-way by the last rank; FULL finds its disk full."""

EVALUATIONS = {
    EXACT: (0, 5, 20, 50),
    ROUNDED: (0, 5, 20),
    EXPERTS: (0, 5, 12),
    GUIDED: (0, 5, 12),
    NESTED: (0, 5, 12),
    RECIPE: (0, 5, 12),
    BEGUN: (0, 8, 16),
    STOPPED: (0, 5, 16),
    FULL: (0, 8),
}
"""Where each run is evaluated; it ends with the last."""

NUMBERS = ("exact", "experts", "mixture", "parts", "evaluation", "mean")
"""The cases that say whether so many ranks compute what one process does; the others are about one run's way."""
KINDS = (*NUMBERS, "guided", "nested", "recipe", "rounded", "recomputed", "begun", "stopped", "full")


def cases(out: Path, data_root: Path, group: Callable[[str], World]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name of every case, begun with its kind, and what gives its result as this rank sees it."""

    def train(name: str, science: Science, sharding: str, **options: Any) -> str:
        job = Job(science, EVALUATIONS[science])
        placement = replace(PLACED, sharding=sharding, recompute=options.pop("recompute", False))
        return execute(job, Store(out / name), data_root, placement, world=group(sharding), **options)

    def trained(name: str, science: Science, sharding: str, **options: Any) -> tuple[str, Callable[[], str]]:
        name = f"{name}-{sharding}"
        return name, lambda: train(name, science, sharding, **options)

    def full() -> list[str]:
        write, checkpoint.write = checkpoint.write, full_disk
        first = train("full", FULL, "ddp")
        checkpoint.write = write
        return [first, train("full", FULL, "fsdp")]

    for sharding in ("ddp", "fsdp"):
        yield trained("exact", EXACT, sharding)
        yield trained("rounded", ROUNDED, sharding)
        yield trained("experts", EXPERTS, sharding)
        yield trained("guided", GUIDED, sharding)
        yield trained("nested", NESTED, sharding)
        yield trained("recipe", RECIPE, sharding)
        yield trained("recomputed", EXPERTS, sharding, recompute=True)
        yield trained("begun", BEGUN, sharding)
        yield trained("stopped", STOPPED, sharding, should_stop=LastRankStops())
        yield f"mixture-{sharding}", lambda sharding=sharding: mixture(group(sharding))
        yield f"parts-{sharding}", lambda sharding=sharding: in_parts(group(sharding))
    yield "evaluation", lambda: (evaluation(data_root, ALONE), evaluation(data_root, group("ddp")))
    yield "mean", lambda: gradient_of_a_mean(group("ddp"))
    yield "full", full


class LastRankStops:
    """Asks only the last rank to stop, and only after some steps."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1

    def __call__(self) -> bool:
        self.asked += 1
        return self.is_last and self.asked > STOP_AFTER


def full_disk(folder: Path, step: int, state: Any) -> None:
    """/dev/full answers every write with the real ENOSPC."""
    with open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"checkpoint")


def evaluation(data_root: Path, ranks: Ranks) -> float:
    """Validation loss of a model with random weights everywhere."""
    task = open_task(EXACT, data_root)
    model = task.build_model()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return task.validation_loss(model.eval(), torch.device("cpu"), ranks)


def gradient_of_a_mean(world: World) -> tuple[list[float], list[float]]:
    """Mean over ranks of (rank + 1) w, and the gradient that this rank sees of its square."""
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    mean = world.mean((world.rank + 1) * w)
    mean.square().sum().backward()
    assert w.grad is not None
    return mean.tolist(), world.mean(w.grad).tolist()


class Mixture(nn.Module):
    """A linear map and a router whose chosen experts' logits weigh their scalars."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.blocks = nn.ModuleList([Router(6, 4, 2, base_d_in=6).double()])
        self.experts = nn.Parameter(torch.randn(4, 6, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """x (T, 6) -> (T,): the weighted sum of what the chosen experts say."""
        routes = self.blocks[0](x)
        rows_N = (x @ self.experts.T).repeat_interleave(2, 0)[routes.order_N]
        ends = torch.searchsorted(routes.ends_E, torch.arange(len(routes.order_N)), right=True)
        said_N = rows_N.gather(1, ends[:, None])[:, 0] * routes.weight_N
        return torch.zeros(len(x), dtype=x.dtype).index_add(0, routes.token_N, said_N)


def mixture(world: World) -> list[float]:
    """Losses of 30 steps of a router, its balance loss included; at first all experts tie."""
    model = Mixture()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    forward = world.place(model, optimizer, torch.device("cpu"))
    losses = []
    for step in range(30):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 6, generator=generator, dtype=torch.float64)
        part = 32 // world.world_size
        mine = x[world.rank * part : (world.rank + 1) * part]
        error = (forward(mine) - mine.prod(-1)).square().mean()
        balance = auxiliary_loss(model, 0.1)
        assert balance is not None
        loss = error + 0.5 * balance
        loss.backward()
        world.clip(model, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(world.mean(loss.detach())))
    return losses


def in_parts(world: World, parts: int | None = None) -> list[float]:
    """Losses of four steps of a mixture; a rank computes its rows in so many parts (None: one by one)."""
    learner = open_learner(EXPERTS)
    model = learner.build_model()
    optimizer = make_optimizer(model, EXPERTS.optim)
    forward = world.place(model, optimizer, torch.device("cpu"))
    losses = []
    for step in range(4):
        batch = learner.random_batch(EXPERTS.rows, torch.Generator().manual_seed(step))
        rows = share(EXPERTS.rows, world)
        mine = batch[0][rows], batch[1][rows]
        number = parts or rows.stop - rows.start
        loss = gradients(EXPERTS, learner, model, forward, mine, number, world)
        world.clip(model, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(world.mean(loss)))
    return losses


def run_rank(rank: int, out: Path, data_root: Path, kinds: Sequence[str]) -> None:
    """Run the cases of some kinds as one rank and write down what it saw."""
    from structlin.training.distributed import Group, meet

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    meet(torch.device("cpu"))
    seen = {name: run() for name, run in cases(out, data_root, Group) if name.partition("-")[0] in kinds}
    (out / f"seen-{rank}.json").write_text(json.dumps(seen))
    Group("ddp").close()


def main() -> None:
    """Fork all ranks; exit with 1 where one of them failed."""
    import torch._dynamo  # every optimizer does

    import structlin.training.distributed  # noqa: F401

    torch.set_num_threads(1)
    world_size, out, data_root, kinds = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4].split(",")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    fork = multiprocessing.get_context("fork")
    ranks = [fork.Process(target=run_rank, args=(rank, out, data_root, kinds)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    deadline = time.monotonic() + SECONDS
    for process in ranks:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.join()
    sys.exit(any(process.exitcode != 0 for process in ranks))


def start(world_size: int, out: Path, data_root: Path, kinds: Sequence[str] = KINDS) -> None:
    """Run the cases of some kinds on so many processes."""
    command = [sys.executable, "-m", "tests.training.ranks", str(world_size), str(out), str(data_root), ",".join(kinds)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(command, env=environment, check=True, timeout=2 * SECONDS)


def seen(world_size: int, out: Path) -> list[dict[str, Any]]:
    """What each rank saw."""
    return [json.loads((out / f"seen-{rank}.json").read_text()) for rank in range(world_size)]


if __name__ == "__main__":
    main()
