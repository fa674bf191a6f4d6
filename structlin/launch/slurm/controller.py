"""What does SLURM say? One call for all jobs: squeue for what lives, sacct for how the rest has ended.

Thousands of jobs asked one by one trip the controller's limits. An element is named as SLURM names it: ``17_3`` is
task 3 of array 17, ``17`` a job without an array. Sites print banners and notes among the answers: a line counts where
it begins with a word that we asked for, or has the form of a record; what does not is skipped, and said.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from structlin.errors import UserError, one_line

CALL_SECONDS = 60
SBATCH_SECONDS = 300
"""sbatch itself tries for minutes to reach a controller that is busy."""
WAIT_FOR_CONTROLLER_SECONDS = 60
MOST_IDS = 500
"""Job ids in one call, so that the command line stays short."""
MARK = "structlin"
"""How each line of squeue begins that we have asked for, and each comment of a job of ours."""

Run = Callable[[Sequence[str]], str]

_QUEUE_FORMAT = f"{MARK}|%i|%T|%V|%k|%j|%r"
_QUEUE_LINE = re.compile(rf"{MARK}\|([^|]+)\|([A-Z_]+)\|([^|]*)\|(.*)\|([^|]*)\|([^|]*)")
_SACCT_FIELDS = "JobID,State,ExitCode,MaxRSS,Submit,JobName,NodeList,Comment"
_JOB = re.compile(r"(\d+(?:_(?:\d+|\[[\d,:%\-]+\]))?)(?:\+\d+)?(?:\.(\S+))?")
_STATE = re.compile(r"([A-Z_]+)(?: by \S+)?\+?")
_TOKEN = re.compile(rf"{MARK}:([0-9a-f]{{8,}})")


class ControllerError(UserError):
    """SLURM does not answer, or refuses."""


class NoAnswer(ControllerError):
    """The call was broken off: whether it has had an effect is not known."""


@dataclass(frozen=True)
class Limits:
    """What one cluster takes."""

    array_size: int
    """Tasks of one array at most; 1 where arrays are switched off."""
    max_jobs: int
    """Jobs and array tasks of all users that the controller holds at most."""


@dataclass(frozen=True)
class Label:
    """What tells a job from another of the same number."""

    job_name: str = ""
    submitted: float | None = None
    """Seconds since 1970; a requeued job counts from its requeue."""
    token: str = ""
    """Of its comment; empty where the site keeps none, or it is nobody's of ours."""


@dataclass(frozen=True)
class Live:
    """An element that waits or runs."""

    state: str
    """PENDING, RUNNING, ..."""
    reason: str
    """Why it waits, in SLURM's words."""
    label: Label = field(default=Label(), compare=False)

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun, or waits to begin again."""
        return self.state in (*WAITING, ELSEWHERE)


WAITING = (
    *("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
    *("CONFIGURING", "POWER_UP_NODE"),
)
"""States of squeue in which an element has not begun, or waits to begin again."""
ELSEWHERE = "ELSEWHERE"
"""The state of an element of a cluster that does not answer here."""


@dataclass(frozen=True)
class End:
    """How one start of an element has ended, as sacct tells it."""

    state: str
    """COMPLETED, FAILED, TIMEOUT, OUT_OF_MEMORY, NODE_FAIL, PREEMPTED, CANCELLED, REQUEUED, ..."""
    exit_code: str
    """code:signal"""
    max_rss_bytes: int
    """The largest resident memory of its steps; 0 where none was recorded."""
    node: str = field(default="", compare=False)
    """Where it ran."""
    label: Label = field(default=Label(), compare=False)


class Controller:
    """The SLURM commands of this machine, for its own cluster or another one that it reaches (-M)."""

    def __init__(self, run: Run | None = None, cluster: str = "") -> None:
        self._run_command = run or _run
        self.cluster = cluster
        """The cluster that is asked; empty for the machine's own; several (a,b) of which sbatch takes one."""
        self._config = ""
        self._others: dict[str, Controller] = {}
        self.skipped: list[str] = []
        """Lines of answers that could not be read."""

    def on(self, cluster: str) -> Controller:
        """The same commands for another cluster."""
        if cluster == self.cluster or (not cluster and not self.is_several):
            return self
        if cluster not in self._others:
            self._others[cluster] = other = Controller(self._run_command, cluster)
            other.skipped = self.skipped
        return self._others[cluster]

    @property
    def is_several(self) -> bool:
        """Whether sbatch may choose among clusters."""
        return "," in self.cluster

    def each(self) -> list[Controller]:
        """The same commands for one of the clusters each."""
        return [self.on(name) for name in self.cluster.split(",")] if self.is_several else [self]

    def _answering(self) -> list[tuple[Controller, Limits]]:
        """Those that answer, with their limits: sbatch takes none of the others. ControllerError where none does."""
        found, errors = [], []
        for one in self.each():
            try:
                found.append((one, one.limits()))
            except ControllerError as error:
                errors.append(error)
        if not found:
            raise errors[0]
        return found

    def _run(self, command: Sequence[str]) -> str:
        where = [f"--clusters={self.cluster}"] if self.cluster else []
        return self._run_command([command[0], *where, *command[1:]])

    @property
    def name(self) -> str:
        """The name of the cluster; empty where SLURM does not say."""
        if self.cluster:
            return self.cluster
        found = re.search(r"^ClusterName\s*=\s*(\S+)", self._configuration(), re.MULTILINE)
        return found[1] if found else ""

    def limits(self) -> Limits:
        """Read from ``scontrol show config``; of several clusters what each of them takes."""
        if self.is_several:
            limits = [one for _, one in self._answering()]
            return Limits(min(one.array_size for one in limits), min(one.max_jobs for one in limits))
        text = self._configuration()
        found = {
            name: re.search(rf"^{name}\s*=\s*(\d+)", text, re.MULTILINE) for name in ("MaxArraySize", "MaxJobCount")
        }
        size, jobs = found["MaxArraySize"], found["MaxJobCount"]
        # Whoever switches arrays off says 0.
        return Limits(max(1, int(size[1])) if size else 1, int(jobs[1]) if jobs else 10_000)

    def _configuration(self) -> str:
        self._config = self._config or self._run(["scontrol", "show", "config"])
        return self._config

    def room(self, limits: Limits) -> int:
        """Array tasks that the controller still has room for; beyond, sbatch would wait for minutes and give up."""
        if self.is_several:
            return min(one.room(own) for one, own in self._answering())
        text = self._run(["squeue", "--noheader", "--array", "--states=all", f"--format={MARK}|%i"])
        held = sum(line.strip().startswith(f"{MARK}|") for line in text.splitlines())
        return max(0, limits.max_jobs - held - 1)

    def live(self, users: Iterable[str]) -> dict[str, Live]:
        """Elements of these users that wait or run."""
        wanted = ",".join(sorted(set(users)))
        text = self._run(["squeue", "--noheader", f"--user={wanted}", f"--format={_QUEUE_FORMAT}"])
        found = {}
        for line in self._lines(text):
            parsed = _QUEUE_LINE.fullmatch(line)
            if parsed is None or _JOB.fullmatch(parsed[1]) is None:
                self.skipped.append(line)
                continue
            name, state, submitted, comment, job_name, reason = parsed.groups()
            label = Label(job_name, _seconds(submitted), token_of(comment))
            for element in elements(name):
                found[element] = Live(state, reason, label)
        return found

    def ends(self, job_ids: Sequence[str]) -> dict[str, list[End]]:
        """Every end of every element of these jobs, the oldest first; {} where sacct cannot tell."""
        found: dict[str, list[End]] = {}
        for first in range(0, len(job_ids), MOST_IDS):
            wanted = f"--jobs={','.join(job_ids[first : first + MOST_IDS])}"
            try:
                text = self._run(["sacct", "-D", "--noheader", "--parsable2", wanted, f"--format={_SACCT_FIELDS}"])
            except ControllerError:
                return {}
            for element, end in self._accounts(text):
                found.setdefault(element, []).append(end)
        return found

    def named(self, job_name: str, user: str, since: float) -> dict[str, list[End]]:
        """The same of all jobs of a name that a user has submitted since a moment; {} where sacct cannot tell."""
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
        words = [f"--name={job_name}", f"--user={user}", f"--starttime={start}", "--endtime=now"]
        try:
            text = self._run(["sacct", "-D", "--noheader", "--parsable2", *words, f"--format={_SACCT_FIELDS}"])
        except ControllerError:
            return {}
        found: dict[str, list[End]] = {}
        for element, end in self._accounts(text):
            found.setdefault(element, []).append(end)
        return found

    def submit(self, script: str) -> tuple[str, str]:
        """Give a script to sbatch; the job's id, and its cluster where sbatch names it.

        ControllerError in sbatch's words where it refuses, NoAnswer where nobody knows whether it took the script.
        """
        text = self._run(["sbatch", "--parsable", script])
        for line in reversed(text.splitlines()):
            parsed = re.fullmatch(r"(\d+)(?:;(\S+))?", line.strip()) or re.fullmatch(
                r"Submitted batch job (\d+)(?: on cluster (\S+))?", line.strip()
            )
            if parsed is not None and (parsed[2] or not self.is_several):
                return parsed[1], parsed[2] or ""
        raise NoAnswer(f"sbatch names no job: {one_line(Exception(text))[:300]}")

    def cancel(self, names: Sequence[str]) -> None:
        """Cancel jobs, arrays or elements."""
        for first in range(0, len(names), MOST_IDS):
            self._run(["scancel", *names[first : first + MOST_IDS]])

    def state_of(self, name: str) -> str:
        """The state of one element that was running a moment ago."""
        text = self._run(["squeue", "--noheader", "--states=all", f"--jobs={name}", f"--format={MARK}|%T"])
        found = [line.strip().removeprefix(f"{MARK}|") for line in text.splitlines() if line.strip().startswith(MARK)]
        return found[0] if found else "UNKNOWN"

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

    def _lines(self, text: str) -> Iterator[str]:
        """Lines that may be answers; what begins without our mark is a site's own word."""
        for line in map(str.strip, text.splitlines()):
            if line.startswith(f"{MARK}|"):
                yield line
            elif line and not line.startswith("CLUSTER:"):
                self.skipped.append(line)

    def _accounts(self, text: str) -> Iterator[tuple[str, End]]:
        """Each line of a job, with the largest memory of the lines of its steps, which follow it."""
        jobs: list[tuple[str, list[str]]] = []
        rss: list[int] = []
        for line in map(str.strip, text.splitlines()):
            fields = line.split("|")
            parsed = _JOB.fullmatch(fields[0])
            if parsed is None or not _is_account(fields):
                self.skipped += [line] if line and not line.startswith("CLUSTER:") else []
            elif parsed[2] is None:
                jobs.append((parsed[1], fields))
                rss.append(0)
            elif jobs:
                rss[-1] = max(rss[-1], _bytes(_field(fields, 3)))
        for (name, fields), most in zip(jobs, rss, strict=True):
            state = _STATE.fullmatch(fields[1])
            assert state is not None
            label = Label(_field(fields, 5), _seconds(_field(fields, 4)), token_of("|".join(fields[7:])))
            end = End(state[1], fields[2], most, _field(fields, 6), label)
            for element in elements(name):
                yield element, end


def own_name() -> str:
    """The element we are in. The bare job id will not do: that of an array's last task is the whole array's."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


class _Refused(ControllerError):
    """Asking again would not help."""


def token_of(comment: str) -> str:
    """The token in a job's comment; empty where there is none of ours."""
    found = _TOKEN.search(comment)
    return found[1] if found else ""


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


def _is_account(fields: Sequence[str]) -> bool:
    return len(fields) >= 3 and bool(_STATE.fullmatch(fields[1]) and re.fullmatch(r"\d+:\d+", fields[2]))


def _field(fields: Sequence[str], index: int) -> str:
    return fields[index].strip() if index < len(fields) else ""


def _seconds(text: str) -> float | None:
    """Seconds since 1970 of a time of this machine's zone; None for N/A and what is no time."""
    try:
        return time.mktime(time.strptime(text.strip(), "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def _bytes(text: str) -> int:
    number = re.match(r"([\d.]+)([KMGT]?)", text)
    if number is None or not number[1].strip("."):
        return 0
    return int(float(number[1]) * 1024 ** " KMGT".index(number[2] or " "))


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a SLURM command: array ranges in full, and no wish of an allocation around us."""
    inherited = os.environ if base is None else base
    foreign = ("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_", "SUBMITIT_")
    kept = {key: value for key, value in inherited.items() if not key.startswith(foreign)}
    for key in ("SLURM_CONF", "SLURM_CONF_SERVER"):
        if key in inherited:
            kept[key] = inherited[key]
    return {**kept, "SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "standard"}


def _run(command: Sequence[str]) -> str:
    seconds = SBATCH_SECONDS if command[0] == "sbatch" else CALL_SECONDS
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, env=environment(), check=False
        )
    except FileNotFoundError:
        raise ControllerError(f"{command[0]} is not on this machine; use launch=local, or a login node") from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} has not answered for {seconds} s; try again later") from None
    if done.returncode != 0:
        words = one_line(Exception(done.stderr or done.stdout))
        kind = NoAnswer if _BROKEN_OFF.search(words) else ControllerError
        raise kind(f"{' '.join(command[:2])}: {words[:1000]}")
    return done.stdout


_BROKEN_OFF = re.compile(
    r"Socket timed out|Zero Bytes were transmitted|Connection (?:reset|timed out)|Message receive failure|"
    r"Transport endpoint is not connected|Send/Recv operation",
    re.IGNORECASE,
)
"""What a client says that has sent its request and got no answer: it may have been granted."""
