"""How does a store get by with few files? One archive a finished run: a dozen inodes become one.

    python -m structlin.runs.pack runs=runs [older_days=1] [undo=true]

Packs every run that is done or diverged, that nobody holds, and that has not changed for so many days. Packed runs are
read as if they were not: by the table, the status, sweeps and `make sync`. Who trains one further unpacks it first;
what reads W&B's offline files of a store by itself (source=wandb_offline) wants them unpacked (undo=true).
"""

from __future__ import annotations

import time
from pathlib import Path

from structlin.errors import UserError, asks_help, door, key_values
from structlin.host.locks import Hold, Lock
from structlin.host.passed_over import pass_over
from structlin.runs import archive
from structlin.runs.store import RunFolder, Store

FINAL = ("done", "diverged")


def pack_store(runs: Path, older_days: float) -> tuple[int, int]:
    """Pack what is finished; how many runs, and how many files and folders less there are now."""
    number = fewer = 0
    for folder in Store(runs).folders():
        if not folder.path.exists() or not _is_finished(folder.at_once(), older_days):
            continue
        lock = Lock(folder.lock)
        if lock.acquire() is Hold.HELD:
            continue
        try:
            inodes = 1 + sum(1 for _ in folder.path.rglob("*"))
            archive.pack(folder.path)
        except (OSError, UserError) as error:
            pass_over(folder.path, error)
            continue
        finally:
            lock.release()
        number, fewer = number + 1, fewer + inodes - 1
    return number, fewer


def unpack_store(runs: Path) -> int:
    """Unpack every run; how many."""
    packed = [folder for folder in Store(runs).folders() if not folder.path.exists()]
    for folder in packed:
        archive.unpack(folder.path)
    return len(packed)


def _is_finished(folder: RunFolder, older_days: float) -> bool:
    attempts = folder.attempts()
    status = attempts[-1].status() if attempts else None
    if status is None or status["state"] not in FINAL or folder.result() is None:
        return False
    return time.time() - (folder.path / "result.json").stat().st_mtime > older_days * 86_400


def main(arguments: list[str]) -> int:
    """Pack or unpack a store and say what came of it."""
    if asks_help(arguments):
        print(__doc__)
        return 0
    values = key_values(arguments, {"runs": "runs", "older_days": "1", "undo": "false"})
    runs = Path(values["runs"]).expanduser()
    if not runs.is_dir():
        raise UserError(f"no run store at {runs}; name it: runs=...")
    if values["undo"] == "true":
        print(f"{unpack_store(runs)} runs unpacked in {runs}")
        return 0
    try:
        days = float(values["older_days"])
    except ValueError:
        raise UserError(f"older_days={values['older_days']} should be a number of days, such as 1 or 0.5") from None
    number, fewer = pack_store(runs, days)
    print(f"{number} finished runs packed in {runs}: {fewer:,} files and folders fewer")
    return 0


if __name__ == "__main__":
    door(main)
