"""What the tests train on several processes: python -m tests.training.ranks OUT DATA_ROOT, once per rank.

All cases of one number of processes run one after another, since starting processes is what takes the time.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from structlin.config.moe import MoeConfig
from structlin.config.science import EvaluationConfig, Science
from structlin.nn.ranks import ALONE, Ranks
from structlin.nn.router import Router, auxiliary_loss
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.tasks.catalogue import open_task
from structlin.training import checkpoint
from structlin.training.entry import execute
from structlin.training.world import World
from tests.tiny import PLACEMENT, tiny

EVALUATIONS = (0, 5, 20, 50)
PLACED = replace(PLACEMENT, log_steps=1)
STOP_AFTER = 13


def science(dtype: str, **changes: Any) -> Science:
    """Two layers with learned scales (scalars, which FSDP cannot cut); validation batches that do not go round."""
    model = replace(tiny().model, num_layers=2, weight_norm="learned", dtype=dtype)
    return tiny(model=model, evaluation=EvaluationConfig(tokens=11 * 16), **changes)


EXACT, ROUNDED = science("float64"), science("float32")
EXPERTS = science("float64", moe=MoeConfig(kind="btt", num_experts=4))
BEGUN, STOPPED, FULL = (science("float64", seed=seed) for seed in (1, 2, 3))
"""BEGUN has been trained by one process; STOPPED is stopped half-way by the last rank; FULL finds its disk full."""


def cases(out: Path, data_root: Path, group: Callable[[str], World]) -> Iterator[tuple[str, Any]]:
    """Name and result of every case, as this rank sees them."""

    def train(name: str, science: Science, sharding: str, **options: Any) -> tuple[str, str]:
        job = Job(science, EVALUATIONS)
        placement = replace(PLACED, sharding=sharding, recompute=options.pop("recompute", False))
        return name, execute(job, Store(out / name), data_root, placement, world=group(sharding), **options)

    for sharding in ("ddp", "fsdp"):
        yield train(f"exact-{sharding}", EXACT, sharding)
        yield train(f"rounded-{sharding}", ROUNDED, sharding)
        yield train(f"experts-{sharding}", EXPERTS, sharding)
        yield train(f"recomputed-{sharding}", EXPERTS, sharding, recompute=True)
        yield train(f"begun-{sharding}", BEGUN, sharding)
        yield train(f"stopped-{sharding}", STOPPED, sharding, should_stop=LastRankStops())
        yield f"mixture-{sharding}", mixture(group(sharding))
    yield "evaluation", (evaluation(data_root, ALONE), evaluation(data_root, group("ddp")))
    yield "mean", gradient_of_a_mean(group("ddp"))
    write = checkpoint.write
    checkpoint.write = full_disk
    yield train("full", FULL, "ddp")
    checkpoint.write = write
    yield train("full", FULL, "fsdp")


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


def main() -> None:
    """Run every case as one rank and write down what it saw."""
    from structlin.training.distributed import Group, meet

    torch.set_num_threads(1)
    meet(torch.device("cpu"))
    out, data_root = Path(sys.argv[1]), Path(sys.argv[2])
    seen = dict(cases(out, data_root, Group))
    (out / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
    Group("ddp").close()


def start(world_size: int, out: Path, data_root: Path) -> list[dict[str, Any]]:
    """Run all cases on so many processes; what each rank saw."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    common |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.training.ranks", str(out), str(data_root)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world_size)
    ]
    try:
        codes = [process.wait(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * world_size
    return [json.loads((out / f"seen-{rank}.json").read_text()) for rank in range(world_size)]


if __name__ == "__main__":
    main()
