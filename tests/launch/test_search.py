"""A search that trains: killed at five moments it ends in the same runs and choice, and trains nothing twice."""

import json
import shutil
from pathlib import Path

import pytest

import sweep
from structlin.config.doors import sweep_request
from structlin.config.request import Site
from structlin.launch import local, search
from structlin.launch.carry_out import run_sweep
from structlin.launch.reconcile import job_state
from structlin.launch.slurm import carry_out
from structlin.launch.slurm.controller import ControllerError
from structlin.laws import forecasts
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.training.entry import execute
from tests.tiny import ARGUMENTS

WORDS = [
    "grid=search",
    "target=1e10",
    "budget=5e8",
    "structure.count=4",
    "grid.points=2",
    "launch.workers=1",
    "name=here",
]


class Here:
    """A worker that trains in this process, which has imported torch already."""

    def __init__(self, index: int, site: Site) -> None:
        self.placement = site.placement

    def train(self, job: Job, runs: Path, data_root: Path) -> str:
        return execute(job, Store(runs), data_root, self.placement)

    def probe(self, science: object) -> float:
        """Speeds are not what is tested."""
        return 1e6

    def stop(self) -> None:
        """Every search asks for it at its end."""

    def close(self) -> None:
        """Nothing is left."""


def arguments(runs: Path, data_root: Path, *more: str) -> list[str]:
    return [*ARGUMENTS, *WORDS, f"runs={runs}", f"data.root={data_root}", *more]


def results(runs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in runs.glob("*/result.json")}


def updates(runs: Path) -> int:
    """Rows of training loss in all journals: work done, counted where it is written."""
    return sum(path.read_text().count('"kind": "train"') for path in runs.glob("*/attempts/*/metrics.jsonl"))


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "_worker", Here)
    monkeypatch.setattr(forecasts, "FOLDER", tmp_path / "forecasts")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    runs = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_worker", Here)
        patch.setattr(forecasts, "FOLDER", runs / "forecasts")
        assert run_sweep(sweep_request(arguments(runs, data_root))) == 0
    return runs


def record(runs: Path) -> dict:
    return json.loads((runs / "searches" / "here.json").read_text())


def test_the_record_has_rungs_winner_and_share(undisturbed: Path) -> None:
    found = record(undisturbed)
    assert found["over"]
    assert found["winner"]["name"] in {one["name"] for one in found["rungs"][-1]["arms"]}
    assert 0 < found["spent"] <= 5e8 < found["everything"]
    assert all(rung["predictor"] for rung in found["rungs"])
    page = (undisturbed / "searches" / "here.html").read_text()
    assert found["winner"]["name"] in page
    assert 'src="http' not in page


def test_nothing_is_trained_twice_and_a_rung_goes_on_where_the_last_one_ended(undisturbed: Path) -> None:
    """Rows of training loss stand at every fifth step: as many as all runs have steps, and one for each end."""
    manifest = json.loads((undisturbed / "sweeps" / "here.json").read_text())
    longest: dict[str, int] = {}
    for cell in manifest["cells"]:
        longest[cell["run_id"]] = max(cell["step"], longest.get(cell["run_id"], 0))
    assert set(longest) == set(results(undisturbed))
    for run, step in longest.items():
        rows = [
            json.loads(line)["step"]
            for path in sorted((undisturbed / run).glob("attempts/*/metrics.jsonl"))
            for line in path.read_text().splitlines()
            if json.loads(line)["kind"] == "train"
        ]
        assert rows == sorted(set(rows))
        assert max(rows) <= step
    promoted = [run for run in longest if len(list((undisturbed / run / "attempts").iterdir())) > 1]
    assert promoted


@pytest.mark.parametrize("killed", [5, *(pytest.param(at, marks=pytest.mark.long) for at in (0, 3, 6, 8))])
def test_killed_at_five_moments_it_ends_in_the_same_runs_and_choice(
    killed: int, undisturbed: Path, tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(undisturbed / "throughput.json", tmp_path)
    trained = []

    class Mortal(Here):
        """Gone after so many runs, in the middle of the next one."""

        def train(self, job: Job, runs: Path, data_root: Path) -> str:
            trained.append(job.run_id)
            if len(trained) <= killed:
                return super().train(job, runs, data_root)
            if len(trained) == killed + 1:
                super().train(Job(job.science, job.evaluations[: len(job.evaluations) // 2 + 1]), runs, data_root)
            return "interrupted"

    monkeypatch.setattr(local, "_worker", Mortal)
    asked = sweep_request(arguments(tmp_path, data_root))
    assert run_sweep(asked) == 1
    assert 0 < len(results(tmp_path)) <= len(results(undisturbed))
    monkeypatch.setattr(local, "_worker", Here)
    assert run_sweep(asked) == 0
    assert results(tmp_path) == results(undisturbed)
    assert record(tmp_path) | {"command": ""} == record(undisturbed) | {"command": ""}
    assert updates(tmp_path) == updates(undisturbed)


def test_the_same_command_again_trains_nothing_and_says_the_same(
    undisturbed: Path,
    tmp_path: Path,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, count = record(undisturbed), updates(undisturbed)
    assert sweep.main(arguments(undisturbed, data_root)) == 0
    shown = capsys.readouterr().out
    assert "best at 1e+10 FLOPs" in shown
    assert "python fit_laws.py" in shown
    kept = [json.loads((at / "forecasts" / "here.json").read_text()) for at in (undisturbed, tmp_path)]
    assert kept[0]["predictions"] == kept[1]["predictions"] == before["forecast"]["predictions"]
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(forecasts, "FOLDER", tmp_path / "file" / "forecasts")
    assert sweep.main(arguments(undisturbed, data_root)) == 0
    assert "the forecast stands in the record alone" in capsys.readouterr().out
    assert record(undisturbed) == before
    assert updates(undisturbed) == count


def test_a_dry_run_shows_what_is_decided_and_makes_nothing(
    undisturbed: Path, tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert sweep.main(arguments(runs, data_root, "dry_run=true")) == 0
    shown = capsys.readouterr().out
    assert "rung 0: 6 arms" in shown
    assert "everything at the top" in shown
    assert not runs.exists()
    assert sweep.main(arguments(runs, data_root, "dry_run=true", "format=json")) == 0
    found = json.loads(capsys.readouterr().out)["search"]
    assert [arm["name"] for arm in found["arms"]][:2] == ["dense", "btt"]
    assert sweep.main(arguments(undisturbed, data_root, "dry_run=true")) == 0
    assert "decided by" in capsys.readouterr().out


def test_status_counts_the_runs_of_all_rungs(
    undisturbed: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main([*arguments(undisturbed, data_root), "status=true", "format=json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == len(results(undisturbed))


class Cluster:
    """A SLURM that trains what is submitted, some of it at once."""

    def __init__(self, at_once: int) -> None:
        self.at_once, self.submitted = at_once, 0
        self.silent_at = 0
        """The call at which the controller does not answer."""

    def launch(self, plan, request, name, console) -> int:
        self.submitted += 1
        if self.submitted == self.silent_at:
            raise ControllerError("squeue: Unable to contact slurm controller (connect failure)")
        store = Store(request.site.runs)
        pending = [job for job in plan.jobs if not job_state(job, store).is_final]
        for job in pending[: self.at_once]:
            execute(job, store, request.site.data_root, request.site.placement)
        return 0

    def is_underway(self, plan, request) -> bool:
        return self.at_once > 0


def on_cluster(monkeypatch: pytest.MonkeyPatch, at_once: int) -> Cluster:
    cluster = Cluster(at_once)
    monkeypatch.setattr(carry_out, "launch", cluster.launch)
    monkeypatch.setattr(carry_out, "is_underway", cluster.is_underway)
    monkeypatch.setattr(search, "LOOK_SECONDS", 0.0)
    return cluster


def cluster_words(runs: Path, data_root: Path, *more: str) -> list[str]:
    words = [word for word in arguments(runs, data_root) if not word.startswith("launch.workers")]
    return [*words, "launch=slurm", "launch.gpus=0", *more]


def test_on_a_cluster_each_call_submits_a_rung(
    undisturbed: Path,
    tmp_path: Path,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = on_cluster(monkeypatch, 100)
    asked = cluster_words(tmp_path, data_root)
    for rung in range(len(record(undisturbed)["rungs"])):
        assert sweep.main(asked) == 0
        assert cluster.submitted == rung + 1
        assert "the same command submits the next rung" in capsys.readouterr().out
    assert sweep.main(asked) == 0
    assert results(tmp_path) == results(undisturbed)
    assert record(tmp_path)["winner"] == record(undisturbed)["winner"]


def test_with_wait_one_call_goes_to_the_end_and_ends_where_nothing_is_on_its_way(
    undisturbed: Path,
    tmp_path: Path,
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = cluster_words(tmp_path, data_root, "search.wait=true")
    on_cluster(monkeypatch, 0)
    assert sweep.main(asked) == 1
    on_cluster(monkeypatch, 4).silent_at = 2
    assert sweep.main(asked) == 0
    assert "SLURM does not answer, and is asked again later: squeue" in capsys.readouterr().out
    assert results(tmp_path) == results(undisturbed)
