"""The text that sbatch reads, one golden file a profile: tests/golden/*.sbatch."""

import subprocess
from pathlib import Path

import pytest

from structlin.config.doors import sweep_request
from structlin.config.launch import SlurmLaunch
from structlin.launch.slurm.arrays import LimitReached, duration, judged, outside_of_jobs, parameters, script, setup
from structlin.launch.slurm.causes import SETUP_EXIT
from structlin.launch.slurm.packs import arrays, packs
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
    "slurm_typed": [],
    "slurm_nomem": [],
    "slurm_percpu": [],
    "slurm_export": [],
    "slurm_modules": [],
    "slurm_norequeue": [],
    "slurm_pyxis": [],
    "slurm_apptainer": [],
    "slurm_clusters": [],
    "slurm_canary": [],
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
        launch,
        found[0].resources,
        "demo",
        sweep / "snapshot/0123456789ab",
        launch.max_running or 3,
        ["41"],
        token="0123456789abcdef",
        after_success="40" if launch.canary else "",
        environment={},
    )
    return script(launch, values, sweep / "submissions/0001/log", len(found))


@pytest.mark.parametrize(("profile", "wishes"), PROFILES.items())
def test_the_script_of_a_profile(profile: str, wishes: list[str]) -> None:
    assert text_of(profile, wishes) == (GOLDEN / f"{profile}.sbatch").read_text()


def test_every_script_requeues_warns_and_freezes_its_code() -> None:
    for profile, wishes in PROFILES.items():
        lines = text_of(profile, wishes).splitlines()
        assert "#SBATCH --requeue" in lines or profile in ("slurm_norequeue", "slurm_apptainer")
        assert "#SBATCH --comment=structlin:0123456789abcdef" in lines
        assert "#SBATCH --ntasks-per-node=1" in lines
        assert "#SBATCH --signal=USR2@120" in lines
        assert "export PYTHONPATH=/store/runs/sweeps/demo/snapshot/0123456789ab${PYTHONPATH:+:$PYTHONPATH}" in lines
        assert "export PYTHONSAFEPATH=1" in lines


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


def lines_of(*wishes: str, environment: dict[str, str] | None = None, folder: str = "/store/sub/log") -> list[str]:
    arguments = [*ARGUMENTS, "structure=btt", "budget=1e9", "launch=slurm", "launch.python=/env/bin/python", *wishes]
    request = sweep_request(arguments)
    found = packs([order()], request.launch, request.site.placement)
    values = parameters(
        request.launch, found[0].resources, "demo", Path("/snapshot"), 1, [], environment=environment or {}
    )
    return script(request.launch, values, Path(folder), 1).splitlines()


def test_typed_gpus_take_the_place_of_gpus_per_node() -> None:
    for wish in ("launch.gres=gpu:a100:1", 'launch.options=["gres=gpu:a100:1"]', 'launch.options=["gpus=a100:1"]'):
        found = lines_of(wish)
        assert not any("gpus-per-node" in line for line in found)
        assert any("a100:1" in line for line in found if line.startswith("#SBATCH"))


def test_wishes_of_the_users_environment_are_honoured_unless_the_profile_says_otherwise() -> None:
    theirs = {"SBATCH_ACCOUNT": "physics", "SBATCH_PARTITION": "gpu", "SBATCH_QOS": "long", "SBATCH_TIMELIMIT": "5"}
    found = lines_of("launch.partition=mine", environment=theirs)
    assert {"#SBATCH --account=physics", "#SBATCH --partition=mine", "#SBATCH --qos=long"} <= set(found)
    assert not any("--time=5" in line for line in found)


def test_a_percent_sign_of_a_path_is_no_directive_of_sbatch() -> None:
    found = lines_of(folder="/store/100%j/sub/log")
    (output,) = (line for line in found if line.startswith("#SBATCH --output="))
    assert "/store/100%%j/sub/log/" in output
    assert found[-1].endswith("-m structlin.launch.slurm.element /store/100%j/sub") or "/store/100%j/sub" in found[-2]


@pytest.mark.parametrize("line", ["module load cuda/12.4", "ml gcc", "module purge"])
def test_a_module_that_cannot_be_loaded_stops_the_element(line: str, tmp_path: Path) -> None:
    launch = SlurmLaunch("site", setup=(line,))
    program = "\n".join(["module() { return 1; }; ml() { return 1; }", *setup(launch, tmp_path), "echo trained"])
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (SETUP_EXIT, "")
    assert done.stderr.startswith(f"setup failed: {line}")


def test_the_frozen_code_comes_before_what_modules_put_on_the_path(tmp_path: Path) -> None:
    launch = SlurmLaunch("site", setup=("export PYTHONPATH=/site/packages",))
    program = "\n".join([*setup(launch, tmp_path), 'echo "$PYTHONPATH"'])
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == f"{tmp_path}:/site/packages"


@pytest.mark.parametrize(
    ("minutes", "text"), [(5, "0-00:05:00"), (60, "0-01:00:00"), (1441, "1-00:01:00"), (14400, "10-00:00:00")]
)
def test_wall_time_is_written_as_days_and_hours(minutes: int, text: str) -> None:
    assert duration(minutes) == text


@pytest.mark.parametrize(
    ("text", "minutes"), [("2-00:00:00", 2880), ("1-12", 2160), ("12:30:00", 750), ("90", 90), ("30:30", 31)]
)
def test_wall_time_is_read_as_slurm_reads_it(text: str, minutes: int) -> None:
    request = sweep_request([*ARGUMENTS, "structure=btt", "budget=1e9", "launch=slurm", f"launch.max_minutes={text}"])
    assert request.launch.max_minutes == minutes


POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy "
    "(job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("token", "later", "way_out"),
    [
        ("QOSMaxSubmitJobPerUserLimit", True, ""),
        ("AssocMaxSubmitJobLimit", True, ""),
        ("AssocGrpSubmitJobsLimit", True, ""),
        ("QOSMaxWallDurationPerJobLimit", False, "launch.max_minutes"),
        ("AssocMaxWallDurationPerJobLimit", False, "launch.max_minutes"),
        ("QOSMinGRES", False, "launch.gpus"),
        ("QOSMaxGRESPerUser", False, "launch.gpus"),
        ("QOSMaxCpuPerUserLimit", False, "launch.cpus_per_gpu"),
        ("QOSMaxMemoryPerJob", False, "launch.memory_gb"),
        ("QOSMaxNodePerJobLimit", False, "launch.nodes"),
        ("PartitionTimeLimit", False, "launch.max_minutes"),
    ],
)
def test_a_limit_is_judged_by_its_name(token: str, later: bool, way_out: str) -> None:
    found = judged(f"sbatch: error: {token} {POLICY}")
    assert isinstance(found, LimitReached) is later
    assert way_out in str(found)
    assert later or token in str(found)


@pytest.mark.parametrize(
    ("message", "later"),
    [
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        (POLICY, True),
        ("sbatch: error: invalid partition specified: nowhere", False),
        ("sbatch: error: Memory specification can not be satisfied", False),
    ],
)
def test_a_refusal_without_a_limit_is_judged_by_its_words(message: str, later: bool) -> None:
    assert isinstance(judged(message), LimitReached) is later


def test_a_kind_of_gpu_is_asked_for_by_its_name() -> None:
    assert "#SBATCH --gpus-per-node=a100:2" in text_of("slurm", ["launch.gpu_type=a100", "launch.gpus=2"]).splitlines()
    assert "#SBATCH --gpus-per-node=2" in text_of("slurm", ["launch.gpus=2"]).splitlines()


def test_runs_keep_away_from_the_nodes_that_failed_them() -> None:
    launch = SlurmLaunch("site", gpus=0, options=("exclude=n9",))
    placement = sweep_request([*ARGUMENTS, "structure=btt", "budget=1e9"]).site.placement
    found = packs([order(0), order(1, exclude=("n1", "n2")), order(2, exclude=("n1", "n2"))], launch, placement)
    assert sorted(len(group) for group in arrays(found, 100)) == [1, 2]
    texts = []
    for pack in found:
        values = parameters(launch, pack.resources, "demo", Path("/s"), 1, [], exclude=pack.exclude, environment={})
        texts.append(script(launch, values, Path("/sub/log"), 1))
    assert sum("#SBATCH --exclude=n9,n1,n2" in text.splitlines() for text in texts) == 2
    assert sum("#SBATCH --exclude=n9" in text.splitlines() for text in texts) == 1
