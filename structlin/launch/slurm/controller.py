"""What does SLURM say? One call for all jobs: squeue for what lives, sacct for how the rest has ended.

Thousands of jobs asked one by one trip the controller's limits. An element is named as SLURM names it: ``17_3`` is
task 3 of array 17, ``17`` a job without an array.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from structlin.errors import UserError, one_line

CALL_SECONDS = 60
WAIT_FOR_CONTROLLER_SECONDS = 60
MOST_IDS = 500
"""Job ids in one call, so that the command line stays short."""

Run = Callable[[Sequence[str]], str]


class ControllerError(UserError):
    """SLURM does not answer, or refuses."""


@dataclass(frozen=True)
class Limits:
    """What one cluster takes."""

    array_size: int
    """Tasks of one array at most."""
    max_jobs: int
    """Jobs and array tasks of all users that the controller holds at most."""


@dataclass(frozen=True)
class Live:
    """An element that waits or runs."""

    state: str
    """PENDING, RUNNING, ..."""
    reason: str
    """Why it waits, in SLURM's words."""

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun, or waits to begin again."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING")


@dataclass(frozen=True)
class End:
    """How one start of an element has ended, as sacct tells it."""

    state: str
    """COMPLETED, FAILED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED, CANCELLED, REQUEUED, ..."""
    exit_code: str
    """code:signal"""
    max_rss_bytes: int
    """The largest resident memory of its steps; 0 where none was recorded."""


class Controller:
    """The SLURM commands of this machine."""

    def __init__(self, run: Run | None = None) -> None:
        self._run = run or _run

    def limits(self) -> Limits:
        """Read from ``scontrol show config``."""
        text = self._run(["scontrol", "show", "config"])
        found = {
            name: re.search(rf"^{name}\s*=\s*(\d+)", text, re.MULTILINE) for name in ("MaxArraySize", "MaxJobCount")
        }
        size, jobs = found["MaxArraySize"], found["MaxJobCount"]
        return Limits(int(size[1]) if size else 1, int(jobs[1]) if jobs else 10_000)

    def room(self, limits: Limits) -> int:
        """Array tasks that the controller still has room for; beyond, sbatch would wait for minutes and give up."""
        held = self._run(["squeue", "--noheader", "--array", "--states=all", "--format=%i"]).split()
        return max(0, limits.max_jobs - len(held) - 1)

    def live(self, users: Iterable[str]) -> dict[str, Live]:
        """Elements of these users that wait or run."""
        text = self._run(["squeue", "--noheader", f"--user={','.join(sorted(set(users)))}", "--format=%i|%T|%r"])
        found = {}
        for line in text.splitlines():
            name, state, reason = line.strip().split("|", 2)
            for element in elements(name):
                found[element] = Live(state, reason)
        return found

    def ends(self, job_ids: Sequence[str]) -> dict[str, list[End]]:
        """Every end of every element of these jobs, the oldest first; {} where sacct cannot tell."""
        found: dict[str, list[End]] = {}
        for first in range(0, len(job_ids), MOST_IDS):
            wanted = ",".join(job_ids[first : first + MOST_IDS])
            fields = "JobID,State,ExitCode,MaxRSS"
            try:
                text = self._run(["sacct", "-D", "--noheader", "--parsable2", f"--jobs={wanted}", f"--format={fields}"])
            except ControllerError:
                return {}
            for element, end in _parse_sacct(text.splitlines()):
                found.setdefault(element, []).append(end)
        return found

    def cancel(self, names: Sequence[str]) -> None:
        """Cancel jobs, arrays or elements."""
        for first in range(0, len(names), MOST_IDS):
            self._run(["scancel", *names[first : first + MOST_IDS]])

    def state_of(self, name: str) -> str:
        """The state of one element that was running a moment ago."""
        text = self._run(["squeue", "--noheader", "--states=all", f"--jobs={name}", "--format=%T"]).split()
        return text[0] if text else "UNKNOWN"

    def requeue(self, name: str, patience: float = WAIT_FOR_CONTROLLER_SECONDS) -> None:
        """Put our own element back into the queue, waiting for a controller that is being restarted.

        ControllerError where it was cancelled meanwhile, or nobody answers.
        """
        until = time.monotonic() + patience
        while True:
            try:
                state = self.state_of(name)
                if state not in ("RUNNING", "PREEMPTED", "TIMEOUT"):
                    raise _Refused(f"job {name} is {state} and is not requeued")
                self._run(["scontrol", "requeue", name])
                return
            except ControllerError as error:
                if isinstance(error, _Refused) or time.monotonic() > until:
                    raise
                time.sleep(2)


def own_name() -> str:
    """The element we are in. The bare job id will not do: that of an array's last task is the whole array's."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


class _Refused(ControllerError):
    """Asking again would not help."""


def elements(name: str) -> Iterator[str]:
    """The elements of a name of squeue: ``17``, ``17_3``, or what still waits of an array, ``17_[0,3-5%2]``."""
    waiting = re.fullmatch(r"(\d+)_\[([\d,:\-]+)(?:%\d+)?\]", name)
    if waiting is None:
        yield name
        return
    for part in waiting[2].split(","):
        bounds, _, stride = part.partition(":")
        low, _, high = bounds.partition("-")
        for task in range(int(low), int(high or low) + 1, int(stride or 1)):
            yield f"{waiting[1]}_{task}"


def _parse_sacct(lines: Sequence[str]) -> Iterator[tuple[str, End]]:
    """Each line of a job, with the largest memory of the lines of its steps, which follow it."""
    jobs: list[tuple[str, list[str]]] = []
    rss: list[int] = []
    for line in lines:
        fields = line.split("|")
        name, _, step = fields[0].partition(".")
        if not step:
            jobs.append((name, fields))
            rss.append(0)
        elif jobs:
            rss[-1] = max(rss[-1], _bytes(fields[3]))
    for (name, fields), most in zip(jobs, rss, strict=True):
        # "CANCELLED by 0"
        end = End(fields[1].split()[0], fields[2], most)
        for element in elements(name):
            yield element, end


def _bytes(text: str) -> int:
    number = re.match(r"([\d.]+)([KMGT]?)", text)
    if number is None or not number[1]:
        return 0
    return int(float(number[1]) * 1024 ** " KMGT".index(number[2] or " "))


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a SLURM command: array ranges in full, and no wish of an allocation around us."""
    inherited = os.environ if base is None else base
    kept = {key: value for key, value in inherited.items() if not key.startswith(("SLURM_", "SBATCH_", "SQUEUE_"))}
    if "SLURM_CONF" in inherited:
        kept["SLURM_CONF"] = inherited["SLURM_CONF"]
    return {**kept, "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CALL_SECONDS, env=environment(), check=False
        )
    except FileNotFoundError:
        raise ControllerError(f"{command[0]} is not on this machine; use launch=local, or a login node") from None
    except subprocess.TimeoutExpired:
        raise ControllerError(f"{command[0]} has not answered for {CALL_SECONDS} s; try again later") from None
    if done.returncode != 0:
        raise ControllerError(f"{' '.join(command[:2])}: {one_line(Exception(done.stderr or done.stdout))[:500]}")
    return done.stdout
