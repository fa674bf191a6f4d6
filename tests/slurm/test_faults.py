"""What broke on clusters as they are: strangers' jobs, lost answers, talkative commands, full disks, limits."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.slurm.conftest import DevCluster, full, wait_until
from tests.slurm.sweeps import Sweep, holders, local, results

pytestmark = pytest.mark.slurm

Variant = Callable[..., DevCluster]
TWO = ("structure=dense,btt", "grid.widths=[8]", "grid.tokens=[3200]", "checkpoint_seconds=60")
LONG = (
    *("structure=dense,btt", "grid.widths=[8]", "grid.tokens=[640000]"),
    *("data.max_epochs=1000", "evals_per_decade=4", "checkpoint_seconds=1", "model.dtype=float64"),
)


@dataclass(frozen=True)
class Strange(Sweep):
    """A sweep at a site whose commands are wrapped in scripts of its own."""

    wrappers: Path = Path()

    @property
    def environment(self) -> dict[str, str]:
        found = super().environment
        return {**found, "PATH": f"{self.wrappers}:{found['PATH']}", "BEHIND": found["PATH"]}

    def wrap(self, name: str, script: str) -> None:
        """Put a script before a command; REAL in it is the command itself."""
        self.wrappers.mkdir(exist_ok=True)
        path = self.wrappers / name
        path.write_text("#!/bin/bash\n" + script.replace("REAL", f'env PATH="$BEHIND" {name} "$@"') + "\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def unwrap(self, name: str) -> None:
        """Take it away again."""
        (self.wrappers / name).unlink()


@pytest.fixture
def strange(cluster: DevCluster, tmp_path: Path, data_root: Path) -> Strange:
    return Strange(cluster, tmp_path / "runs", data_root, TWO, wrappers=tmp_path / "bin")


def test_commands_that_talk(strange: Strange) -> None:
    for name in ("squeue", "sacct", "sbatch", "scontrol"):
        noise = "Welcome! Your job 5 has used 12 hours\n|||\n7_0|RUNNING\n12345|FAILED|what|x|y"
        strange.wrap(name, f"printf '%s\\n' '{noise}'; REAL; code=$?; echo 'structlin|3|RUNNING'; exit $code")
    assert strange.submitted() == 2
    assert strange.submitted() == 0
    strange.wait()
    shown = strange.type("status=true", code=None)
    assert "line(s) of SLURM's answers are none and were skipped, such as: Welcome!" in shown
    strange.finish()
    assert len(results(strange.runs)) == 2
    ids = [json.loads(path.read_text())["job_id"] for path in strange.runs.glob("sweeps/*/submissions/*/array.json")]
    assert "5" not in ids
    assert "12345" not in ids


def test_a_lost_answer_is_adopted(strange: Strange) -> None:
    error = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
    strange.wrap("sbatch", f"REAL >/dev/null; echo '{error}' >&2; exit 1")
    assert strange.submitted() == 2
    strange.unwrap("sbatch")
    assert strange.submitted() == 0
    strange.wait()
    assert "2 done" in strange.type("status=true")


def test_a_launcher_that_dies_inside_sbatch(strange: Strange) -> None:
    strange.wrap("sbatch", "REAL >/dev/null; kill -9 $PPID; sleep 1")
    strange.type(code=-9)
    strange.unwrap("sbatch")
    printed = strange.type()
    assert ", 0 submitted now" in printed
    strange.wait()
    assert "2 done" in strange.type("status=true")
    (record,) = strange.runs.glob("sweeps/*/submissions/*/packs.jsonl")
    assert (record.parent / "array.json").exists()


def test_a_strangers_job_under_our_number(strange: Strange) -> None:
    """As after a rebuilt cluster, or ids that wrapped."""
    with strange.cluster.fill():
        assert strange.submitted() == 2
        (record,) = strange.runs.glob("sweeps/*/submissions/*/array.json")
        array = json.loads(record.read_text())
        strange.cluster.run("scancel", array["job_id"])
    strange.wait()
    stranger = strange.cluster.submit("sleep 300")
    try:
        strange.cluster.wait_for(stranger, "RUNNING")
        record.write_text(json.dumps({**array, "job_id": stranger}))
        assert "running" not in strange.type("status=true", code=1)
        (record.parent / "ends.json").unlink(missing_ok=True)
        assert "cancelled 0 elements" in strange.type("cancel=true")
        assert strange.cluster.states(stranger) == ["RUNNING"]
        assert strange.submitted() == 2
    finally:
        strange.cluster.run("scancel", stranger)
    strange.wait()
    assert "2 done" in strange.type("status=true")


def test_names_and_percent_signs(cluster: DevCluster, tmp_path: Path, data_root: Path) -> None:
    runs = tmp_path / "100%j%A" / "runs"
    sweep = Sweep(cluster, runs, data_root, TWO)
    for name in ("a/b", "..", "a%j", "/tmp/x"):
        assert "name" in sweep.type(f"name={name}", code=2)
    assert sweep.submitted("name=a.b-c_1") == 2
    sweep.wait()
    assert "2 done" in sweep.type("status=a.b-c_1")
    assert len(list(runs.glob("sweeps/a.b-c_1/submissions/*/log/*_log.out"))) == 2


def test_a_full_disk_with_the_logs_on_it(
    cluster: DevCluster,
    store: Path,
    tmp_path: Path,
    data_root: Path,
) -> None:
    sweep = Sweep(cluster, store, data_root, (*LONG, "launch.max_retries=0"))
    undisturbed = local(tmp_path / "local", data_root, *LONG)
    assert sweep.submitted() == 2
    wait_until(lambda: len(holders(store)) == 2, "both are trained", 90)
    with full(store):
        sweep.wait()
        # Accounting may hear of an end some seconds after the queue has forgotten it.
        wait_until(lambda: "2 failed" in sweep.type("status=true", code=1), "both are known to have failed", 60)
        shown = sweep.type("status=true", code=1)
        assert "nothing could be written" in shown or "storage: " in shown
        printed = sweep.type()
        assert "nothing can be written" in printed
        assert "0 submitted now" in printed
    (array,) = {json.loads(path.read_text())["job_id"] for path in store.glob("sweeps/*/submissions/*/array.json")}
    assert set(cluster.accounts(array, "ExitCode")) == {"74:0"}
    # It is not counted: no retry=failed is needed, though one crash would be one too many.
    sweep.finish()
    assert results(store) == results(undisturbed)


def test_a_limit_for_good_says_what_to_change(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    cluster = variant("max_wall=5")
    sweep = Sweep(cluster, tmp_path / "runs", data_root, TWO)
    printed = sweep.type(code=1)
    assert (
        "2 runs are not taken: QOSMaxWallDurationPerJobLimit refuses this for good: lower launch.max_minutes" in printed
    )
    assert list(sweep.runs.glob("sweeps/*/submissions/*")) == []
    assert sweep.submitted("launch.time_minutes=5", "launch.signal_seconds=30") == 2


def test_a_cluster_without_arrays_and_broken_files(variant: Variant, tmp_path: Path, data_root: Path) -> None:
    cluster = variant("max_array_size=0")
    sweep = Sweep(cluster, tmp_path / "runs", data_root, TWO)
    assert sweep.submitted() == 2
    sweep.wait()
    assert "2 done" in sweep.type("status=true")
    broken = sorted(sweep.runs.glob("*/result.json"))[0]
    ends = sorted(sweep.runs.glob("sweeps/*/submissions/*/ends.json"))[0]
    broken.write_text('{"evaluations": [{"step": "x"}]}')
    ends.write_text("[")
    shown = sweep.type("status=true", code=1)
    assert str(broken) in shown
    assert str(ends) in shown
    assert "2 file(s) or folder(s) could not be read" in shown
    sweep.finish()
    assert len(results(sweep.runs)) == 2
    assert os.path.getsize(broken) > 100


def test_what_waits_for_ever_is_told_from_what_waits(cluster: DevCluster, tmp_path: Path, data_root: Path) -> None:
    """By the reasons that SLURM itself gives: a partition's time limit lowered meanwhile, and a job that is held."""
    sweep = Sweep(cluster, tmp_path / "runs", data_root, TWO)

    def is_shown(words: str) -> bool:
        return words in sweep.type("status=true", code=1)

    with cluster.fill():
        assert sweep.submitted() == 2
        (job,) = {name.partition("_")[0] for name in sweep.names() if "_" in name}
        cluster.run("scontrol", "update", "partitionname=main", "maxtime=5")
        try:
            wait_until(
                lambda: is_shown("2 never begin: PartitionTimeLimit: lower launch.max_minutes"), "it is said", 90
            )
            assert "2 runs on their way never begin: PartitionTimeLimit" in sweep.type()
        finally:
            cluster.run("scontrol", "update", "partitionname=main", "maxtime=infinite")
        cluster.run("scontrol", "hold", job)
        wait_until(lambda: is_shown("2 waiting until somebody acts: JobHeld"), "the hold is said", 60)
        assert "cancelled 2 elements" in sweep.type("cancel=true")
