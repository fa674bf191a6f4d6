"""Any number of ranks trains the run that one process would, but for rounding; and only the first of them writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from structlin.anatomy.memory import peak
from structlin.config.placement import Placement
from structlin.errors import UserError
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store
from structlin.tasks.shared import mean_over, share
from structlin.training import checkpoint
from structlin.training.rank import choose_sharding, needed_bytes
from structlin.training.world import ONE_PROCESS
from tests.shared import made_once
from tests.tiny import tiny, train
from tests.training import ranks

SHARDINGS = ("ddp", "fsdp")


class Ran:
    """Cases of tests/training/ranks.py on so many processes."""

    def __init__(self, world_size: int, out: Path) -> None:
        self.world_size, self.out = world_size, out
        self.seen = ranks.seen(world_size, out)

    def folder(self, name: str, science: Any) -> RunFolder:
        return Store(self.out / name).folder(science)


@pytest.fixture(scope="module")
def run_ranks(tmp_path_factory, data_root: Path) -> Callable[..., Ran]:
    """Runs cases of some kinds on so many processes, once for all processes of pytest."""

    def run(world_size: int, kinds: Sequence[str] = ranks.KINDS) -> Ran:
        def make(out: Path) -> None:
            for sharding in SHARDINGS if "begun" in kinds else ():
                begun = ranks.EVALUATIONS[ranks.BEGUN][:2]
                train(ranks.BEGUN, begun, out / f"begun-{sharding}", data_root, placement=ranks.PLACED)
            ranks.start(world_size, out, data_root, kinds)

        return Ran(world_size, made_once(tmp_path_factory, f"{world_size}-ranks-{len(kinds)}", make))

    return run


RANKS = [2, pytest.param(4, marks=pytest.mark.long)]


@pytest.fixture(scope="module", params=RANKS, ids=lambda size: f"{size} ranks")
def ran(request, run_ranks) -> Ran:
    """The cases of ``ranks.NUMBERS``, at least."""
    return run_ranks(2) if request.param == 2 else run_ranks(request.param, ranks.NUMBERS)


@pytest.fixture(scope="module", params=RANKS, ids=lambda size: f"{size} ranks")
def ran_all(request, run_ranks) -> Ran:
    """Every case."""
    return run_ranks(request.param)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data_root: Path) -> dict[Any, RunFolder]:
    """The same runs by one process."""
    runs = tmp_path_factory.mktemp("alone")
    return {
        science: train(science, evaluations, runs, data_root, placement=ranks.PLACED)[1]
        for science, evaluations in ranks.EVALUATIONS.items()
    }


def differences(one: RunFolder, other: RunFolder) -> Iterator[tuple[int, float]]:
    """Step and difference of every loss; both have the same rows."""
    for kind, key in (("train", "loss"), ("eval", "val_loss")):
        left, right = one.journal.rows(kind), other.journal.rows(kind)
        assert [row["step"] for row in left] == [row["step"] for row in right]
        yield from ((a["step"], abs(a[key] - b[key])) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_float64_losses_of_50_steps_agree_to_1e_8(sharding: str, ran: Ran, alone) -> None:
    found = dict(differences(ran.folder(f"exact-{sharding}", ranks.EXACT), alone[ranks.EXACT]))
    assert sorted(found) == list(range(51))
    assert max(found.values()) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_float32_losses_agree_to_1e_5_over_5_steps_and_1e_4_by_step_20(sharding: str, ran_all: Ran, alone) -> None:
    found = list(differences(ran_all.folder(f"rounded-{sharding}", ranks.ROUNDED), alone[ranks.ROUNDED]))
    assert max(value for step, value in found if step <= 5) < 1e-5
    assert max(value for step, value in found if step <= 20) < 1e-4


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_mixture_of_experts_agrees_to_1e_8(sharding: str, ran: Ran, alone) -> None:
    """At step 0 all experts tie, so this holds only if ties are broken by the token's place in the whole batch."""
    found = differences(ran.folder(f"experts-{sharding}", ranks.EXPERTS), alone[ranks.EXPERTS])
    assert max(value for _, value in found) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_nested_ranks_are_drawn_alike_on_every_rank(sharding: str, ran_all: Ran, alone) -> None:
    found = differences(ran_all.folder(f"nested-{sharding}", ranks.NESTED), alone[ranks.NESTED])
    assert max(value for _, value in found) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_guides_are_drawn_alike_on_every_rank(sharding: str, ran_all: Ran, alone) -> None:
    found = differences(ran_all.folder(f"guided-{sharding}", ranks.GUIDED), alone[ranks.GUIDED])
    assert max(value for _, value in found) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_tied_head_and_grouped_keys_agree_to_1e_8(sharding: str, ran_all: Ran, alone) -> None:
    found = differences(ran_all.folder(f"recipe-{sharding}", ranks.RECIPE), alone[ranks.RECIPE])
    assert max(value for _, value in found) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_recomputation_changes_no_bit_of_ranks(sharding: str, ran_all: Ran) -> None:
    plain, recomputed = (ran_all.folder(f"{name}-{sharding}", ranks.EXPERTS) for name in ("experts", "recomputed"))
    assert [record["recompute"] for record in recomputed.provenance()] == [True]
    assert set(differences(plain, recomputed)) == {
        (step, 0.0) for step in range(ranks.EVALUATIONS[ranks.EXPERTS][-1] + 1)
    }


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_ranks_go_on_from_the_checkpoint_of_one_process(sharding: str, ran_all: Ran, alone) -> None:
    folder = ran_all.folder(f"begun-{sharding}", ranks.BEGUN)
    assert [record["world_size"] for record in folder.provenance()] == [1, ran_all.world_size]
    assert folder.attempts()[-1].record().resumed_step == ranks.EVALUATIONS[ranks.BEGUN][1]
    assert max(value for _, value in differences(folder, alone[ranks.BEGUN])) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_all_ranks_stop_at_the_step_at_which_one_is_asked_to(sharding: str, ran_all: Ran) -> None:
    assert [seen[f"stopped-{sharding}"] for seen in ran_all.seen] == ["interrupted"] * ran_all.world_size
    folder = ran_all.folder(f"stopped-{sharding}", ranks.STOPPED)
    assert folder.status()["state"] == "interrupted"
    # One step after the wish: the ranks learn of it while they compute that step.
    assert list(folder.checkpoints) == [ranks.STOP_AFTER + 1]


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_one_process_goes_on_from_the_checkpoint_of_ranks(
    sharding: str, ran_all: Ran, alone, tmp_path: Path, data_root: Path
) -> None:
    runs = shutil.copytree(ran_all.out / f"stopped-{sharding}", tmp_path / "runs")
    state, folder = train(ranks.STOPPED, ranks.EVALUATIONS[ranks.STOPPED], runs, data_root, placement=ranks.PLACED)
    assert state == "done"
    assert folder.attempts()[-1].record().resumed_step == ranks.STOP_AFTER + 1
    assert max(value for _, value in differences(folder, alone[ranks.STOPPED])) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_checkpoint_of_ranks_is_one_of_one_process(sharding: str, ran: Ran, alone) -> None:
    """The same names, shapes and, to rounding, values."""
    left, right = (
        checkpoint.read(folder.checkpoints[50])
        for folder in (ran.folder(f"exact-{sharding}", ranks.EXACT), alone[ranks.EXACT])
    )
    assert list(left["model"]) == list(right["model"])
    for name, value in left["model"].items():
        torch.testing.assert_close(value, right["model"][name], rtol=0, atol=1e-8)
    assert left["optimizer"]["param_groups"] == right["optimizer"]["param_groups"]
    assert left["optimizer"]["state"].keys() == right["optimizer"]["state"].keys()
    for index, values in left["optimizer"]["state"].items():
        for key, value in values.items():
            torch.testing.assert_close(value, right["optimizer"]["state"][index][key], rtol=0, atol=1e-8)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_only_the_first_rank_writes(sharding: str, ran: Ran) -> None:
    folder = ran.folder(f"exact-{sharding}", ranks.EXACT)
    assert [seen[f"exact-{sharding}"] for seen in ran.seen] == ["done"] * ran.world_size
    (attempt,) = folder.attempts()
    lines = attempt.journal.path.read_text().splitlines()
    assert len(lines) == 50 + len(ranks.EVALUATIONS[ranks.EXACT])
    (record,) = folder.provenance()
    assert (record["world_size"], record["sharding"]) == (ran.world_size, sharding)


def test_an_evaluation_by_ranks_is_that_of_one_process_bit_by_bit(ran: Ran) -> None:
    for seen in ran.seen:
        one, several = seen["evaluation"]
        assert one == several


def test_a_full_disk_ends_all_ranks_and_the_same_job_goes_on(ran_all: Ran, alone) -> None:
    """Both attempts ran in the same processes: the ranks were in step after the failure."""
    assert [seen["full"] for seen in ran_all.seen] == [["failed", "done"]] * ran_all.world_size
    folder = ran_all.folder("full", ranks.FULL)
    first, second = folder.attempts()
    assert first.status()["state"] == "failed"
    assert "no space left" in first.status()["reason"]
    assert second.record().resumed_step == 0
    assert max(value for _, value in differences(folder, alone[ranks.FULL])) < 1e-8


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_router_and_its_balance_loss_train_alike(sharding: str, ran: Ran) -> None:
    expected = ranks.mixture(ONE_PROCESS)
    for seen in ran.seen:
        assert seen[f"mixture-{sharding}"] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_ranks_that_compute_their_rows_in_parts_train_as_one_process_on_the_whole(sharding: str, ran: Ran) -> None:
    """A mixture, whose experts all tie at first; the gradients of ranks are added up once a step."""
    expected = ranks.in_parts(ONE_PROCESS, 1)
    assert len(set(expected)) == 4
    for seen in ran.seen:
        assert seen[f"parts-{sharding}"] == pytest.approx(expected, rel=1e-12, abs=0)


def test_the_gradient_of_a_mean_is_that_of_the_whole(ran: Ran) -> None:
    """L = (mean of (r + 1) w)^2 with w = 2: dL/dw = 2 m^2 w, where m is the mean of r + 1."""
    m = (ran.world_size + 1) / 2
    for seen in ran.seen:
        (mean,), (gradient,) = seen["mean"]
        assert mean == pytest.approx(2 * m)
        assert gradient == pytest.approx(4 * m * m)


# --- the command --------------------------------------------------------------------------------------------------


def write_request(path: Path, runs: Path, data_root: Path, **changes: Any) -> Path:
    job = Job(changes.pop("science", ranks.STOPPED), (changes.pop("steps", 50),))
    placement = replace(ranks.PLACED, **changes)
    request = {"job": job.to_mapping(), "runs": str(runs), "data_root": str(data_root), "placement": vars(placement)}
    path.write_text(json.dumps(request))
    return path


def torchrun(request: Path, num_ranks: int, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    with log.open("wb") as stream:
        return subprocess.Popen(
            [*command, "-m", "structlin.training.rank", str(request)],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


@contextmanager
def training(tmp_path: Path, data_root: Path) -> Iterator[tuple[subprocess.Popen[bytes], RunFolder]]:
    """A long run of two ranks that has saved a checkpoint; what is done to it must end it."""
    changes = {"steps": 1_000_000, "checkpoint_seconds": 0.1}
    request = write_request(tmp_path / "job.json", tmp_path / "runs", data_root, **changes)
    folder = Store(tmp_path / "runs").folder(ranks.STOPPED)
    process = torchrun(request, 2, tmp_path / "log")
    try:
        while not folder.checkpoints:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield process, folder
        process.wait(timeout=120)
    finally:
        process.kill()


def children(pid: int) -> set[int]:
    """Processes started by a process."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.add(int(path.parent.name))
    return found


def test_a_lost_rank_interrupts_the_run(tmp_path: Path, data_root: Path) -> None:
    with training(tmp_path, data_root) as (process, folder):
        (other,) = children(process.pid) - {folder.status()["pid"]}
        os.kill(other, signal.SIGKILL)
    assert process.returncode == 1
    assert folder.status()["state"] == "interrupted"
    assert "another rank ended" in folder.status()["reason"], (tmp_path / "log").read_text()


def test_torchrun_stopped_by_sigterm_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, data_root: Path) -> None:
    with training(tmp_path, data_root) as (process, folder):
        process.send_signal(signal.SIGTERM)
    assert folder.status()["state"] == "interrupted"
    assert "stopped at step" in folder.status()["reason"]
    (step,) = folder.checkpoints
    state, _ = train(ranks.STOPPED, (step + 5,), tmp_path / "runs", data_root, placement=ranks.PLACED)
    assert state == "done"
    assert folder.attempts()[-1].record().resumed_step == step


@pytest.mark.long
def test_rows_that_do_not_divide_are_one_clear_line(tmp_path: Path, data_root: Path) -> None:
    science = replace(ranks.STOPPED, optim=replace(ranks.STOPPED.optim, batch_tokens=3 * 16))
    request = write_request(tmp_path / "job.json", tmp_path / "runs", data_root, science=science)
    process = torchrun(request, 2, tmp_path / "log")
    assert process.wait(timeout=120) == 1
    assert "error: 3 rows a step do not divide by 2 ranks" in (tmp_path / "log").read_text()
    assert "do not divide" in Store(tmp_path / "runs").folder(science).status()["reason"]


# --- without processes --------------------------------------------------------------------------------------------


class Rank:
    """One rank of several, of which the others are imagined."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size


def test_shares_make_up_the_batch() -> None:
    rows = list(range(12))
    for world_size in (1, 2, 3, 4, 6, 12):
        parts = [rows[share(12, Rank(rank, world_size))] for rank in range(world_size)]
        assert list(chain.from_iterable(parts)) == rows
        assert len({len(part) for part in parts}) == 1
    with pytest.raises(UserError, match="12 rows a step do not divide by 5 ranks"):
        share(12, Rank(0, 5))


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_batches", [1, 2, 5])
def test_every_rank_evaluates_equally_often_and_every_batch_counts_once(world_size: int, num_batches: int) -> None:
    batches = [(float(3**index), index + 1) for index in range(num_batches)]
    computed: list[list[torch.Tensor]] = []

    class Recording(Rank):
        def gather(self, values: torch.Tensor) -> torch.Tensor:
            computed.append(values)
            ready = len(computed) == self.world_size
            return torch.stack(computed) if ready else values.expand(self.world_size, -1)

    for rank in range(world_size):
        found = mean_over(batches, lambda batch: torch.tensor(batch[0]), lambda b: b[1], Recording(rank, world_size))
    assert len({len(values) for values in computed}) == 1
    assert found == pytest.approx(sum(a * b for a, b in batches) / sum(b for _, b in batches))


def test_auto_shards_what_a_gpu_cannot_hold(monkeypatch) -> None:
    science = tiny(d_model=64)
    needed = needed_bytes(science, Placement(), 2)
    assert needed == round(peak(science, Placement(), 2).needed)
    assert needed_bytes(science, Placement(), 4) < needed < needed_bytes(science, Placement(), 1)
    gpu = torch.device("cuda")

    def sharding_on(memory: float, asked: str = "auto") -> str:
        properties = type("Properties", (), {"total_memory": memory})
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return choose_sharding(science, Placement(sharding=asked), gpu, 2)

    assert sharding_on(10 * needed) == "ddp"
    assert sharding_on(needed) == "fsdp"
    assert sharding_on(needed, "ddp") == "ddp"
    assert choose_sharding(science, Placement(), torch.device("cpu"), 8) == "ddp"
