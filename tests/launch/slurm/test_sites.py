"""What one real cluster cannot show: other sites' commands, as stubs that print what sites print."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from structlin.config.doors import sweep_request
from structlin.errors import UserError
from structlin.launch.carry_out import run_sweep
from structlin.launch.slurm.arrays import InDoubt
from tests.launch.slurm.stub import Stub
from tests.tiny import ARGUMENTS

ROOT = Path(__file__).parents[3]
GRID = ("structure=dense,btt", "grid.widths=[8,16]", "budget=1e8", "name=demo", "launch.time_minutes=10")


class Site:
    """One command line at a site, typed as often as needed."""

    def __init__(self, stub: Stub, runs: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.stub, self.runs, self.data_root, self.capsys = stub, runs, data_root, capsys

    def type(self, *words: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        places = (f"runs={self.runs}", f"data.root={self.data_root}")
        code = run_sweep(sweep_request([*ARGUMENTS, *GRID, "launch=slurm_cpu", *places, *words]))
        return code, self.capsys.readouterr().out

    def process(self, *words: str, ignored: int = 0) -> subprocess.CompletedProcess[str]:
        """The same as a process of its own, which signals reach; ``ignored`` as by nohup."""
        places = (f"runs={self.runs}", f"data.root={self.data_root}")
        command = [sys.executable, "sweep.py", *ARGUMENTS, *GRID, "launch=slurm_cpu", *places, *words]

        def ignore() -> None:
            for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(one, signal.SIG_IGN if one == ignored else signal.SIG_DFL)

        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, preexec_fn=ignore
        )

    def submitted(self, *words: str) -> int:
        code, printed = self.type(*words)
        assert code == 0
        found = re.search(r"(\d+) submitted now", printed)
        assert found, printed
        return int(found[1])


@pytest.fixture
def site(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Site:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_")):
            monkeypatch.delenv(name)
    return Site(Stub(tmp_path / "bin"), tmp_path / "runs", data_root, capsys)


APART = "launch.runs_per_gpu=1"


def test_banners_among_all_answers(site: Site) -> None:
    site.stub.change(banner="Dear users, job 5 of node n7 | see https://site.example/12\n99\n")
    assert site.submitted(APART) == 4
    assert site.submitted(APART) == 0
    code, printed = site.type(APART, "status=true")
    assert code == 1
    assert "4 waiting: Priority" in printed
    assert "skipped, such as: Dear users" in printed
    assert [job["id"] for job in site.stub.jobs] == ["101_[0-3]"]


@pytest.mark.parametrize("wish", ["launch.options=['clusters=b']", "launch.clusters=b"])
def test_another_cluster_of_the_login_node(wish: str, site: Site) -> None:
    site.stub.change(clusters=["a", "b"])
    assert site.submitted(APART, wish) == 4
    assert {job["cluster"] for job in site.stub.jobs} == {"b"}
    assert site.submitted(APART, wish) == 0
    assert "4 waiting" in site.type(APART, "status=true")[1]
    assert "cancelled 4 elements" in site.type(APART, wish, "cancel=true")[1]
    assert site.stub.jobs == []


SEVERAL = "launch.clusters=[a,b]"


def test_of_several_clusters_each_array_goes_where_it_begins_first(site: Site) -> None:
    """Both have a job of one number; status, the same command and cancel tell them apart."""
    site.stub.change(clusters=["a", "b"], first="ba")
    assert site.submitted(APART, SEVERAL, "structure=btt") == 2
    site.stub.change(first="ab")
    printed = site.type(APART, SEVERAL)[1]
    assert "2 on their way, 2 submitted now" in printed
    assert "in arrays 101 on a" in printed
    assert [(job["cluster"], job["id"]) for job in site.stub.jobs] == [("b", "101_[0-1]"), ("a", "101_[0-1]")]
    assert site.submitted(APART, SEVERAL) == 0
    assert "4 waiting" in site.type(APART, "status=true")[1]
    theirs = {**site.stub.jobs[0], "cluster": "a", "id": "102", "name": "theirs", "comment": ""}
    site.stub.change(jobs=[*site.stub.jobs, theirs])
    assert "cancelled 4 elements" in site.type(APART, SEVERAL, "cancel=true")[1]
    assert [job["name"] for job in site.stub.jobs] == ["theirs"]


def test_of_several_clusters_one_may_be_silent(site: Site) -> None:
    site.stub.change(clusters=["a", "b"], first="ba")
    assert site.submitted(APART, SEVERAL, "structure=btt") == 2
    site.stub.change(clusters=["a"])
    assert site.submitted(APART, SEVERAL) == 2
    assert [job["cluster"] for job in site.stub.jobs] == ["b", "a"]
    assert "left to cluster b" in site.type(APART, SEVERAL, "status=true")[1]
    site.stub.change(clusters=["a", "b"])
    assert site.submitted(APART, SEVERAL) == 0


def test_of_several_clusters_none_answers(site: Site) -> None:
    site.stub.change(clusters=[], first="ba")
    with pytest.raises(UserError, match="No cluster"):
        site.type(APART, SEVERAL)


def test_an_answer_lost_among_several_clusters_is_found_on_the_one_that_was_chosen(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the token, at once or by the next command; never closed while one of them is silent."""
    slept: list[float] = []
    monkeypatch.setattr("structlin.launch.slurm.submit.time.sleep", slept.append)
    site.stub.change(clusters=["a", "b"], first="ba", loses=True)
    assert site.submitted(APART, SEVERAL, "structure=btt") == 2
    monkeypatch.setattr("structlin.launch.slurm.submit.Submitter._adopted", lost)
    site.type(APART, SEVERAL, "structure=dense")
    site.stub.change(loses=False, clusters=["a"])
    monkeypatch.setattr("structlin.launch.slurm.standing.DOUBT_SECONDS", -1)
    assert site.submitted(APART, SEVERAL) == 0
    site.stub.change(clusters=["a", "b"])
    assert site.submitted(APART, SEVERAL) == 0
    assert [job["cluster"] for job in site.stub.jobs] == ["b", "b"]
    assert "cancelled 4 elements" in site.type(APART, SEVERAL, "cancel=true")[1]


def lost(*rest: object) -> None:
    raise InDoubt("nobody knows")


def test_what_waits_for_an_array_goes_to_its_cluster(site: Site) -> None:
    """The canary's array is on b; so is the rest, though a would begin sooner."""
    site.stub.change(clusters=["a", "b"], first="ba")
    assert site.submitted(APART, SEVERAL, "launch.canary=true") == 4
    first, rest = site.stub.jobs
    assert (first["cluster"], rest["cluster"], rest["dependency"]) == ("b", "b", "afterok:101")
    site.stub.change(first="ab")
    # A longer request for runs that b has waits for them there; new runs go where they begin first.
    assert site.submitted(APART, SEVERAL, "budget=2e8", "seed=0,1") == 8
    longer, new = site.stub.jobs[2:4], site.stub.jobs[4:]
    assert {(job["cluster"], job["options"]["clusters"]) for job in longer + new} == {("b", "b"), ("a", "a,b")}
    assert all(job["dependency"].startswith("afterany:") == (job["cluster"] == "b") for job in longer + new)


def test_two_clusters_on_one_file_system(site: Site) -> None:
    assert site.submitted(APART) == 4
    # The login node of b, which has a job of the same number and knows nothing of a.
    theirs = {"id": "101_[0-3]", "cluster": "b", "state": "RUNNING", "submit": "2026-11-22T12:00:00"}
    ours = site.stub.jobs
    site.stub.change(own="b", clusters=["b"], jobs=[*ours, {**theirs, "comment": "", "name": "theirs"}])
    assert site.submitted(APART) == 0
    code, printed = site.type(APART, "cancel=true")
    assert (code, "cancelled 0 elements" in printed) == (1, True)
    assert len(site.stub.jobs) == 2
    # Back on a, whose array is still known.
    site.stub.change(own="a", clusters=["a"])
    assert site.submitted(APART) == 0
    assert "cancelled 4 elements" in site.type(APART, "cancel=true")[1]
    assert [job["name"] for job in site.stub.jobs] == ["theirs"]


def test_a_rebuilt_cluster(site: Site) -> None:
    assert site.submitted(APART) == 4
    stranger = {"id": "101_[0-3]", "cluster": "a", "state": "RUNNING", "submit": "2026-11-22T12:00:00", "comment": ""}
    site.stub.change(jobs=[{**stranger, "name": "theirs"}], next=200)
    assert "running" not in site.type(APART, "status=true")[1]
    assert "cancelled 0 elements" in site.type(APART, "cancel=true")[1]
    assert len(site.stub.jobs) == 1
    assert site.submitted(APART) == 4


def test_a_lost_answer_is_adopted_at_once_or_by_the_next_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structlin.launch.slurm.submit.time.sleep", lambda seconds: None)
    site.stub.change(loses=True)
    assert site.submitted(APART) == 4
    site.stub.change(loses=False)
    assert site.submitted(APART) == 0
    assert len(site.stub.jobs) == 1


def test_a_site_that_drops_comments(site: Site) -> None:
    site.stub.change(no_comments=True)
    assert site.submitted(APART) == 4
    assert site.submitted(APART) == 0
    assert "cancelled 4 elements" in site.type(APART, "cancel=true")[1]


@pytest.mark.parametrize(
    ("limit", "code", "word"),
    [
        ("QOSMaxWallDurationPerJobLimit", 1, "launch.max_minutes"),
        ("QOSMinGRES", 1, "launch.gpus"),
        ("QOSMaxCpuPerUserLimit", 1, "launch.cpus_per_gpu"),
        ("QOSMaxSubmitJobPerUserLimit", 0, "for the same command later"),
    ],
)
def test_a_limit_decides_by_its_name(limit: str, code: int, word: str, site: Site) -> None:
    policy = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    site.stub.change(refuses=f"sbatch: error: {limit}\nsbatch: error: Batch job submission failed: {policy}")
    found, printed = site.type(APART)
    assert found == code
    assert word in printed
    assert not list(site.runs.glob("sweeps/*/submissions/*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_sbatch_works_loses_no_array(number: signal.Signals, site: Site) -> None:
    """sbatch has taken the array, and its answer comes to nobody: the next command knows it by its token."""
    site.stub.change(signals=int(number), then=60)
    done = site.process(APART)
    assert done.returncode == (130 if number == signal.SIGINT else -number)
    assert "stopped: what SLURM has taken stays with it" in done.stdout
    assert len(done.stderr.splitlines()) == 1
    site.stub.change(signals=0, then=0)
    assert site.submitted(APART) == 0
    assert [job["id"] for job in site.stub.jobs] == ["101_[0-3]"]
    assert "cancelled 4 elements" in site.type(APART, "cancel=true")[1]


def test_a_submission_under_nohup_goes_on_when_its_terminal_goes(site: Site) -> None:
    site.stub.change(signals=int(signal.SIGHUP))
    done = site.process(APART, ignored=signal.SIGHUP)
    assert (done.returncode, "4 submitted now" in done.stdout) == (0, True)
    assert len(site.stub.jobs) == 1


def test_what_never_begins_is_said_by_the_status_and_by_the_same_command(site: Site) -> None:
    assert site.submitted(APART) == 4
    site.stub.change(reason="PartitionTimeLimit")
    assert "4 never begin: PartitionTimeLimit: lower launch.max_minutes" in site.type(APART, "status=true")[1]
    assert "4 runs on their way never begin: PartitionTimeLimit" in site.type(APART)[1]


def test_a_site_without_arrays(site: Site) -> None:
    site.stub.change(array_size=0)
    assert site.submitted(APART) == 4
    assert [job["id"] for job in site.stub.jobs] == ["101", "102", "103", "104"]


def test_a_canary_goes_first_and_the_rest_depends_on_it(site: Site) -> None:
    assert site.submitted(APART, "launch.canary=true") == 4
    first, rest = site.stub.jobs
    assert (first["id"], first["dependency"]) == ("101", "")
    assert rest["dependency"] == "afterok:101"
    assert rest["options"]["kill-on-invalid-dep"] == "yes"


def test_a_store_that_takes_nothing_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structlin.launch.slurm.submit.why_not_writable", lambda folder: "Disk quota exceeded")
    code, printed = site.type(APART)
    assert code == 0
    assert "4 runs are for the same command later: nothing can be written" in printed
    assert "Disk quota exceeded" in printed
    assert site.stub.jobs == []
