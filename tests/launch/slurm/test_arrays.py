"""The text that sbatch reads, one golden file a profile: tests/golden/*.sbatch."""

from pathlib import Path

import pytest

from structlin.config.doors import sweep_request
from structlin.config.launch import SlurmLaunch
from structlin.launch.slurm.arrays import outside_of_jobs, parameters, script
from structlin.launch.slurm.packs import packs
from structlin.launch.slurm.resources import runs_per_gpu
from tests.launch.slurm.orders import order
from tests.tiny import ARGUMENTS

GOLDEN = Path(__file__).parents[2] / "golden"
PROFILES = {
    "slurm": [],
    "slurm_a100": ["launch.account=physics"],
    "slurm_cpu": ["launch.qos=long", "launch.max_running=2"],
    "slurm_node": [],
    "slurm_preempt": ["launch.gpus_per_run=16", "launch.nodes=2"],
}


def text_of(profile: str, wishes: list[str]) -> str:
    arguments = [
        *ARGUMENTS,
        "structure=btt",
        "budget=1e9",
        f"launch={profile}",
        *wishes,
        "launch.python=/env/bin/python",
    ]
    launch = sweep_request(arguments).launch
    assert isinstance(launch, SlurmLaunch)
    placement = sweep_request(arguments).site.placement
    lanes = max(1, launch.gpus) * runs_per_gpu(order(0).job.science, launch, placement)
    found = packs([order(seed) for seed in range(3 * lanes)], launch, placement)
    sweep = Path("/store/runs/sweeps/demo")
    values = parameters(
        launch, found[0].resources, "demo", sweep / "snapshot/0123456789ab", launch.max_running or 3, ["41"]
    )
    return script(launch, values, sweep / "submissions/0001/log", len(found))


@pytest.mark.parametrize(("profile", "wishes"), PROFILES.items())
def test_the_script_of_a_profile(profile: str, wishes: list[str]) -> None:
    assert text_of(profile, wishes) == (GOLDEN / f"{profile}.sbatch").read_text()


def test_every_script_requeues_warns_and_freezes_its_code() -> None:
    for profile, wishes in PROFILES.items():
        lines = text_of(profile, wishes).splitlines()
        assert "#SBATCH --requeue" in lines
        assert "#SBATCH --ntasks-per-node=1" in lines
        assert "#SBATCH --signal=USR2@120" in lines
        assert "export PYTHONPATH=/store/runs/sweeps/demo/snapshot/0123456789ab" in lines


def test_submission_from_inside_a_job_hides_the_job_and_keeps_the_cluster(monkeypatch) -> None:
    import os

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/x.conf")
    with outside_of_jobs():
        assert "SLURM_JOB_ID" not in os.environ
        assert os.environ["SLURM_CONF"] == "/etc/x.conf"
    assert os.environ["SLURM_JOB_ID"] == "7"


def test_a_dry_run_shows_the_script_below_the_bill(tmp_path: Path, capsys) -> None:
    import sweep

    arguments = [
        *ARGUMENTS,
        "structure=btt",
        "budget=1e9",
        "launch=slurm_a100",
        "dry_run=true",
        f"runs={tmp_path}/none",
    ]
    assert sweep.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "training FLOPs" in printed
    assert printed.index("training FLOPs") < printed.index("#SBATCH --constraint=a100")
    assert not list(tmp_path.iterdir())


def test_a_kind_of_gpu_is_asked_for_by_its_name() -> None:
    assert "#SBATCH --gpus-per-node=a100:2" in text_of("slurm", ["launch.gpu_type=a100", "launch.gpus=2"]).splitlines()
    assert "#SBATCH --gpus-per-node=2" in text_of("slurm", ["launch.gpus=2"]).splitlines()
