"""Resources follow the bill, packs fill an element and no more, and arrays stay within what a cluster takes."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlin.anatomy.ledger import ledger
from structlin.anatomy.memory import peak
from structlin.config.launch import SlurmLaunch
from structlin.config.model import Gpt2Config
from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.errors import UserError
from structlin.launch.slurm.packs import EARLY_SECONDS, START_MINUTES, arrays, packs, shares
from structlin.launch.slurm.resources import MEMORY_MARGIN, TIME_MARGIN, Order, run_bytes, runs_per_gpu
from structlin.runs.job import Job
from tests.launch.slurm.orders import order

CPU = SlurmLaunch("cpu", gpus=0, min_minutes=0)
OVERHEAD = START_MINUTES + (CPU.signal_seconds + EARLY_SECONDS) // 60
PLACEMENT = Placement(device="cpu", threads=2)


def cpu(**changes) -> SlurmLaunch:
    return SlurmLaunch("cpu", gpus=0, **{"min_minutes": 0, **changes})


def test_time_is_steps_over_speed_with_a_margin_on_a_ladder() -> None:
    # 6,000 steps of 64 tokens at 64 tokens a second are 100 minutes.
    (pack,) = packs([order(steps=6000, speed=64.0)], CPU, PLACEMENT)
    assert pack.resources.minutes == OVERHEAD + 256
    assert 256 / 2 < 100 * TIME_MARGIN <= 256


def test_more_time_and_more_memory_after_a_failure() -> None:
    once, again = order(steps=6000, speed=64.0), order(steps=6000, speed=64.0, more_time=4.0, more_memory=4.0)
    (first,), (second,) = packs([once], CPU, PLACEMENT), packs([again], CPU, PLACEMENT)
    assert second.resources.minutes == OVERHEAD + 4 * 256
    assert run_bytes(again, CPU, PLACEMENT) == 4 * run_bytes(once, CPU, PLACEMENT)
    assert second.resources.memory_gb > first.resources.memory_gb
    fixed = cpu(time_minutes=30, memory_gb=10)
    (pack,) = packs([order(more_time=1.5, more_memory=1.5)], fixed, PLACEMENT)
    assert (pack.resources.minutes, pack.resources.memory_gb) == (45, 15)


def test_memory_of_a_cpu_run_holds_weights_moments_and_activations() -> None:
    costs = ledger(order().job.science)
    whole = run_bytes(order(), CPU, PLACEMENT)
    assert whole > 4 * costs.weight_bytes + costs.activation_bytes
    spared = costs.activation_bytes - costs.recomputed_activation_bytes
    assert whole - run_bytes(order(), CPU, replace(PLACEMENT, recompute=True)) == pytest.approx(MEMORY_MARGIN * spared)


def test_no_element_asks_for_more_time_than_the_site_lets() -> None:
    (pack,) = packs([order(steps=10**9, speed=64.0)], cpu(max_minutes=600), PLACEMENT)
    assert pack.resources.minutes == 600


def test_an_unmeasured_shape_is_promised_more_time_than_a_fast_one() -> None:
    unknown, measured = order(steps=100_000), order(steps=100_000, speed=1e6)
    (guessed,), (known,) = packs([unknown], CPU, PLACEMENT), packs([measured], CPU, PLACEMENT)
    assert guessed.resources.minutes > known.resources.minutes


def test_runs_side_by_side_share_an_element() -> None:
    found = packs([order(seed) for seed in range(10)], cpu(runs_per_gpu=4), PLACEMENT)
    assert sorted(len(pack.jobs) for pack in found) == [3, 3, 4]
    alone = packs([order()], CPU, PLACEMENT)[0].resources
    shared = found[0].resources
    assert (shared.cpus, shared.memory_gb) == (4 * alone.cpus, 4 * alone.memory_gb)


def test_short_measured_runs_queue_one_after_another() -> None:
    # 100 steps of 64 tokens at 160 tokens a second are 40 s, a minute with the margin.
    found = packs([order(seed, speed=160.0) for seed in range(20)], cpu(min_minutes=10), PLACEMENT)
    assert [len(pack.jobs) for pack in found] == [10, 10]
    assert found[0].resources.minutes == OVERHEAD + 10
    unmeasured = packs([order(seed) for seed in range(20)], cpu(min_minutes=10), PLACEMENT)
    assert len(unmeasured) == 20


def test_gpus_of_one_large_run_are_spread_over_nodes() -> None:
    launch = SlurmLaunch("site", gpus_per_run=16, nodes=2, cpus_per_gpu=12)
    (pack,) = packs([order()], launch, PLACEMENT)
    assert (pack.resources.nodes, pack.resources.gpus, pack.resources.cpus) == (2, 8, 96)
    (ranks,) = packs([order()], cpu(gpus_per_run=4, nodes=2), PLACEMENT)
    assert (ranks.resources.nodes, ranks.resources.gpus, ranks.resources.cpus) == (2, 0, 4)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12))
def test_every_job_is_in_one_element_of_one_array_within_its_size(number: int, lanes: int, most: int) -> None:
    orders = [order(seed, steps=100 + 4000 * (seed % 3)) for seed in range(number)]
    found = list(arrays(packs(orders, cpu(runs_per_gpu=lanes), PLACEMENT), most))
    jobs = [job.run_id for group in found for pack in group for job in pack.jobs]
    assert sorted(jobs) == sorted(one.job.run_id for one in orders)
    assert all(1 <= len(group) <= most for group in found)
    assert all(len({pack.resources for pack in group}) == 1 for group in found)
    assert all(1 <= len(pack.jobs) <= lanes for group in found for pack in group)


def test_what_waits_for_another_array_is_submitted_apart() -> None:
    found = list(arrays(packs([order(0), order(1, after=("17",))], CPU, PLACEMENT), 100))
    assert [(len(group), group[0].after) for group in found] == [(1, ()), (1, ("17",))]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.integers(12, 3000))
def test_shares_of_arrays_never_exceed_what_may_run_at_once(sizes: list[int], most: int) -> None:
    found = shares(sizes, most)
    assert sum(found) <= most
    assert sum(found) == min(most, sum(sizes))
    assert all(1 <= share <= size for share, size in zip(found, sizes, strict=True))


def test_no_limit_on_what_runs_at_once() -> None:
    assert shares([3, 5], 0) == [3, 5]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"gpus_per_run": 3, "nodes": 2}, "spread evenly"),
        ({"gpus_per_run": 2, "runs_per_gpu": 2}, "one of them"),
        ({"grow_on_retry": 1.0}, "grow_on_retry"),
        ({"max_hours": 0.0}, "max_hours"),
        ({"nodes": 0}, "nodes"),
        ({"memory_gb": 0}, "memory_gb"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(changes: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        SlurmLaunch("site", **changes)


def test_the_ladder_is_at_most_a_factor_two() -> None:
    for steps in (64, 1000, 33_333):
        (pack,) = packs([order(steps=steps, speed=64.0)], cpu(max_minutes=10**6), PLACEMENT)
        minutes = steps / 60 * TIME_MARGIN
        assert minutes <= pack.resources.minutes - OVERHEAD <= math.ceil(2 * minutes)


def test_an_order_knows_whether_it_was_measured() -> None:
    assert order(speed=1.0).is_measured
    assert not Order(order().job, 1, None).is_measured


# ---- memory of a GPU ------------------------------------------------------------------------------------------------


def on_gpu(**changes: Any) -> SlurmLaunch:
    return SlurmLaunch("site", gpus=1, **{"gpu_memory_gb": 80, **changes})


def wide(d_model: int) -> Science:
    return Science(model=Gpt2Config(d_model=d_model), structure=StructureConfig("(0|0|1|0|0|1|0)"))


def test_as_many_runs_share_a_gpu_as_fit_it() -> None:
    """Dense runs of width 256, 2,048 and 4,096 want 3.4, 22 and 60 GB of a GPU."""
    asked = on_gpu(runs_per_gpu=0)
    assert [runs_per_gpu(wide(d), asked, PLACEMENT) for d in (256, 2048, 4096)] == [4, 3, 1]
    assert runs_per_gpu(wide(256), on_gpu(runs_per_gpu=0, gpu_memory_gb=None), PLACEMENT) == 1
    assert runs_per_gpu(wide(2048), on_gpu(runs_per_gpu=0, gpu_memory_gb=None, gpu_type="H200"), PLACEMENT) == 4
    for needs in (1, 2):
        assert needs * peak(wide(2048), PLACEMENT).needed <= 80e9


def test_more_runs_than_fit_a_gpu_are_refused() -> None:
    assert runs_per_gpu(wide(2048), on_gpu(runs_per_gpu=3), PLACEMENT) == 3
    with pytest.raises(UserError, match=r"runs_per_gpu = 4 runs of dense at d_model = 2048 .* give at most 3"):
        runs_per_gpu(wide(2048), on_gpu(runs_per_gpu=4), PLACEMENT)
    # One that may not fit is the bill's to say, and the user's to try.
    assert runs_per_gpu(wide(4096), on_gpu(runs_per_gpu=1, gpu_memory_gb=24), PLACEMENT) == 1


def test_runs_of_different_needs_do_not_share_an_element() -> None:
    orders = [Order(Job(wide(d), (10,)), 10, None) for d in (256, 256, 256, 256, 4096, 4096)]
    found = packs(orders, on_gpu(runs_per_gpu=0), PLACEMENT)
    assert sorted((pack.resources.runs_per_gpu, len(pack.orders)) for pack in found) == [(1, 1), (1, 1), (4, 4)]
