"""One at a time, with flock and without; the file that stands for a lock goes with its process."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from structlin.data import DataRecipe, is_prepared, prepare
from structlin.host import locks
from structlin.host.locks import exclusive
from structlin.launch.slurm.submit import submission_lock

REFUSALS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


def quiet(line: str) -> None:
    """Tell nobody."""


@pytest.fixture(params=[*REFUSALS, 0], ids=lambda number: errno.errorcode.get(number, "flock"))
def without_flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    def refuse(stream: object, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_said", set())
    return request.param


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


def test_only_one_is_inside(without_flock: int, links: None, tmp_path: Path) -> None:
    inside, most, count = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with exclusive(tmp_path / "lock", quiet, poll=0.01):
                with count:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.01)
                with count:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_it_is_said_once_that_there_are_no_locks(without_flock: int, tmp_path: Path, capsys) -> None:
    for _ in range(3):
        with exclusive(tmp_path / "lock", quiet):
            pass
    assert capsys.readouterr().err.count("has no locks (flock)") == (1 if without_flock else 0)


def test_data_are_prepared_and_sweeps_submitted_without_flock(without_flock: int, tmp_path: Path, capsys) -> None:
    recipe = DataRecipe("digits")
    prepare(recipe, tmp_path / "data")
    assert is_prepared(recipe, tmp_path / "data")
    with submission_lock(tmp_path / "runs"):
        assert (tmp_path / "runs" / "sweeps").is_dir()


def held_by(path: Path, **changes: object) -> Path:
    """The file of another process."""
    held = path.with_name("lock.held")
    from structlin.host.processes import birth, machine

    own = {"host": os.uname().nodename, "machine": machine(), "pid": os.getpid(), "birth": birth(os.getpid())}
    held.write_text(json.dumps({**own, **changes}))
    return held


@pytest.mark.parametrize("without_flock", [errno.ENOLCK], indirect=True)
@pytest.mark.parametrize(
    ("changes", "silent", "is_dead"),
    [
        ({"pid": 2**22 + 1}, 0, True),
        ({"birth": 1}, 0, True),
        ({"host": "elsewhere"}, 0, False),
        ({"host": "elsewhere"}, 10_000, True),
        ({}, 10_000, False),  # we ourselves, asleep
    ],
)
def test_the_file_of_a_dead_process_is_broken(
    changes: dict, silent: float, is_dead: bool, without_flock: int, tmp_path: Path
) -> None:
    held = held_by(tmp_path / "lock", **changes)
    os.utime(held, (time.time() - silent,) * 2)
    told: list[str] = []
    entered = threading.Event()

    def work() -> None:
        with exclusive(tmp_path / "lock", told.append, poll=0.01):
            entered.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert entered.wait(1.0 if is_dead else 0.3) is is_dead
    assert told == ["waiting for it"]
    held.unlink(missing_ok=True)
    thread.join(5)


@pytest.mark.parametrize("without_flock", [errno.ENOLCK], indirect=True)
def test_a_killed_process_leaves_no_lock_behind(without_flock: int, tmp_path: Path) -> None:
    program = (
        "import fcntl, os, sys, time\n"
        "def refuse(*anything): raise OSError(37, 'No locks available')\n"
        "fcntl.flock = refuse\n"
        "from pathlib import Path\n"
        "from structlin.host.locks import exclusive\n"
        f"with exclusive(Path({str(tmp_path / 'lock')!r}), print):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
    with exclusive(tmp_path / "lock", quiet, poll=0.01):
        pass


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    enter: Callable[[], object] = exclusive(tmp_path / "none" / "lock", quiet).__enter__
    with pytest.raises(FileNotFoundError):
        enter()
