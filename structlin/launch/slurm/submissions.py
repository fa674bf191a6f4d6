"""What was submitted, and who has which run? A folder per array, written once and never changed while it waits.

runs/sweeps/<sweep>/submissions/<n>/   n taken by an exclusive mkdir
    packs.jsonl       a line per element: the jobs it trains
    setting.json      where and how (element.Setting)
    submission.json   what was asked for, the runs of every element, and what its array is known by: its cluster, its
                      name, a token in its comment
    ids-now.json      in one of an older schema: its runs by the ids that they have today
    array.json        the array's job id, once sbatch has given it or SLURM was seen to have it
    ends.json         how its elements have ended, once all have
    failures/<i>.json why runs of element i have failed, written by the element
    log/              submitit's files: the script, a pickle and the output of every element
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from structlin.config.identity import id_of_stored
from structlin.config.science import SCHEMA
from structlin.errors import UserError
from structlin.host.files import Missing, read_json, write_json
from structlin.host.passed_over import pass_over
from structlin.launch.slurm.controller import End, Label
from structlin.launch.slurm.resources import Resources
from structlin.runs.job import Job

_KEPT = ("state", "exit_code", "max_rss_bytes", "node")
Wanted = dict[str, frozenset[int]]
"""Runs of an element: run id -> the steps at which it is evaluated."""
CLOCKS_DIFFER_SECONDS = 7200
"""A job submitted so long before our record, by SLURM's clock (and the hour that summer time repeats), may be ours."""


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
    """None where the answer of sbatch was lost: SLURM may have the array or not."""
    ends: Mapping[int, Sequence[End]] | None
    """By element, once nothing of the array lives."""
    token: str = ""
    """In the comment of the array's jobs; empty in older records."""
    cluster: str = ""
    """Empty in older records: the cluster that is asked."""
    job_name: str = ""
    """The job's name in SLURM, where it is another than the sweep's."""
    former: Mapping[str, str] = field(default_factory=dict)
    """Of one of an older schema: the id of today of each run -> the id that it was submitted under. ``elements`` has
    the run under both."""

    def owns(self, label: Label) -> bool:
        """Whether a job of our array's number is our array: numbers begin anew with a rebuilt cluster, and wrap."""
        if label.token:
            return label.token == self.token
        # The site keeps no comments, or the record is older than tokens.
        if label.submitted is not None and label.submitted < self.submitted - CLOCKS_DIFFER_SECONDS:
            return False
        return label.job_name in ("", self.job_name or self.sweep)

    @property
    def sweep(self) -> str:
        """The sweep that submitted it."""
        return self.folder.parent.parent.name

    def name_of(self, element: int) -> str:
        """The element as SLURM names it."""
        if self.job_id is None:
            return f"array of {self.folder}"
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
        if not isinstance(found, dict):
            return {}
        reasons = {str(run): str(reason) for run, reason in found.items()}
        return reasons | {run: reasons[old] for run, old in self.former.items() if old in reasons}

    def said_at(self, element: int) -> float:
        """When the element wrote down its failures; when it was submitted, where it did not."""
        try:
            return (self.folder / "failures" / f"{element}.json").stat().st_mtime
        except OSError:
            return self.submitted

    def close(self, ends: Mapping[int, Sequence[End]]) -> None:
        """Keep how everything has ended, so that SLURM is never asked again."""
        values = {
            str(index): [{name: getattr(end, name) for name in _KEPT} for end in several]
            for index, several in ends.items()
        }
        # Whoever may not write here, or finds the disk full, asks again next time.
        with contextlib.suppress(OSError):
            write_json(self.folder / "ends.json", values)


def begin(
    sweep: Path,
    packs: Sequence[Sequence[Job]],
    resources: Resources,
    speed_key: str,
    user: str,
    now: float,
    *,
    token: str = "",
    cluster: str = "",
    job_name: str = "",
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
            "token": token,
            "cluster": cluster,
            "job_name": job_name,
            "schema": SCHEMA,
            "resources": asdict(resources),
            "elements": [{run: sorted(steps) for run, steps in wanted.items()} for wanted in elements],
        },
    )
    return Submission(folder, speed_key, user, now, resources, elements, None, None, token, cluster, job_name)


def submitted(submission: Submission, job_id: str, cluster: str = "") -> Submission:
    """Write down the array's job id, and its cluster where sbatch chose one."""
    known = replace(submission, job_id=job_id, cluster=cluster or submission.cluster)
    write_json(submission.folder / "array.json", {"job_id": job_id, "cluster": known.cluster})
    return known


def jobs_of(packs: Path, element: int) -> list[Job]:
    """The jobs of an element."""
    with packs.open() as stream:
        for index, line in enumerate(stream):
            if index == element:
                return [Job.from_mapping(values) for values in json.loads(line)]
    raise UserError(f"{packs} has no line {element}")


def submissions(runs: Path) -> list[Submission]:
    """All submissions of a store, of every sweep, the oldest first; what cannot be read is named and passed over."""
    found = []
    for sweep in _listed(runs / "sweeps"):
        for folder in _listed(sweep / "submissions"):
            if folder.name.isdigit() and (one := read(folder)) is not None:
                found.append(one)
    return sorted(found, key=lambda one: one.submitted)


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # What was submitted there is not known: somebody has to hear of it.
        pass_over(folder, f"cannot be listed: {error.strerror}")
        return []


def read(folder: Path) -> Submission | None:
    """A submission of its folder; None for one that is broken (which is named) or was never submitted."""
    try:
        values = read_json(folder / "submission.json")
        token = str(values.get("token", ""))
        try:
            array = read_json(folder / "array.json")
        except Missing:
            if not token:
                return None  # of a version that took such a folder away where sbatch refused
            array = {"job_id": None}
        former = {} if values.get("schema") == SCHEMA else _former(folder)
        return Submission(
            folder,
            values["speed_key"],
            values["user"],
            float(values["submitted"]),
            Resources(**values["resources"]),
            tuple(_wanted(wanted, former) for wanted in values["elements"]),
            None if array["job_id"] is None else str(array["job_id"]),
            _ends(folder / "ends.json"),
            token,
            str(array.get("cluster") or values.get("cluster", "")),
            str(values.get("job_name", "")),
            former,
        )
    except Missing:
        return None  # begun by a command that died, or is at it
    except UserError as error:
        pass_over(folder, error)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass_over(folder, "it holds no submission")
    return None


def _wanted(stored: Mapping[str, Sequence[int]], former: Mapping[str, str]) -> Wanted:
    wanted = {run: frozenset(steps) for run, steps in stored.items()}
    return wanted | {run: wanted[old] for run, old in former.items() if old in wanted}


def _former(folder: Path) -> dict[str, str]:
    """Id of today -> id as submitted, of the runs whose id has changed since; kept beside them once it is known.

    Ids change with the schema of a config. An array that still waits or runs under the older ones has the run all the
    same: its folder will be, or is, found by ``runs/old_ids.py``.
    """
    path = folder / "ids-now.json"
    try:
        kept = read_json(path)
        if kept["schema"] == SCHEMA:
            return {str(run): str(old) for run, old in kept["former"].items()}
    except (UserError, KeyError, TypeError, AttributeError):
        pass
    former = {}
    try:
        with (folder / "packs.jsonl").open() as stream:
            for values in (values for line in stream for values in json.loads(line)):
                old, now = id_of_stored(values["science"]), Job.from_mapping(values).run_id
                if old != now:
                    former[now] = old
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        # Its runs are known by the ids of then alone, and would be submitted again: somebody has to hear of it.
        pass_over(folder / "packs.jsonl", error)
        return former
    with contextlib.suppress(OSError):
        write_json(path, {"schema": SCHEMA, "former": former})
    return former


def _ends(path: Path) -> dict[int, list[End]] | None:
    """How everything has ended; None where it has not, or the file cannot be read: SLURM is then asked again."""
    try:
        values = read_json(path)
        return {int(index): [_end(end) for end in several] for index, several in values.items()}
    except Missing:
        return None
    except UserError as error:
        pass_over(path, error)
    except (KeyError, TypeError, ValueError, AttributeError):
        pass_over(path, "it holds no ends")
    return None


def _end(values: Mapping[str, Any]) -> End:
    state, exit_code, most = values["state"], values["exit_code"], values["max_rss_bytes"]
    return End(str(state), str(exit_code), int(most), str(values.get("node", "")))


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
