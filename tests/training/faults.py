"""What may a machine do to a run? Random faults on tiny runs, each of which has to end in the undisturbed numbers.

    python -m tests.training.faults [seed=0] [count=200]

A case trains a run, meets one fault on the way or after its end, and types the same command again until it is done. It
ends "equal" (the bytes of result.json are those of an undisturbed run), or "refused": with a message that names what is
wrong. "different" is what must never be: done, with other numbers.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

from structlin.data import DataRecipe, prepare
from structlin.errors import UserError, door, key_values, whole_number
from structlin.host import files
from structlin.host.passed_over import forget_passed_over
from structlin.runs import attempt as attempts
from structlin.runs import table
from structlin.runs.journal import Journal
from structlin.runs.store import RunFolder, Store
from tests.tiny import PLACEMENT, tiny, train

SCIENCE = tiny(d_model=8)
EVALUATIONS = (5, 10, 15, 20)
EVERY_STEP = replace(PLACEMENT, checkpoint_seconds=1e-9, log_steps=2)
ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTCONN)
MOST_COMMANDS = 4
KINDS = ("kill", "kill in a write", "stop", "corrupt", "corrupt when done", "fill the disk", "refuse a write")


class Case:
    """One run and one fault."""

    def __init__(self, number: int, seed: int, root: Path, data_root: Path) -> None:
        self.random = random.Random(f"{seed} {number}")
        self.kind = self.random.choice(KINDS)
        self.runs, self.data_root = root / f"case-{number}", data_root
        self.folder = Store(self.runs).folder(SCIENCE)
        self.what = self.kind

    def command(self, stop_at: int | None = None) -> str:
        """The same command once more; how it ended, or the words of its refusal."""
        steps = iter(range(10_000))
        stops = (lambda: next(steps) == stop_at) if stop_at is not None else (lambda: False)
        try:
            return train(SCIENCE, EVALUATIONS, self.runs, self.data_root, placement=EVERY_STEP, should_stop=stops)[0]
        except UserError as error:
            return f"refused: {error}"

    def meet(self) -> None:
        """Train until the fault, and past it as far as that lets."""
        step = self.random.randrange(1, 20)
        if self.kind == "kill":
            self.in_child(lambda: self._end_at(step, signal.SIGKILL))
        elif self.kind == "stop":
            self._stopped(step)
        elif self.kind in ("kill in a write", "fill the disk", "refuse a write"):
            self._writes(self.random.randrange(1, 90))
        elif self.kind == "corrupt":
            self.command(stop_at=step)
            self._corrupt()
        else:
            self.command()
            self._corrupt()

    def in_child(self, work: Callable[[], object]) -> int:
        """Do something in a process of its own; how it ended."""
        pid = os.fork()
        if pid == 0:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                try:
                    work()
                finally:
                    os._exit(0)
        return os.waitpid(pid, 0)[1]

    def _end_at(self, step: int, number: int) -> None:
        steps = iter(range(10_000))

        def poll() -> bool:
            if next(steps) == step:
                os.kill(os.getpid(), number)
            return False

        train(SCIENCE, EVALUATIONS, self.runs, self.data_root, placement=EVERY_STEP, should_stop=poll)

    def _stopped(self, step: int) -> None:
        """A process that stands still holds its run; once it goes on it ends it."""
        pid = os.fork()
        if pid == 0:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                try:
                    self._end_at(step, signal.SIGSTOP)
                finally:
                    os._exit(0)
        os.waitpid(pid, os.WUNTRACED)
        assert self.command() == "busy"
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)

    def _writes(self, nth: int) -> None:
        number = errno.ENOSPC if self.kind == "fill the disk" else self.random.choice(ERRNOS)
        self.what = f"{self.kind} {nth}" + ("" if "kill" in self.kind else f" {errno.errorcode[number]}")
        forever = self.kind == "fill the disk"

        def work() -> None:
            with counted_writes(nth, None if "kill" in self.kind else number, forever=forever):
                self.command()

        self.in_child(work)

    def _corrupt(self) -> None:
        places = sorted(path for path in self.folder.path.rglob("*") if path.is_file() and path.stat().st_size)
        path = self.random.choice(places)
        content = bytearray(path.read_bytes())
        where = self.random.randrange(len(content))
        content[where] ^= self.random.randrange(1, 256)
        path.write_bytes(content)
        self.what = f"{self.kind}: byte {where} of {path.relative_to(self.folder.path)}"

    def outcome(self, reference: bytes, losses: dict[int, float]) -> str:
        """Type the command until the run is done, and compare."""
        last = ""
        for _ in range(MOST_COMMANDS):
            last = self.command()
            if last == "done":
                break
        try:
            table_losses = _losses(table.load(self.runs))
        except UserError as error:
            return f"refused: {error}"
        if any(losses.get(step) != loss for step, loss in table_losses.items()):
            return "different: its table has other losses"
        if last != "done":
            reason = self.folder.status().get("reason", "")
            return last if last.startswith("refused") else f"refused: {reason}" if reason else f"unnamed: {last}"
        return "equal" if _result(self.folder) == reference else "different: done with another result"


@contextmanager
def counted_writes(nth: int, number: int | None, *, forever: bool) -> Iterator[None]:
    """Let the n-th write of this process (and all later ones) fail by an errno, or be its last act."""
    count = 0

    def strike(*anything: object) -> None:
        nonlocal count
        count += 1
        if count == nth or (forever and count > nth):
            if number is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(number, os.strerror(number or 0), "a file")

    def struck(whole: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            strike()
            return whole(*arguments, **named)

        return call

    kept = (Journal.append, files._to_disk, Path.replace, os.link, attempts.Attempt.begin)
    Journal.append = struck(kept[0])  # type: ignore[method-assign]
    files._to_disk = struck(kept[1])
    Path.replace = struck(kept[2])  # type: ignore[method-assign]
    os.link = struck(kept[3])
    try:
        yield
    finally:
        Journal.append, files._to_disk, Path.replace, os.link = kept[:4]  # type: ignore[method-assign]


def _result(folder: RunFolder) -> bytes:
    return (folder.path / "result.json").read_bytes()


def _losses(found) -> dict[int, float]:
    return dict(zip(found["step"].tolist(), found["val_loss"].tolist(), strict=True)) if len(found) else {}


def run(seed: int, count: int, root: Path, data_root: Path) -> list[tuple[str, str]]:
    """What each case met, and how it ended."""
    _, folder = train(SCIENCE, EVALUATIONS, root / "reference", data_root, placement=EVERY_STEP)
    reference, losses = _result(folder), _losses(table.load(root / "reference"))
    found = []
    for number in range(count):
        case = Case(number, seed, root, data_root)
        forget_passed_over()
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            case.meet()
            found.append((case.what, case.outcome(reference, losses)))
        shutil.rmtree(case.runs, ignore_errors=True)
    return found


def main(arguments: list[str]) -> int:
    """Run the matrix and print what came of it."""
    values = key_values(arguments, {"seed": "0", "count": "200"})
    seed, count = whole_number("seed", values["seed"]), whole_number("count", values["count"], 1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare(DataRecipe("sotu"), root / "data")
        found = run(seed, count, root, root / "data")
    for what, outcome in found:
        if outcome != "equal":
            print(f"{outcome}  ({what})")
    kinds = [next(kind for kind in KINDS[::-1] if what.startswith(kind)) for what, _ in found]
    by_kind = Counter((kind, how.partition(":")[0]) for kind, (_, how) in zip(kinds, found, strict=True))
    for (kind, how), number in sorted(by_kind.items()):
        print(f"{number:4}  {kind:<20} {how}")
    print(f"seed {seed}: {count} faults in {time.monotonic() - began:.0f} s")
    return 1 if any(not how.startswith(("equal", "refused")) for _, how in found) else 0


if __name__ == "__main__":
    door(main)
