"""What was submitted, and who has which run? A folder per array, written once and never changed while it waits.

runs/sweeps/<sweep>/submissions/<n>/   n taken by an exclusive mkdir
    packs.jsonl       a line per element: the jobs it trains
    setting.json      where and how (element.Setting)
    submission.json   what was asked for, and the runs of every element
    array.json        the array's job id, once sbatch has given it
    ends.json         how its elements have ended, once all have
    failures/<i>.json why runs of element i have failed, written by the element
    log/              submitit's files: the script, a pickle and the output of every element
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from structlin.errors import UserError
from structlin.host.files import read_json, write_json
from structlin.launch.slurm.controller import End
from structlin.launch.slurm.resources import Resources
from structlin.runs.job import Job

Wanted = dict[str, frozenset[int]]
"""Runs of an element: run id -> the steps at which it is evaluated."""


@dataclass(frozen=True)
class Submission:
    """One array on its way; written before sbatch is asked, so that no array goes unrecorded."""

    folder: Path
    speed_key: str
    user: str
    submitted: float
    """Seconds since 1970."""
    resources: Resources
    elements: tuple[Wanted, ...]
    job_id: str | None
    """None where sbatch refused, or the submitting command died."""
    ends: Mapping[int, Sequence[End]] | None
    """By element, once nothing of the array lives."""

    @property
    def sweep(self) -> str:
        """The sweep that submitted it."""
        return self.folder.parent.parent.name

    def name_of(self, element: int) -> str:
        """The element as SLURM names it."""
        assert self.job_id is not None
        return f"{self.job_id}_{element}" if len(self.elements) > 1 else self.job_id

    def log_of(self, element: int) -> Path:
        """The output of an element."""
        return self.folder / "log" / f"{self.name_of(element)}_0_log.out"

    def failures(self, element: int) -> dict[str, str]:
        """Reasons by run id, as far as the element could write them."""
        try:
            found = read_json(self.folder / "failures" / f"{element}.json")
        except UserError:
            return {}
        return found if isinstance(found, dict) else {}

    def close(self, ends: Mapping[int, Sequence[End]]) -> None:
        """Keep how everything has ended, so that SLURM is never asked again."""
        values = {str(index): [asdict(end) for end in several] for index, several in ends.items()}
        # Whoever may not write here, or finds the disk full, asks again next time.
        with contextlib.suppress(OSError):
            write_json(self.folder / "ends.json", values)


def begin(
    sweep: Path, packs: Sequence[Sequence[Job]], resources: Resources, speed_key: str, user: str, now: float
) -> Submission:
    """Take the next folder below ``sweep`` and write what is going to be submitted."""
    folder = _next_folder(sweep / "submissions")
    lines = [json.dumps([job.to_mapping() for job in pack]) + "\n" for pack in packs]
    (folder / "packs.jsonl").write_text("".join(lines))
    elements = tuple({job.run_id: frozenset(job.evaluations) for job in pack} for pack in packs)
    write_json(
        folder / "submission.json",
        {
            "speed_key": speed_key,
            "user": user,
            "submitted": now,
            "resources": asdict(resources),
            "elements": [{run: sorted(steps) for run, steps in wanted.items()} for wanted in elements],
        },
    )
    return Submission(folder, speed_key, user, now, resources, elements, None, None)


def submitted(submission: Submission, job_id: str) -> None:
    """Write down the array's job id."""
    write_json(submission.folder / "array.json", {"job_id": job_id})


def jobs_of(packs: Path, element: int) -> list[Job]:
    """The jobs of an element."""
    with packs.open() as stream:
        for index, line in enumerate(stream):
            if index == element:
                return [Job.from_mapping(values) for values in json.loads(line)]
    raise UserError(f"{packs} has no line {element}")


def submissions(runs: Path) -> list[Submission]:
    """All submissions of a store, of every sweep, the oldest first."""
    found = (read(path.parent) for path in runs.glob("sweeps/*/submissions/*/submission.json"))
    return sorted((one for one in found if one is not None), key=lambda one: one.submitted)


def read(folder: Path) -> Submission | None:
    """A submission of its folder; None for one that is broken or was never submitted."""
    try:
        values = read_json(folder / "submission.json")
        job_id = str(read_json(folder / "array.json")["job_id"])
        return Submission(
            folder,
            values["speed_key"],
            values["user"],
            float(values["submitted"]),
            Resources(**values["resources"]),
            tuple({run: frozenset(steps) for run, steps in wanted.items()} for wanted in values["elements"]),
            job_id,
            _ends(folder / "ends.json"),
        )
    except (UserError, KeyError, TypeError, ValueError):
        return None


def _ends(path: Path) -> dict[int, list[End]] | None:
    if not path.exists():
        return None
    values: dict[str, list[dict[str, Any]]] = read_json(path)
    return {int(index): [End(**end) for end in several] for index, several in values.items()}


def _next_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    for number in _numbers(parent):
        folder = parent / f"{number:04d}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers have no end")


def _numbers(parent: Path) -> Iterator[int]:
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdigit()]
    number = max(taken, default=0)
    while True:
        number += 1
        yield number
