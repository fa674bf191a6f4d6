"""What was submitted can be read back by anybody, and code as it was can be imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from structlin.errors import UserError
from structlin.host.code import PACKAGE, code_hash
from structlin.launch.slurm.resources import Resources
from structlin.launch.slurm.snapshot import freeze
from structlin.launch.slurm.speeds import harvest
from structlin.launch.slurm.submissions import begin, jobs_of, submissions, submitted
from structlin.runs.speeds import Throughputs
from tests.launch.slurm.orders import job
from tests.launch.slurm.test_standing import submit

RESOURCES = Resources(1, 0, 1, 2, 30)


def test_an_element_finds_its_jobs(tmp_path: Path) -> None:
    packs = [[job(0), job(1)], [job(2)]]
    record = begin(tmp_path / "sweeps/demo", packs, RESOURCES, "key", "ada", 1.0)
    for index, pack in enumerate(packs):
        found = jobs_of(record.folder / "packs.jsonl", index)
        assert [(one.run_id, one.evaluations) for one in found] == [(one.run_id, one.evaluations) for one in pack]
    with pytest.raises(UserError, match="no line 2"):
        jobs_of(record.folder / "packs.jsonl", 2)


def test_what_sbatch_never_took_is_no_submission(tmp_path: Path) -> None:
    record = begin(tmp_path / "sweeps/demo", [[job()]], RESOURCES, "key", "ada", 1.0)
    assert submissions(tmp_path) == []
    submitted(record, "17")
    (found,) = submissions(tmp_path)
    assert (found.job_id, found.user, found.resources, found.sweep) == ("17", "ada", RESOURCES, "demo")
    assert found.name_of(0) == "17"
    assert found.elements[0] == {job().run_id: frozenset(job().evaluations)}


def test_folders_are_numbered_and_never_shared(tmp_path: Path) -> None:
    names = [submit(tmp_path, [[job()], [job(1)]], str(number)).folder.name for number in (5, 6)]
    assert names == ["0001", "0002"]
    assert submissions(tmp_path)[1].name_of(1) == "6_1"


def test_a_broken_record_is_passed_over(tmp_path: Path) -> None:
    record = submit(tmp_path, [[job()]], "5")
    (record.folder / "submission.json").write_text("{")
    assert submissions(tmp_path) == []


def test_frozen_code_is_imported_from_the_snapshot(tmp_path: Path) -> None:
    folder = freeze(tmp_path)
    assert freeze(tmp_path) == folder
    assert code_hash(folder / "structlin") == code_hash(PACKAGE) == folder.name
    assert set(json.loads((folder / "code.json").read_text())) == {"commit", "diff_sha256"}
    reads = "from structlin.host.code import code_state"
    program = f"import structlin; {reads}; print(structlin.__file__, code_state())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"{folder}/structlin/__init__.py")
    assert "frozen with the changes" in done.stdout


def test_other_code_has_another_snapshot(tmp_path: Path) -> None:
    package = tmp_path / "structlin"
    package.mkdir()
    (package / "one.py").write_text("x = 1\n")
    first = freeze(tmp_path / "sweep", package)
    (package / "one.py").write_text("x = 2\n")
    second = freeze(tmp_path / "sweep", package)
    assert first != second
    assert (first / "structlin/one.py").read_text() == "x = 1\n"


def test_speeds_come_from_the_journals_of_runs_of_the_same_profile(tmp_path: Path, data_root: Path) -> None:
    from structlin.config.request import Site
    from structlin.launch.reconcile import job_state
    from structlin.runs.store import Store
    from tests.tiny import PLACEMENT, train

    mine, foreign = job(0, steps=40), job(1, steps=40, d_model=32)
    for one in (mine, foreign):
        assert train(one.science, one.evaluations, tmp_path, data_root)[0] == "done"
    submit(tmp_path, [[mine]], "5")
    site = Site(tmp_path, data_root, 4.0, 20, PLACEMENT, machine="key")
    found = [job_state(one, Store(tmp_path)) for one in (mine, foreign)]
    assert harvest(found, submissions(tmp_path), site) == 1
    speeds = [row["tokens_per_second"] for row in found[0].folder.journal.rows("train")[1:]]
    kept = Throughputs(tmp_path, "key").find(mine.science, PLACEMENT)
    assert kept is not None
    assert min(speeds) <= kept <= max(speeds)
    assert Throughputs(tmp_path, "key").find(foreign.science, PLACEMENT) is None
    assert harvest(found, submissions(tmp_path), site) == 0
