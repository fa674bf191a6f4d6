"""What becomes of a GPU by an error: no memory is the run's own, a dead context ends the process and is the node's."""

import json
from pathlib import Path

import pytest
import torch

from structlin.launch.worker_process import Worker
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.training import loop, worker
from structlin.training.failures import DeadGpu, is_dead, is_out_of_gpu_memory, reason_of
from tests.tiny import PLACEMENT, tiny, train

MEMORY = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
)
ILLEGAL = RuntimeError(
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
)
ASSERT = RuntimeError("CUDA error: device-side assert triggered")

# (error, whether its process is lost, how its reason begins)
ERRORS = [
    (MEMORY, False, "gpu memory: "),
    (ILLEGAL, True, "node: CUDA error: an illegal memory access was encountered CUDA kernel errors"),
    (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True, "node: "),
    (RuntimeError("CUDA error: unspecified launch failure"), True, "node: "),
    (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp, unhandled cuda error, Xid 79"), True, "node: "),
    (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), True, "node: "),
    # The program's own fault: another GPU would not help.
    (ASSERT, True, "RuntimeError: CUDA error: device-side assert"),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, "RuntimeError: mat1"),
    (MemoryError("host"), False, "MemoryError: host"),
    (OSError("CUDA error: on a disk"), False, "OSError: "),
]


@pytest.mark.parametrize(("error", "dead", "reason"), ERRORS)
def test_an_error_says_what_became_of_the_gpu(error: Exception, dead: bool, reason: str) -> None:
    assert is_dead(error) == dead
    assert is_out_of_gpu_memory(error) == (error is MEMORY)
    assert reason_of(error).startswith(reason)
    assert "\n" not in reason_of(error)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let every step raise."""

    def update(*_: object) -> None:
        raise error

    monkeypatch.setattr(loop.Trainer, "_update", update)


def test_a_full_gpu_is_named_with_its_way_out(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, MEMORY)
    monkeypatch.setattr("structlin.training.entry.gpu_bytes", lambda *_: 1.001e9)
    state, folder = train(tiny(), (2,), tmp_path, data_root)
    assert state == "failed"
    reason = folder.status()["reason"]
    assert reason.startswith("gpu memory: a step needs 1")
    assert "of 1 GB" in reason
    monkeypatch.setattr("structlin.training.entry.gpu_bytes", lambda *_: 80e9)
    train(tiny(), (2,), tmp_path, data_root)
    assert folder.status()["reason"].endswith("of 80 GB, so others use the GPU: lower launch.runs_per_gpu")


def test_a_dead_context_gives_the_run_back_and_ends_the_process(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ILLEGAL)
    with pytest.raises(DeadGpu, match="failed"):
        train(tiny(), (2,), tmp_path, data_root)
    folder = Store(tmp_path).folder(tiny())
    assert folder.status()["state"] == "failed"
    assert folder.status()["reason"].startswith("node: CUDA error")
    job = Job(tiny(), (2,))
    request = {
        "job": job.to_mapping(),
        "runs": str(tmp_path),
        "data_root": str(data_root),
        "placement": vars(PLACEMENT),
    }
    assert worker._answer(request, {}, lambda: False) == {"state": "failed", "reason": "", "ends": True}
    monkeypatch.undo()
    assert worker._answer(request, {}, lambda: False) == {"state": "done", "reason": ""}


def test_a_worker_whose_gpu_died_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that answers so and ends; the next request is another's."""
    program = tmp_path / "python"
    reply = json.dumps({"state": "failed", "reason": "", "ends": True})
    program.write_text(f"#!/bin/bash\necho started >> {tmp_path}/starts\nread line\necho '{reply}'\n")
    program.chmod(0o755)
    monkeypatch.setattr("structlin.launch.worker_process.sys.executable", str(program))
    one = Worker(PLACEMENT, None)
    for _ in range(2):
        assert one.train(Job(tiny(), (2,)), tmp_path, tmp_path) == "failed"
    one.close()
    assert (tmp_path / "starts").read_text() == "started\nstarted\n"
