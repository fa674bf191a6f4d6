"""How long does a large store take to be reconciled, shown and read, and in how much memory?

    python -m bench.reconcile [jobs=20000] [done=10000] [repeats=3] [store=FOLDER] [out=bench/results]

Nothing is trained: a store is written as training leaves it (50 evaluations a run, and as many training rows), without
waiting for the disk. Each part is measured in a process of its own: seconds of the first call and the median of the
others in CPU time, so that other work on the machine does not count (on an idle machine, with the store in the page
cache, it is the time that passes: that of the fastest call is shown too), and the most memory the process ever had.

    reconcile   what is done, running or missing of all jobs, half of which are done
    status      the same, and how far each unfinished run is (structlin.launch.reconcile, journals)
    table       every evaluation of the store as one table
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from structlin.config.model import Gpt2Config
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.errors import asks_help, door, key_values, whole_number
from structlin.host import files
from structlin.launch.reconcile import reconcile
from structlin.runs import checkpoints
from structlin.runs.attempt import Attempt
from structlin.runs.job import Job
from structlin.runs.store import RunFolder, Store, digest_of
from structlin.structure import lookup

EVALUATIONS = tuple(range(100, 5_100, 100))
WIDTHS = (256, 320, 384, 448, 512, 576, 640, 704, 768, 1024)
STRUCTURES = ("dense", "btt", "low_rank", "kronecker")
UNFINISHED = 100
"""Runs that were begun and not ended."""
TARGETS = {"reconcile": "3 s, 500 MB", "status": "3 s, 500 MB", "table": "10 s at first, 2 s again, 500 MB"}


def jobs_of(count: int) -> list[Job]:
    """Jobs over widths, structures and seeds, as a sweep has them."""
    shapes = [
        Science(structure=StructureConfig(str(lookup(name))), model=Gpt2Config(d_model=width))
        for name in STRUCTURES
        for width in WIDTHS
    ]
    return [Job(replace(shapes[index % len(shapes)], seed=index // len(shapes)), EVALUATIONS) for index in range(count)]


def write_store(root: Path, jobs: Sequence[Job], done: int, unfinished: int = UNFINISHED) -> None:
    """Leave the first jobs as done and some of the others as interrupted."""
    with unsynced():
        for index, job in enumerate(jobs[: done + unfinished]):
            evaluations = job.evaluations
            write_run(RunFolder(root / job.run_id), job, evaluations if index < done else evaluations[:20])


def write_run(folder: RunFolder, job: Job, evaluations: Sequence[int]) -> None:
    """The files of a run that is done (or was interrupted after fewer evaluations), as one attempt leaves them.

    By the writers of training itself; only the checkpoint is a stand-in of a few bytes.
    """
    attempt = Attempt(folder.attempts_path / "1")
    attempt.path.mkdir(parents=True)
    folder.write_config(job.science)
    attempt.begin([])
    attempt.set_provenance(PROVENANCE)
    attempt.resume_at(0)
    batch, target = job.science.optim.batch_tokens, job.target_step
    attempt.set_status("running", step=0, target_step=target)
    rows = [{"step": step, "tokens": step * batch, "val_loss": 3 + 1 / step} for step in evaluations]
    for row in rows:
        attempt.journal.append({"kind": "train", "step": row["step"], "tokens": row["tokens"], **TRAINED})
        attempt.journal.append({"kind": "eval", **row, "seconds": 0.5, "time": 1.8e9})
    checkpoints.path_of(attempt.checkpoints, evaluations[-1]).write_bytes(b"stand-in")
    folder.lock.touch()
    if evaluations[-1] == target:
        attempt.publish({"run_id": folder.run_id, "digest": digest_of(rows), "evaluations": rows})
        attempt.set_status("done", step=target, target_step=target)


PROVENANCE = {"data_manifest": "0" * 64, "machine": "none", "backend": "cpp", "device": "cpu"}
TRAINED = {
    "loss": 3.1,
    "grad_norm": 0.5,
    "lr": 0.01,
    "tokens_per_second": 1e5,
    "flops_per_second": 1e12,
    "time": 1.8e9,
}


@contextmanager
def unsynced() -> Iterator[None]:
    """Write without waiting for the disk: a store that a crash may take is good enough here."""
    kept = files._to_disk
    files._to_disk = lambda path: None
    try:
        yield
    finally:
        files._to_disk = kept


# ---- the parts -------------------------------------------------------------------------------------------------------


def part(name: str, root: Path, count: int) -> Callable[[], object]:
    """One call of a part; what it needs besides the store is made before."""
    if name == "table":
        from structlin.runs.table import load

        return lambda: load(root)
    jobs = jobs_of(count)
    if name == "reconcile":
        return lambda: reconcile(jobs, Store(root))
    return lambda: show(jobs, root)


def show(jobs: Sequence[Job], root: Path) -> list[str]:
    """A line for every job that was begun and is not done."""
    states = [state for state in reconcile(jobs, Store(root)) if not state.is_final and state.state != "missing"]
    return [f"{state.folder.run_id} {state.folder.journal.rows('train')[-1]['loss']}" for state in states]


def measure(name: str, root: Path, count: int, repeats: int) -> dict[str, float]:
    """CPU seconds of the first call, the median of the others, the clock's least, and peak memory of this process."""
    call = part(name, root, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, passed = [], []
    for _ in range(repeats + 1):
        start, begin = time.process_time(), time.perf_counter()
        call()
        seconds.append(time.process_time() - start)
        passed.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "first_seconds": seconds[0],
        "seconds": statistics.median(seconds[1:]),
        "least_seconds_passed": min(passed),
        "peak_megabytes": peak / 1024,
        "megabytes_before": before / 1024,
    }


SIZES = {"jobs": "20000", "done": "10000", "repeats": "3"}


def main(arguments: list[str]) -> None:
    """Write the store, measure each part in a process of its own, print and keep the table."""
    if asks_help(arguments):
        print(__doc__)
        return
    if arguments[:1] == ["part"]:
        print(json.dumps(measure(arguments[1], Path(arguments[2]), int(arguments[3]), int(arguments[4]))))
        return
    options = key_values(arguments, {**SIZES, "store": "", "out": ""})
    count, done, repeats = (whole_number(name, options[name], least=1) for name in SIZES)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options["store"] or temporary) / "runs"
        if not root.exists():
            write_store(root, jobs_of(count), done)
        report(root, count, done, repeats, options["out"])


def report(root: Path, count: int, done: int, repeats: int, out: str) -> None:
    """Measure all parts of a store and print them; as text and JSON where ``out`` is given."""
    from bench.workers import machine

    description = machine()
    lines = [
        ", ".join(f"{key} {value}" for key, value in description.items()),
        f"{count:,} jobs, {done:,} of them done, {UNFINISHED} interrupted; {len(EVALUATIONS)} evaluations a run",
        f"{'part':<12}{'first s':>10}{'median s':>10}{'passed s':>10}{'peak MB':>10}   target",
    ]
    print("\n".join(lines), flush=True)
    rows = []
    for name, target in TARGETS.items():
        command = [sys.executable, "-m", "bench.reconcile", "part", name, str(root), str(count), str(repeats)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append({"part": name, **found})
        columns = (found["first_seconds"], found["seconds"], found["least_seconds_passed"])
        shown = "".join(f"{value:>10.2f}" for value in columns)
        lines.append(f"{name:<12}{shown}{found['peak_megabytes']:>10.0f}   {target}")
        print(lines[-1], flush=True)
    if out:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"reconcile-{description['date']}.txt").write_text("\n".join(lines) + "\n")
        kept = {**description, "jobs": count, "done": done, "rows": rows}
        (folder / f"reconcile-{description['date']}.json").write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    door(main)
