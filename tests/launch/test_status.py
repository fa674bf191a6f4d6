"""The status of any sweep from any shell: whatever reasons hold, whichever sweep is meant, in whatever form."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

import sweep
from structlin.config.doors import sweep_request
from structlin.config.looking import status_request
from structlin.config.request import Site
from structlin.errors import UserError
from structlin.host import code
from structlin.host.passed_over import forget_passed_over
from structlin.launch import status
from structlin.launch.carry_out import write_manifest
from structlin.launch.reconcile import JobState, reconcile
from structlin.launch.same_code import refuse_other_code
from structlin.launch.slurm.controller import Live
from structlin.launch.slurm.standing import Standing, Survey
from structlin.planning.bill import count
from structlin.planning.grid import plan_sweep
from structlin.runs.attempt import Attempt
from structlin.runs.job import Job
from structlin.runs.store import Store
from tests.tiny import ARGUMENTS, PLACEMENT, tiny, train

SCIENCE = tiny()
JOBS = [Job(SCIENCE, (2, 4)), Job(tiny("dense"), (2, 4))]
REASONS = [
    "terminate called at [/usr/include/c++/12/bits/vector.tcc:312] in [abi:cxx11]",
    "closing tag [/red] and [bold]bold[/bold] and [link=http://x]x[/link]",
    "a :smile: and a backslash \\[",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:114] err == 0",
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    forget_passed_over()
    return Site(tmp_path / "runs", tmp_path / "data", 4.0, 20, PLACEMENT)


def failed(runs: Path, job: Job, reason: str) -> None:
    """A run that ended with a reason."""
    folder = Store(runs).folder(job.science)
    folder.attempts_path.mkdir(parents=True)
    attempt = Attempt(folder.attempts_path / "1")
    attempt.path.mkdir()
    folder.write_config(job.science)
    attempt.begin([])
    attempt.set_status("failed", step=1, target_step=4, reason=reason)


def shown(jobs: list[Job], site: Site) -> str:
    stream = io.StringIO()
    status.show(jobs, site, Console(file=stream, width=300))
    return stream.getvalue()


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_shown_as_it_is(reason: str, site: Site) -> None:
    failed(site.runs, JOBS[0], reason)
    assert f": {reason}" in shown(JOBS, site)
    assert "1 failed, 1 missing" in shown(JOBS, site)


def test_json_holds_every_run_and_nothing_else(site: Site, capsys) -> None:
    failed(site.runs, JOBS[0], REASONS[0])
    assert status.show(JOBS, site, Console(), "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert {phase: number for phase, number in found["counts"].items() if number} == {"failed": 1, "missing": 1}
    assert [(run["run_id"], run["phase"]) for run in found["runs"]] == [
        (JOBS[0].run_id, "failed"),
        (JOBS[1].run_id, "missing"),
    ]
    assert found["runs"][0]["reason"] == REASONS[0]


@pytest.mark.parametrize("name", ["result.json", "attempts/1/status.json"])
def test_a_broken_file_of_one_run_is_named_and_counted(name: str, site: Site, data_root: Path) -> None:
    train(SCIENCE, (2, 4), site.runs, data_root)
    train(tiny("dense"), (2, 4), site.runs, data_root)
    path = site.runs / JOBS[1].run_id / name
    path.write_text(
        '{"evaluations": [{"step": "x"}], "state": 3' if "status" in name else '{"evaluations": [{"a": 1}]}'
    )
    text = shown(JOBS, site)
    assert text.startswith("2 done" if "status" in name else "1 done")
    if name == "result.json":
        assert "1 file(s) or folder(s) could not be read" in text
        assert str(path) in text


@pytest.mark.parametrize("width", [50, 80, 100, 160])
def test_no_number_of_a_running_run_is_cut(width: int, site: Site) -> None:
    """At widths of terminals and pipes: steps, losses, speeds and times stand whole in one line each."""
    standings = []
    for seed, (step, loss) in enumerate([(1_234_567, 1.23456), (98_765, 12.3456)]):
        job = Job(tiny(seed=seed), (2, 12_345_678))
        failed(site.runs, job, "")
        folder = Store(site.runs).folder(job.science)
        row = {"kind": "train", "step": step, "tokens": 1, "loss": loss, "tokens_per_second": 123_456.0}
        folder.attempts()[0].journal.append(row)
        standings.append(Standing(JobState(job, folder, "running", 0), Live("RUNNING", "None"), f"12345678_{seed}"))
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for part in status._parts(Survey(standings), console):
        console.print(part)
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    for number in ("1,234,567/12,345,678", "98,765/12,345,678", "1.235", "12.346"):
        assert sum(number in line.split() for line in lines) == 1, (number, lines)
    assert sum(count(123_456.0) in line.split() for line in lines) == (2 if width >= 100 else 0)
    assert all(any(one.state.job.run_id in line for line in lines) for one in standings)


def test_what_never_begins_stands_first_and_says_what_to_change(site: Site) -> None:
    reasons = ["Priority", "Priority", "PartitionTimeLimit", "JobHeldUser", "QOSMaxJobsPerUserLimit"]
    jobs = [Job(tiny(seed=seed), (2, 4)) for seed in range(len(reasons))]
    folders = [Store(site.runs).folder(job.science) for job in jobs]
    waiting = [
        Standing(JobState(job, folder, "missing", 0), Live("PENDING", reason), "7_1")
        for job, folder, reason in zip(jobs, folders, reasons, strict=True)
    ]
    lines = status._waiting(waiting)
    assert [line.split(":")[0] for line in lines] == [
        "1 never begin",
        "1 waiting until somebody acts",
        "2 waiting",
        "1 waiting",
    ]
    assert "PartitionTimeLimit: lower launch.max_minutes" in lines[0]
    assert lines[0].endswith("then cancel=true and the command with that")
    assert "never begin: PartitionTimeLimit" in status._line(Survey(waiting))
    found = status._as_json(Survey(waiting))["runs"]
    assert [run["never_begins"] for run in found] == [False, False, True, False, False]
    assert [bool(run["hint"]) for run in found] == [False, False, True, True, True]


# ---- which sweep -----------------------------------------------------------------------------------------------------

GRID = [*ARGUMENTS, "structure=dense,btt", "grid.widths=[8,16]", "budget=1e8"]


def made(runs: Path, *words: str) -> None:
    """The manifest of a sweep, as its command leaves it."""
    request = sweep_request([*GRID, f"runs={runs}", *words])
    write_manifest(plan_sweep(request), request, request.name or "unnamed")


def test_a_name_the_last_one_and_this_command(tmp_path: Path, capsys) -> None:
    made(tmp_path, "name=first")
    made(tmp_path, "name=second", "seed=0,1")
    where = f"runs={tmp_path}"

    def runs_of(*words: str) -> int:
        assert sweep.main([*words, "format=json", where]) == 1
        return len(json.loads(capsys.readouterr().out)["runs"])

    assert runs_of("status=first") == 4
    assert runs_of("status=true") == 8
    assert runs_of(*GRID, "status=true") == 4
    assert runs_of(*GRID, "name=second", "seed=0,1", "status=true") == 8
    assert sweep.main(["status=true", where]) == 1
    assert capsys.readouterr().out.startswith("sweep second\n8 missing")


def test_the_status_of_a_command_that_was_given_is_not_planned_again(tmp_path: Path, capsys, monkeypatch) -> None:
    made(tmp_path, "name=first")
    expected = sweep.main([*GRID, f"runs={tmp_path}", "name=first", "status=true"]), capsys.readouterr().out

    def refuse(arguments: object) -> None:
        raise AssertionError("it was planned")

    monkeypatch.setattr("structlin.config.doors.sweep_request", refuse)
    again = sweep.main(["status=true", "name=first", f"runs={tmp_path}", *GRID]), capsys.readouterr().out
    assert again == expected


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["status=frist"], "did you mean 'first'"),
        (["status=../first"], "letters, digits"),
        (["status=first", "format=xml"], "did you mean|valid: json, table"),
    ],
)
def test_what_is_no_sweep(words: list[str], hint: str, tmp_path: Path) -> None:
    made(tmp_path, "name=first")
    with pytest.raises(UserError, match=hint):
        sweep.main([*words, f"runs={tmp_path}"])


def test_a_store_without_sweeps_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sweep was made"):
        sweep.main(["status=true", f"runs={tmp_path}"])


def test_an_older_manifest_is_read_by_its_cells(tmp_path: Path, capsys) -> None:
    made(tmp_path, "name=first")
    path = tmp_path / "sweeps" / "first.json"
    manifest = json.loads(path.read_text())
    del manifest["runs"], manifest["asked"]
    path.write_text(json.dumps(manifest))
    assert sweep.main(["status=first", f"runs={tmp_path}"]) == 1
    assert "4 missing" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["structure=btt"], ["status=false"], ["status=x", "cancel=true"], []])
def test_what_asks_for_no_status(words: list[str]) -> None:
    assert status_request(words) is None


# ---- watching --------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_a_look_and_what_is_not_begun_is_waited_for(
    site: Site, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Nothing runs, then one is trained, then the other: the watch ends with the last."""
    looks = iter([lambda: None, lambda: train(SCIENCE, (2, 4), site.runs, data_root),
                  lambda: train(tiny("dense"), (2, 4), site.runs, data_root)])  # fmt: skip
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        next(looks)()

    monkeypatch.setattr(status, "time", SimpleNamespace(sleep=pause, strftime=time.strftime))
    assert status.watch(JOBS, site, Console(file=io.StringIO())) == 0
    lines = capsys.readouterr().out.splitlines()
    assert pauses == [60, 60, 60]
    assert [line[10:19].strip() for line in lines] == ["2 missing", "2 missing", "1 done, 1", "2 done; 1"]


def test_the_watch_of_what_has_failed_ends(site: Site, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    clock = SimpleNamespace(sleep=lambda seconds: pytest.fail("it waits"), strftime=time.strftime)
    monkeypatch.setattr(status, "time", clock)
    failed(site.runs, JOBS[0], "broken")
    assert status.watch(JOBS[:1], site, Console(file=io.StringIO())) == 1


# ---- names and code --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", ".", "/etc/x", "a b", "a%j", "über", "", "a\\\\b", "a:b", "x" * 101, "lock", "a.json", "lock.held"],
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="name"):
        sweep_request([*GRID, f"name='{name}'"])


@pytest.mark.parametrize("name", ["a", "a.b", "A-b_c.1", "-x", "..."])
def test_a_name_of_letters_digits_dot_dash_and_underscore(name: str) -> None:
    assert sweep_request([*GRID, f"name='{name}'"]).name == name


def test_a_run_of_two_codes_is_told_and_can_be_refused(site: Site, data_root: Path, monkeypatch) -> None:
    _, folder = train(SCIENCE, (2,), site.runs, data_root)
    record = folder.attempts()[0].provenance()
    folder.attempts()[0].set_provenance({**record, "code_hash": "another"})
    job = Job(SCIENCE, (2, 4))
    with pytest.raises(UserError, match=f"same_code=true: 1 run.*{job.run_id}"):
        refuse_other_code(reconcile([job], Store(site.runs)))
    assert "mixed_code" not in shown([job], site)
    train(SCIENCE, (2, 4), site.runs, data_root)
    assert f"mixed_code: 1 run(s) were trained by several versions of the code or of torch: {job.run_id}" in shown(
        [job], site
    )
    from structlin.runs.table import load

    assert load(site.runs)["mixed_code"].all()
    refuse_other_code(reconcile([job], Store(site.runs)))  # it is done


def test_the_same_code_goes_on(site: Site, data_root: Path) -> None:
    train(SCIENCE, (2,), site.runs, data_root)
    refuse_other_code(reconcile([Job(SCIENCE, (2, 4))], Store(site.runs)))
    assert code.own_hash() == code.code_hash()


def test_torch_is_known_by_what_runs_write_down_without_being_imported() -> None:
    """A default build's package is called 2.13.0, and what it writes down 2.13.0+cu130."""
    look = "import sys\nfrom structlin.launch.same_code import _torch\nprint(_torch(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [torch.__version__, "False"]


def test_a_manifest_that_stands_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a full disk does not refuse the same command; it is still the last one given."""
    made(tmp_path, "name=first")
    path = tmp_path / "sweeps" / "first.json"
    os.utime(path, (0, 0))

    def refuse(*rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("structlin.launch.listed.write_atomically", refuse)
    made(tmp_path, "name=first")
    assert path.stat().st_mtime > 1
    with pytest.raises(OSError, match="No space left"):
        made(tmp_path, "name=first", "seed=0,1")
