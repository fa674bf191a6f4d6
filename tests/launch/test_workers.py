"""How many workers does a machine get, and which GPU does each of them see?"""

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from structlin.config.placement import Placement
from structlin.config.request import Site
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.launch import local
from structlin.launch.local import make_worker, num_workers, probe_missing
from structlin.launch.worker_process import WorkerDied
from structlin.runs import devices
from structlin.runs.devices import Gpu
from structlin.runs.job import Job
from structlin.runs.speeds import Throughputs
from tests.tiny import tiny

GPUS = [Gpu("NVIDIA A100", f"GPU-{index}932f937-d72c-4106-c12f-20bd9faed9f6") for index in range(4)]
MIGS = ["MIG-7a8e2f11-53c2-5c1e-9d0c-2f1c6a2b9f10", "MIG-1b2c3d4e-53c2-5c1e-9d0c-2f1c6a2b9f10"]
CORES = len(os.sched_getaffinity(0))

SAYS_WHAT_IT_SEES = """#!/bin/sh
read -r request
echo "{\\"state\\": \\"${CUDA_VISIBLE_DEVICES-unset}\\"}"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A machine of four GPUs, whose training processes answer with the devices that they see."""
    python = tmp_path / "python"
    python.write_text(SAYS_WHAT_IT_SEES)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(devices, "listed", lambda: GPUS)
    return Site(tmp_path / "runs", tmp_path / "data", 1, 20, Placement())


def seen_by(index: int, site: Site) -> str:
    """What the real process of worker ``index`` finds in its environment."""
    worker = make_worker(index, site, None)
    try:
        return worker.train(Job(tiny(), (1,)), site.runs, site.data_root)
    finally:
        worker.close()


# (value of the variable, number of workers where none is asked for, what the workers 0 to 3 see)
CASES = [
    (None, 4, ["0", "1", "2", "3"]),
    ("2", 1, ["2", "2", "2", "2"]),
    ("3,1", 2, ["3", "1", "3", "1"]),
    ("0,2,-1,1", 2, ["0", "2", "0", "2"]),
    ("GPU-3932f937,GPU-0", 2, ["GPU-3932f937", "GPU-0", "GPU-3932f937", "GPU-0"]),
    (GPUS[1].uuid, 1, [GPUS[1].uuid] * 4),
    (",".join(MIGS), 2, [*MIGS, *MIGS]),
    (f"MIG-{GPUS[2].uuid}/1/0", 1, [f"MIG-{GPUS[2].uuid}/1/0"] * 4),
    ("", CORES, [""] * 4),
    ("-1", CORES, ["-1"] * 4),
    ("NoDevFiles", CORES, ["NoDevFiles"] * 4),
]


@pytest.mark.parametrize(("value", "count", "seen"), CASES)
def test_one_worker_per_visible_gpu_and_one_gpu_per_worker(
    value: str | None, count: int, seen: list[str], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert num_workers(0, site) == count
    assert num_workers(3, site) == 3
    assert [seen_by(index, site) for index in range(4)] == seen


def test_workers_of_the_processor_leave_the_variable_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "gpu0")
    on_cpu = replace(site, placement=Placement(device="cpu"))
    assert num_workers(0, on_cpu) == CORES
    assert seen_by(0, on_cpu) == "gpu0"


@pytest.mark.parametrize("value", ["gpu0", "0,0"])
def test_a_mistake_ends_before_any_worker_starts(value: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    for refused in (lambda: num_workers(0, site), lambda: make_worker(0, site, None)):
        with pytest.raises(UserError, match=f"CUDA_VISIBLE_DEVICES={value}"):
            refused()


def test_speeds_are_measured_as_many_at_a_time_as_runs_will_train(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that wait for each other in their probe both end; what fails is said, and the others are kept."""
    together, said, closed = threading.Barrier(2, timeout=20), [], []

    class Probe:
        def __init__(self, index: int, site: Site) -> None:
            self.index = index

        def probe(self, science: Science) -> float:
            together.wait()
            if science.model.d_model == 32:
                raise WorkerDied("no memory")
            return 1000.0 + science.model.d_model

        def close(self) -> None:
            closed.append(self.index)

    monkeypatch.setattr(local, "_worker", Probe)
    one = tiny()
    sciences = [replace(one, model=replace(one.model, d_model=width)) for width in (16, 32, 48, 64)]
    assert probe_missing([*sciences, *sciences], site, 2, said.append) == 4
    speeds = Throughputs(site.runs)
    assert [speeds.find(science, site.placement) for science in sciences] == [1016.0, None, 1048.0, 1064.0]
    assert sorted(closed) == [0, 1]
    assert "not measured: no memory" in said
    assert probe_missing([sciences[0]], site, 2, said.append) == 0
