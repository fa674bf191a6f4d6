"""A process that trains one tiny run when it is told to: several of them contend for its folder.

They are forked from one that has imported torch, which takes seconds of a processor.
"""

import multiprocessing
import os
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch._dynamo  # noqa: F401  every optimizer imports it

from tests.tiny import PLACEMENT, tiny, train

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload([__name__])
SECONDS = 120


class Contender:
    """A process of its own, in SLURM's eyes too: ``slurm`` are its variables."""

    def __init__(self, runs: Path, data_root: Path, target: int, checkpoint_seconds: float, **slurm: str) -> None:
        self._connection, other = FORKED.Pipe()
        arguments = (other, runs, data_root, target, checkpoint_seconds, slurm)
        self._process = FORKED.Process(target=_serve, args=arguments)
        self._process.start()
        other.close()
        assert self._said() == "ready"

    def start(self) -> None:
        """Let it train."""
        self._connection.send("train")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> str:
        """How its training ended."""
        said = self._said()
        self._process.join(SECONDS)
        assert self._process.exitcode == 0
        return said

    def _said(self) -> str:
        assert self._connection.poll(SECONDS)
        said: str = self._connection.recv()
        return said


def _serve(
    connection: Connection, runs: Path, data_root: Path, target: int, checkpoint_seconds: float, slurm: dict[str, str]
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]
    os.environ |= {f"SLURM_{name}": value for name, value in slurm.items()}
    placement = replace(PLACEMENT, checkpoint_seconds=checkpoint_seconds)
    connection.send("ready")
    connection.recv()
    state, _ = train(tiny(), (10, target), runs, data_root, placement=placement)
    connection.send(state)
