"""What does a store of 100,000 runs cost? Inodes a run, and each command on it as a user types it.

    python -m bench.large_store [runs=100000] [store=/tmp/large] [parts=status,again,dry,table] [out=bench/results]

Nothing is trained: the runs of one sweep are written as training leaves them, by the store's and the journal's own
writers, without waiting for the disk; 99 in 100 are done. Each part is a process of its own: seconds of its
processors, seconds that pass, and the most memory. The store stays where it is, so that parts can be measured again.

    status    python sweep.py status=large
    again     the same; what the first look has found is remembered
    command   the sweep's own words and status=true
    dry       the sweep's own words and dry_run=true
    table     every evaluation as one table, read for the first time
    reread    the same again
    pack      python -m structlin.runs.pack
    unpack    the same with undo=true
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from structlin.errors import UserError, asks_help, door, key_values, suggest, whole_number

NAME = "large"
WIDTHS = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256)
STRUCTURES = ("dense", "btt", "low_rank", "kronecker")
UNFINISHED_SHARE = 0.01
DEFAULTS = {
    "runs": "100000",
    "store": "",
    "parts": "status,again,command,dry,table,reread,pack,table,reread",
    "out": "",
}


def words_of(count: int, root: Path) -> list[str]:
    """The command line of a sweep of about so many runs: structures, widths and seeds."""
    seeds = max(1, count // (len(STRUCTURES) * len(WIDTHS)))
    return [
        f"structure={','.join(STRUCTURES)}",
        "scale=small",
        f"grid.widths={list(WIDTHS)}".replace(" ", ""),
        "grid.tokens=[2e7]",
        f"seed={','.join(map(str, range(seeds)))}",
        f"name={NAME}",
        f"runs={root}",
    ]


def command_of(part: str, root: Path, words: Sequence[str]) -> list[str]:
    """What a part runs. UserError for an unknown one."""
    status = ["sweep.py", f"status={NAME}", f"runs={root}"]
    load = f"from pathlib import Path; from structlin.runs.table import load; print(len(load(Path({str(root)!r}))))"
    pack = ["-m", "structlin.runs.pack", f"runs={root}", "older_days=0"]
    known = {
        "status": status,
        "again": status,
        "command": ["sweep.py", *words, "status=true"],
        "dry": ["sweep.py", *words, "dry_run=true"],
        "table": ["-c", load],
        "reread": ["-c", load],
        "pack": pack,
        "unpack": [*pack, "undo=true"],
    }
    if part not in known:
        raise UserError(f"parts={part} is unknown; {suggest(part, known)}")
    return [sys.executable, *known[part]]


@dataclass(frozen=True)
class Cost:
    """What a process took."""

    cpu_seconds: float
    seconds: float
    peak_megabytes: float
    code: int
    said: str
    """The last line of its output."""


def measure(command: Sequence[str]) -> Cost:
    """Run a command to its end."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines() or [""]
    return Cost(used.ru_utime + used.ru_stime, seconds, used.ru_maxrss / 1024, process.returncode, lines[-1][:100])


def inodes(root: Path) -> int:
    """Files and folders below a folder."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(root))


def make(root: Path, words: Sequence[str]) -> None:
    """Write the sweep's manifest and its runs."""
    from bench.reconcile import write_store
    from structlin.config.doors import sweep_request
    from structlin.launch.carry_out import write_manifest
    from structlin.planning.grid import plan_sweep

    request = sweep_request(words)
    plan = plan_sweep(request)
    done = round(len(plan.jobs) * (1 - UNFINISHED_SHARE))
    began = time.perf_counter()
    write_store(root, plan.jobs, done, len(plan.jobs) - done)
    write_manifest(plan, request, NAME)
    print(f"{len(plan.jobs):,} runs written in {time.perf_counter() - began:.0f} s", flush=True)


def main(arguments: list[str]) -> None:
    """Make the store unless it stands, measure the parts, print and keep them."""
    if asks_help(arguments):
        print(__doc__)
        return
    if arguments[:1] == ["make"]:
        make(Path(arguments[1]), arguments[2:])
        return
    options = key_values(arguments, DEFAULTS)
    count = whole_number("runs", options["runs"], least=40)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options["store"] or temporary) / "runs"
        words = words_of(count, root)
        commands = [(part, command_of(part, root, words)) for part in options["parts"].split(",")]
        if not root.exists():
            # A process of its own: the peak memory of a child is at least that of whoever started it.
            subprocess.run([sys.executable, "-m", "bench.large_store", "make", str(root), *words], check=True)
        lines = [
            f"about {count:,} runs, {inodes(root):,} files and folders, of those of sweeps {inodes(root / 'sweeps'):,}",
            f"{'part':<10}{'CPU s':>8}{'passed s':>10}{'peak MB':>9}{'exit':>6}",
        ]
        print("\n".join(lines), flush=True)
        for part, command in commands:
            cost = measure(command)
            numbers = f"{cost.cpu_seconds:>8.2f}{cost.seconds:>10.2f}{cost.peak_megabytes:>9.0f}{cost.code:>6}"
            lines.append(f"{part:<10}{numbers}   {cost.said}")
            print(lines[-1], flush=True)
        from bench.workers import machine

        description = machine()
        lines.append(f"{inodes(root):,} files and folders at the end")
        lines.append(", ".join(f"{key} {value}" for key, value in description.items()))
        print("\n".join(lines[-2:]))
    if options["out"]:
        folder = Path(options["out"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"large-store-{count}-{description['date']}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    door(main)
