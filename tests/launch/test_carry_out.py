"""A sweep trains what is missing and nothing twice; a larger budget afterwards gives what asking for both gives."""

import shutil
from pathlib import Path

import pytest

import sweep
from structlin.config.doors import sweep_request
from structlin.config.request import Site
from structlin.errors import UserError
from structlin.launch import carry_out, local
from structlin.launch.carry_out import run_sweep
from structlin.launch.reconcile import reconcile
from structlin.planning.grid import plan_sweep
from structlin.runs.claim import Claim
from structlin.runs.job import Job
from structlin.runs.store import Store
from structlin.runs.table import load
from structlin.training.entry import execute
from tests.tiny import ARGUMENTS

SMALL, LARGE = "1e8", "3e8"
GRID = ["structure=dense,btt", "grid.widths=[8,16]", "launch.workers=1"]


def run(runs: Path, data_root: Path, *arguments: str) -> int:
    return run_sweep(request(runs, data_root, *arguments))


def request(runs: Path, data_root: Path, *arguments: str):
    return sweep_request([*ARGUMENTS, *GRID, f"runs={runs}", f"data.root={data_root}", *arguments])


def results(runs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in runs.glob("*/result.json")}


def updates(runs: Path) -> int:
    """Rows of training loss in all journals: work done, counted where it is written."""
    return sum(path.read_text().count('"kind": "train"') for path in runs.glob("*/attempts/*/metrics.jsonl"))


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """Both budgets in one sweep, by two workers, after its own measurement of speeds."""
    runs = tmp_path_factory.mktemp("at-once")
    assert run(runs, data_root, f"budget={SMALL},{LARGE}", "launch.workers=2") == 0
    return runs


class Here:
    """A worker that trains in this process, which has imported torch already."""

    def __init__(self, index: int, site: Site) -> None:
        self.placement = site.placement

    def train(self, job: Job, runs: Path, data_root: Path) -> str:
        return execute(job, Store(runs), data_root, self.placement)

    def stop(self) -> None:
        """Every sweep asks for it at its end."""

    def close(self) -> None:
        """Nothing is left."""


@pytest.fixture
def runs(at_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store without runs that knows the speeds of this machine, and workers that need not start: seconds less."""
    shutil.copy(at_once / "throughput.json", tmp_path)
    monkeypatch.setattr(local, "_worker", Here)
    return tmp_path


def test_a_sweep_run_twice_trains_nothing_twice(at_once: Path, data_root: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in at_once.glob("*/attempts/*/metrics.jsonl")}
    assert run(at_once, data_root, f"budget={SMALL},{LARGE}") == 0
    assert {path: path.stat().st_mtime_ns for path in at_once.glob("*/attempts/*/metrics.jsonl")} == before
    assert "4 of 4 runs are done already" in capsys.readouterr().out


def test_a_larger_budget_afterwards_extends_the_trunks(at_once: Path, runs: Path, data_root: Path) -> None:
    assert run(runs, data_root, f"budget={SMALL}") == 0
    assert run(runs, data_root, f"budget={LARGE}") == 0
    assert results(runs) == results(at_once)
    assert updates(runs) == updates(at_once)


def test_every_cell_is_in_the_table(at_once: Path, data_root: Path) -> None:
    plan = plan_sweep(request(at_once, data_root, f"budget={SMALL},{LARGE}"))
    assert len(plan.cells) == 8
    table = load(at_once)
    for cell, job_id in ((cell, Store(at_once).folder(cell.science).run_id) for cell in plan.cells):
        row = table[(table["run_id"] == job_id) & (table["step"] == cell.step)]
        assert len(row) == 1
        assert row["training_flops"].item() == pytest.approx(cell.training_flops)
        assert row["tokens_per_second"].item() > 0


def test_a_cooldown_sweep_branches_from_its_trunks(runs: Path, data_root: Path) -> None:
    assert run(runs, data_root, "grid=cooldown", f"budget={SMALL},{LARGE}", "structure=btt", "grid.widths=[16]") == 0
    table = load(runs)
    assert set(table["schedule"]) == {"constant", "cooldown"}
    branches = [folder for folder in Store(runs).folders() if folder.science().schedule.kind == "cooldown"]
    assert len(branches) == 2
    for folder in branches:
        assert min(row["step"] for row in folder.journal.rows("train")) > folder.science().schedule.cooldown_start


def test_an_isoflop_sweep_decays_every_cell(runs: Path, data_root: Path) -> None:
    assert run(runs, data_root, "grid=isoflop", f"budget={SMALL}", "structure=btt") == 0
    table = load(runs)
    assert set(table["schedule"]) == {"cosine"}
    assert (table["step"] == table["horizon_steps"]).all()


def test_a_run_left_running_by_a_dead_process_is_interrupted_and_resumed(runs: Path, data_root: Path) -> None:
    """The lock, which the kernel frees, says whether a process lives; status.json alone does not."""
    wanted = request(runs, data_root, f"budget={SMALL}", "launch.workers=1")
    plan = plan_sweep(wanted)
    folder = Store(runs).folder(plan.jobs[0].science)
    with Claim(folder) as claim:
        assert claim.begin(plan.jobs[0].science) is not None
        assert reconcile(plan.jobs, Store(runs))[0].state == "running"
    assert reconcile(plan.jobs, Store(runs))[0].state == "interrupted"
    assert run_sweep(wanted) == 0
    assert {state.state for state in reconcile(plan.jobs, Store(runs))} == {"done"}


def test_a_bill_above_max_hours_is_refused_without_a_terminal(runs: Path, data_root: Path) -> None:
    with pytest.raises(UserError, match=r"launch\.max_hours"):
        run(runs, data_root, f"budget={SMALL}", "launch.max_hours=1e-6")
    assert not list(runs.glob("*/attempts/*/metrics.jsonl"))


def test_reading_the_data_too_often_is_refused_before_training(tmp_path: Path, data_root: Path) -> None:
    with pytest.raises(UserError, match=r"data\.max_epochs"):
        run(tmp_path, data_root, f"budget={SMALL}", "data.max_epochs=1e-6")
    assert not list(tmp_path.glob("*/attempts/*/metrics.jsonl"))


def test_dry_run_json_is_one_object_and_nothing_else(tmp_path: Path, capsys) -> None:
    import json

    arguments = [*ARGUMENTS, *GRID, f"runs={tmp_path}/none", "data.root=nowhere", f"budget={SMALL}"]
    sweep.main([*arguments, "dry_run=true", "format=json"])
    printed = capsys.readouterr().out
    cells = json.loads(printed)["cells"]
    assert len(printed.strip().splitlines()) == 1
    assert len(cells) == 4
    for cell in cells:
        assert cell["flops"]["training"] == 6 * cell["flops"]["paper"]
        assert cell["params"]["total"] == sum(count for name, count in cell["params"].items() if name != "total")
        assert cell["budget_flops"] == float(SMALL)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_canary_goes_first(ends_well: bool, runs: Path, data_root: Path, monkeypatch, capsys) -> None:
    """One run alone, the cheapest; the others only when it has ended well."""
    order: list[str] = []
    whole = Here.train

    def train(self: Here, job: Job, store: Path, root: Path) -> str:
        order.append(job.run_id)
        return whole(self, job, store, root) if ends_well else "failed"

    monkeypatch.setattr(Here, "train", train)
    code = run(runs, data_root, f"budget={SMALL}", "launch.canary=true")
    assert code == (0 if ends_well else 1)
    assert len(order) == (4 if ends_well else 1)
    assert Store(runs).root.exists()
    if not ends_well:
        assert "canary has not ended well" in capsys.readouterr().out


def test_a_line_of_a_reason_is_no_markup(runs: Path, data_root: Path, monkeypatch, capsys) -> None:
    reason = "terminate at [/usr/include/c++/12/vector:3] [bold]x[/bold]"

    def fail(self: Here, job: Job, store: Path, root: Path) -> str:
        raise UserError(reason)

    monkeypatch.setattr(Here, "train", fail)
    assert run(runs, data_root, f"budget={SMALL}") == 1
    # Lines are folded where the terminal ends.
    assert "".join(reason.split()) in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["structure=dense", "moe=ffn"], "moe-ffn8-"),
        (["structure=btt", "moe=btt"], "moe-btt8-"),
        (["structure=btt", "moe=none,ffn"], "btt-btt-moe-ffn8-"),
        (["structure=monarch,dense"], "monarch-dense-"),
        (["structure=dense,btt,low_rank,kronecker"], "4-structures-"),
    ],
)
def test_an_unnamed_sweep_is_named_by_what_was_asked_for(words: list[str], name: str) -> None:
    asked = sweep_request([*words, "budget=1e12", "scale=small", "grid.points=2", "tracking=journal"])
    assert carry_out._name(plan_sweep(asked)).startswith(name)


def test_the_bill_stands_there_before_anything_is_measured(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    monkeypatch.setattr(carry_out, "prepare_data", lambda *rest: said.append(capsys.readouterr().out))
    monkeypatch.setattr(carry_out, "probe_missing", lambda *rest: said.append(capsys.readouterr().out) or 0)
    monkeypatch.setattr(carry_out, "watch", lambda pool, console: None)
    run(tmp_path / "runs", data_root, f"budget={SMALL}")
    assert "training FLOPs, ~" in said[0]
    assert "a guess" in said[0]
