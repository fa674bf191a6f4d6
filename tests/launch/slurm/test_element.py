"""An element says by its exit code what kept it from its end, where nothing else can be written."""

import json
import os
from pathlib import Path

import pytest

from structlin.config.launch import SlurmLaunch
from structlin.config.request import Site
from structlin.launch.local import Task
from structlin.launch.reconcile import job_state
from structlin.launch.slurm import element
from structlin.launch.slurm.causes import NODE_EXIT, SAVED_EXIT, STORAGE_EXIT
from structlin.launch.slurm.element import Setting, train_element
from structlin.launch.slurm.resources import Resources
from structlin.launch.slurm.submissions import Submission, begin
from structlin.runs.store import Store
from tests.launch.slurm.orders import job
from tests.tiny import PLACEMENT

BUSY = "RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable"
FULL = "storage: no space left on the device of /store; mend it and run the same command again"


class Here:
    """A pool that ends as it is told, at once."""

    outcomes: tuple[tuple[str, str], ...] = ()

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = tasks
        self.is_running = False

    def start(self) -> None:
        for task, (outcome, reason) in zip(self.tasks, self.outcomes, strict=True):
            task.outcome, task.reason = outcome, reason

    def stop(self) -> None:
        """Nothing runs."""


@pytest.fixture
def submission(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Submission:
    """Two runs in one element, and an allocation around us."""
    jobs = [job(0, steps=10), job(1, steps=10)]
    record = begin(tmp_path / "runs" / "sweeps" / "demo", [jobs], Resources(1, 0, 1, 2, 30), "key", "ada", 1.0)
    Setting(Site(tmp_path / "runs", data_root, 4.0, 20, PLACEMENT), SlurmLaunch("site", gpus=0), 30).write(
        record.folder
    )
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    monkeypatch.setattr(element.signal, "signal", lambda number, action: None)
    store = Store(tmp_path / "runs")
    pool = Here([Task(job_state(one, store)) for one in jobs])
    monkeypatch.setattr(element._Element, "_pool", lambda self: pool)
    return record


def ends(submission: Submission, monkeypatch: pytest.MonkeyPatch, *outcomes: tuple[str, str]) -> int:
    monkeypatch.setattr(Here, "outcomes", outcomes)
    return train_element(str(submission.folder), 0)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((("done", ""), ("done", "")), 0),
        ((("done", ""), ("failed", "RuntimeError: shapes")), 1),
        ((("done", ""), ("failed", FULL)), STORAGE_EXIT),
        ((("failed", BUSY), ("failed", FULL)), STORAGE_EXIT),
        ((("failed", BUSY), ("done", "")), NODE_EXIT),
        ((("failed", BUSY), ("failed", "RuntimeError: shapes")), 1),
        ((("busy", ""), ("done", "")), 0),
    ],
)
def test_an_exit_code_for_each_kind(outcomes, code: int, submission: Submission, monkeypatch) -> None:
    assert ends(submission, monkeypatch, *outcomes) == code


def test_a_sick_node_is_named_in_the_reason(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(submission, monkeypatch, ("failed", BUSY), ("failed", "RuntimeError: shapes"))
    reasons = sorted(submission.failures(0).values())
    assert reasons == [f"{BUSY} [node n3]", "RuntimeError: shapes"]


def test_failures_that_cannot_be_written_are_told_by_the_code(submission: Submission, monkeypatch) -> None:
    def refuse(path: Path, value: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(element, "write_json", refuse)
    assert ends(submission, monkeypatch, ("failed", FULL), ("done", "")) == STORAGE_EXIT


def test_an_element_waits_for_space_and_then_gives_its_place_to_others(submission, monkeypatch, capsys) -> None:
    reasons = iter(["Disk quota exceeded", "Disk quota exceeded", ""])
    monkeypatch.setattr(element, "SPACE_POLL_SECONDS", 0.0)
    monkeypatch.setattr(element, "why_not_writable", lambda folder: next(reasons))
    assert ends(submission, monkeypatch, ("done", ""), ("done", "")) == 0
    assert capsys.readouterr().out.count("waiting for space: Disk quota exceeded") == 2
    monkeypatch.setattr(element, "SPACE_SECONDS", -1.0)
    monkeypatch.setattr(element, "why_not_writable", lambda folder: "Stale file handle")
    assert ends(submission, monkeypatch) == STORAGE_EXIT
    assert "storage: Stale file handle" in capsys.readouterr().out


@pytest.mark.parametrize("number", [28, 122, 116, 30, 5])
def test_a_store_that_goes_away_beneath_is_storage(number: int, submission, monkeypatch, capsys) -> None:
    def refuse(folder: Path) -> Setting:
        raise OSError(number, os.strerror(number), "/store")

    monkeypatch.setattr(Setting, "read", refuse)
    assert train_element(str(submission.folder), 0) == STORAGE_EXIT


def test_what_may_not_be_requeued_is_saved_and_says_so(submission, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    setting = json.loads((submission.folder / "setting.json").read_text())
    setting["launch"]["requeue"] = False
    (submission.folder / "setting.json").write_text(json.dumps(setting))
    warned = element._Warning.__init__

    def already(self: element._Warning) -> None:
        warned(self)
        self.came = True

    monkeypatch.setattr(element._Warning, "__init__", already)
    assert ends(submission, monkeypatch, ("interrupted", ""), ("done", "")) == SAVED_EXIT
    assert "saved, and to be submitted again" in capsys.readouterr().out
