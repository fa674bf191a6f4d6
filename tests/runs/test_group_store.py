"""Two people share a store: what one has begun the other goes on with, and what may not be read is named."""

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from structlin.host.passed_over import forget_passed_over, passed_over
from structlin.host.umask import apply_umask
from structlin.launch.reconcile import reconcile
from structlin.runs import pack, table
from structlin.runs.claim import Claim
from structlin.runs.job import Job
from structlin.runs.store import Store, digest_of
from tests.tiny import tiny

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="takes root to be two people")

SCIENCE = tiny()
JOB = Job(SCIENCE, (2, 4))
GROUP = 64_001
ADA, BOB = 64_011, 64_012


@pytest.fixture
def runs() -> Iterator[Path]:
    """A folder as an administrator makes it for a group."""
    root = Path(tempfile.mkdtemp(prefix="group-", dir="/tmp"))
    root.chmod(0o755)
    runs = root / "runs"
    runs.mkdir()
    os.chown(runs, 0, GROUP)
    runs.chmod(0o2770)
    yield runs
    shutil.rmtree(root)


def as_person(person: int, work: Callable[[], object]) -> int:
    """Do something as somebody of the group; 0 where it went well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([GROUP])
            os.setgid(person)
            os.setuid(person)
            os.umask(0o077)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def train(runs: Path, *steps: int) -> None:
    """What a training process does in a store, but for the training."""
    apply_umask(None, runs)
    folder = Store(runs).folder(SCIENCE)
    with Claim(folder) as claim:
        assert claim.is_free
        attempt = claim.begin(SCIENCE)
        assert attempt is not None
        attempt.resume_at(0)
        for step in steps:
            attempt.journal.append({"kind": "eval", "step": step, "tokens": 64 * step, "val_loss": 1 / step})
        rows = [{key: row[key] for key in ("step", "tokens", "val_loss")} for row in folder.journal.evaluations()]
        attempt.publish({"digest": digest_of(rows), "evaluations": rows})
        attempt.set_status("done", step=steps[-1])


def test_what_one_has_begun_the_other_goes_on_with(runs: Path) -> None:
    assert as_person(ADA, lambda: train(runs, 2)) == 0
    assert as_person(BOB, lambda: train(runs, 2, 4)) == 0
    assert as_person(ADA, lambda: table.load(runs)) == 0
    (state,) = reconcile([JOB], Store(runs))
    assert state.state == "done"
    made = [path for path in runs.rglob("*") if path.name != "lock"]
    assert {path.stat().st_gid for path in made} == {GROUP}
    assert all(path.stat().st_mode & 0o2070 == 0o2070 for path in made if path.is_dir())
    assert {path.stat().st_uid for path in made} == {ADA, BOB}


def test_what_may_not_be_read_is_named_and_the_rest_is_shown(runs: Path) -> None:
    other = Job(tiny("dense"), (2, 4))
    as_person(ADA, lambda: train(runs, 2, 4))
    closed = Store(runs).folder(SCIENCE).path

    def look() -> None:
        forget_passed_over()
        assert len(reconcile([JOB, other], Store(runs))) == 2
        table.load(runs)
        assert any(name.startswith(str(closed)) for name in passed_over())
        assert pack.pack_store(runs, 0.0) == (0, 0)

    for path in (closed / "result.json", closed / "attempts"):
        path.chmod(0o600)
        assert as_person(BOB, look) == 0
        path.chmod(0o2770 if path.is_dir() else 0o660)
    closed.chmod(0o700)

    def look_at_closed() -> None:
        forget_passed_over()
        assert table.load(runs).empty
        assert str(closed) in passed_over()
        reconcile([JOB], Store(runs))

    assert as_person(BOB, look_at_closed) == 0
