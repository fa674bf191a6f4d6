"""Is the development cluster a real one? Jobs, arrays, GPUs, limits, and what happens to clusters."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slurm.dev.processes import Process, environment_of, everything
from tests.slurm.conftest import DevCluster, wait_until

pytestmark = pytest.mark.slurm

Variant = Callable[..., DevCluster]


def processes_of(cluster: DevCluster) -> set[Process]:
    """Every process that was started with this cluster's configuration, except the test's own."""
    mark = f"SLURM_CONF={cluster.state}/slurm.conf"
    return {process for process in everything() if mark in environment_of(process.pid)}


def _program(process: Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:  # ended since it was listed
        return ""


def sleeping_in(cluster: DevCluster) -> set[Process]:
    """The processes of a cluster that are the program ``sleep``."""
    return {process for process in processes_of(cluster) if _program(process) == "sleep"}


# ------------------------------------------------------------------------------------------ jobs


def test_array_runs_each_index_once_and_accounting_shows_it(cluster: DevCluster, tmp_path: Path) -> None:
    output = tmp_path / "%a"
    job = cluster.submit("echo $SLURMD_NODENAME $SLURM_ARRAY_TASK_ID", "--array=0-11%8", output=output)
    cluster.wait_for(job, "COMPLETED")
    words = [(tmp_path / str(index)).read_text().split() for index in range(12)]
    assert [word[1] for word in words] == [str(index) for index in range(12)]
    assert {word[0] for word in words} <= {"n1", "n2", "n3", "n4"}
    wait_until(lambda: cluster.accounts(job) == ["COMPLETED"] * 12, "accounting has 12 completed elements")


def test_a_failed_job_is_failed_with_its_exit_code(cluster: DevCluster) -> None:
    job = cluster.submit("exit 3")
    cluster.wait_for(job, "FAILED")
    wait_until(lambda: cluster.accounts(job, "State,ExitCode") == ["FAILED|3:0"], "accounting has the exit code")


def test_one_job_spans_nodes(cluster: DevCluster, tmp_path: Path) -> None:
    job = cluster.submit("srun bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID'", "--nodes=4", output=tmp_path / "out")
    cluster.wait_for(job, "COMPLETED")
    lines = sorted((tmp_path / "out").read_text().split("\n")[:-1])
    assert lines == ["n1 0", "n2 1", "n3 2", "n4 3"]


def test_jobs_on_one_node_get_different_gpus(cluster: DevCluster, tmp_path: Path) -> None:
    words = ("--nodelist=n1", "--gres=gpu:1")
    # Each waits for the other, so that both hold their GPU at one moment.
    script = f"echo $CUDA_VISIBLE_DEVICES; touch {tmp_path}/$SLURM_ARRAY_TASK_ID; until [ -e {tmp_path}/0 -a -e {tmp_path}/1 ]; do sleep 0.1; done"  # fmt: skip  # noqa: E501
    job = cluster.submit(script, "--array=0-1", *words, output=tmp_path / "gpu.%a")
    cluster.wait_for(job, "COMPLETED")
    assert {(tmp_path / f"gpu.{index}").read_text().strip() for index in (0, 1)} == {"0", "1"}
    refused = cluster.run("sbatch", "--gres=gpu:3", "--nodes=1", "--wrap", "true", check=False)
    assert refused.returncode != 0
    assert "not available" in refused.stderr


# ------------------------------------------------------------------------------------------ what happens to clusters


@pytest.mark.parametrize("told", [True, False])
def test_power_cut_kills_at_once_and_the_job_is_requeued(cluster: DevCluster, tmp_path: Path, told: bool) -> None:
    out = tmp_path / "out"
    # The shell's child ignores the polite signals; nothing but a power cut ends it.
    script = f"echo attempt $SLURM_RESTART_COUNT; trap '' TERM USR1; while true; do date +%s.%N > {tmp_path}/beat; sleep 0.1; done"  # fmt: skip  # noqa: E501
    job = cluster.submit(script, "--nodelist=n3", output=out)
    wait_until((tmp_path / "beat").exists, "the job runs")
    before = processes_of(cluster)
    try:
        cluster.power_off("n3", told=told)
        on_n3 = {process for process in before if not process.alive}
        assert len(on_n3) >= 3, "slurmd, step and job end together"
        last = (tmp_path / "beat").read_text()
        cluster.run("sleep", "0.5")
        assert (tmp_path / "beat").read_text() == last, "no process of the dead node writes"
        wait_until(lambda: cluster.states(job) == ["PENDING"], "the controller requeues the job")
    finally:
        cluster.power_on("n3")
    cluster.wait_for(job, "RUNNING")
    wait_until(lambda: out.read_text() == "attempt\nattempt 1\n", "the second attempt runs and knows its number")
    assert cluster.accounts(job) == ["NODE_FAIL", "RUNNING"]
    cluster.run("scancel", "--signal=KILL", "--full", job)
    cluster.run("scancel", job)


def test_a_node_that_is_back_before_it_is_missed_requeues_too(cluster: DevCluster) -> None:
    job = cluster.submit("sleep 600", "--nodelist=n2")
    cluster.wait_for(job, "RUNNING")
    cluster.power_off("n2")
    cluster.power_on("n2")
    wait_until(lambda: len(cluster.accounts(job)) == 2, "a second attempt", seconds=90)
    cluster.run("scancel", job)


def test_jobs_survive_a_restart_of_the_controller(cluster: DevCluster) -> None:
    running = cluster.submit("sleep 600", "--nodelist=n1")
    held = cluster.submit("true", "--hold")
    # The controller calls a job running before its node has started it.
    wait_until(lambda: len(sleeping_in(cluster)) == 1, "the job sleeps")
    before = sleeping_in(cluster)
    cluster.restart_controller()
    assert cluster.states(running) == ["RUNNING"]
    assert cluster.states(held) == ["PENDING"]
    assert sleeping_in(cluster) == before
    cluster.run("scontrol", "release", held)
    cluster.wait_for(held, "COMPLETED")
    cluster.run("scancel", running)


def test_a_higher_partition_preempts_with_the_signal_first(cluster: DevCluster, tmp_path: Path) -> None:
    script = f"trap 'echo warned; exit 0' USR1; echo begun; touch {tmp_path}/begun; while true; do sleep 0.1; done"
    job = cluster.submit(
        script, "--partition=low", "--nodelist=n4", "--signal=B:USR1@60", "--time=10", output=tmp_path / "out"
    )
    wait_until((tmp_path / "begun").exists, "the low job runs")
    with cluster.fill(nodes="n4") as higher:
        wait_until(lambda: "warned" in (tmp_path / "out").read_text(), "the low job is warned")
        cluster.wait_for(higher, "RUNNING")
    cluster.run("scancel", job)


# ------------------------------------------------------------------------------------------ variants


def test_two_clusters_side_by_side_with_their_own_limits(cluster: DevCluster, variant: Variant) -> None:
    small = variant("max_array_size=11", "accounting=false", "nodes=1")
    assert small.run("sinfo", "--noheader", "--format=%N", "--partition=main").stdout.strip() == "n1"
    assert cluster.run("sinfo", "--noheader", "--format=%N", "--partition=main").stdout.strip() == "n[1-4]"
    job = small.submit("true", "--array=0-10")
    refused = small.run("sbatch", "--array=0-11", "--wrap", "true", check=False)
    assert "Invalid job array specification" in refused.stderr
    small.wait_for(job, "COMPLETED")
    sacct = small.run("sacct", check=False)
    assert sacct.returncode != 0
    assert "disabled" in sacct.stderr
    assert cluster.dev("status").returncode == 0


def test_limits_refuse_and_memory_is_enforced_where_asked(variant: Variant, tmp_path: Path) -> None:
    limited = variant("max_submit=4", "max_job_count=6", "enforce_memory=true")
    hog = f'exec python3 -c \'import time; x = bytearray(300 << 20); open("{tmp_path}/full", "w"); time.sleep(60)\''
    greedy = limited.submit(hog, "--mem=100", output=tmp_path / "out")
    limited.submit("sleep 600", "--array=0-2")
    refused = limited.run("sbatch", "--wrap", "true", check=False)
    assert refused.returncode != 0
    assert "QOSMaxSubmitJobPerUserLimit" in refused.stderr
    limited.wait_for(greedy, "FAILED")
    assert "Exceeded job memory limit" in (tmp_path / "out").read_text()
    wait_until(lambda: limited.accounts(greedy, "State,ExitCode") == ["FAILED|0:9"], "killed for its memory")
    words = ("--noheader", "--parsable2", "--units=M", "--format=MaxRSS", f"--jobs={greedy}.batch")
    assert float(limited.run("sacct", *words).stdout.strip().rstrip("M")) > 100


def test_a_full_controller_makes_sbatch_wait(variant: Variant) -> None:
    full = variant("max_job_count=6", "accounting=false")
    full.submit("sleep 600", "--array=0-3")
    # sbatch asks again for minutes: we look at its first words and end it.
    with subprocess.Popen(
        ["sbatch", "--array=0-3", "--output=/dev/null", "--wrap", "true"],
        env=full.environment, stderr=subprocess.PIPE, text=True,
    ) as waiting:  # fmt: skip
        assert waiting.stderr is not None
        assert "temporarily unable to accept job" in waiting.stderr.readline()
        waiting.kill()


# ------------------------------------------------------------------------------------------ up and down


def test_up_twice_and_down_twice_and_down_leaves_nothing(variant: Variant) -> None:
    once = variant("accounting=true")
    line = f"export SLURM_CONF={once.state}/slurm.conf\n"
    before = once.dev("status").stdout
    assert once.dev("up").stdout == line
    assert once.dev("status").stdout == before, "the same processes run"
    refused = once.dev("up", "max_array_size=11", check=False)
    assert refused.returncode == 2
    assert re.fullmatch(r"error: .*runs with max_array_size=1001; end it first.*\n", refused.stderr)

    # Jobs of every kind: a shell, its child in a session of its own, a step.
    job = once.submit("setsid sleep 600 & sleep 600 & srun sleep 600", "--nodelist=n1")
    wait_until(lambda: len(sleeping_in(once)) == 3, "the job runs")
    processes = processes_of(once)
    assert len(processes) >= 11
    once.dev("down")
    assert not [process for process in processes if process.alive]
    assert not processes_of(once)
    assert not once.state.exists(), job
    again = once.dev("down")
    assert again.returncode == 0
    assert "no cluster" in again.stderr


def test_down_may_keep_the_queue(variant: Variant) -> None:
    kept = variant("accounting=false")
    job = kept.submit("sleep 600", "--hold")
    kept.dev("down", "keep=true")
    assert not processes_of(kept)
    kept.dev("up")
    assert kept.states(job) == ["PENDING"]


def test_up_starts_what_is_missing(variant: Variant) -> None:
    cluster = variant("accounting=false")
    cluster.power_off("n2")
    assert cluster.dev("status", check=False).returncode == 1
    cluster.dev("up")
    assert cluster.dev("status").returncode == 0


def test_a_port_in_use_is_one_line_with_the_log(cluster: DevCluster) -> None:
    port = re.search(r"^SlurmctldPort=(\d+)$", (cluster.state / "slurm.conf").read_text(), re.MULTILINE)
    assert port is not None
    second = DevCluster(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    try:
        answer = second.dev("up", "accounting=false", f"port={port[1]}", check=False)
        assert answer.returncode == 2
        assert re.fullmatch(r"error: controller ended while it started; see (/\S+\.log) and \S+\n", answer.stderr)
        assert "Address already in use" in (second.state / "log" / "controller.log").read_text()
    finally:
        second.dev("down")
    assert not processes_of(second)
    assert cluster.dev("status").returncode == 0
