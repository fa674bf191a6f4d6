"""What does sbatch read for an array, and what does its answer mean? The script is made by submitit from a profile."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm import slurm

from structlin.config.launch import SlurmLaunch
from structlin.errors import UserError
from structlin.host.files import write_atomically
from structlin.launch.slurm.causes import SETUP_EXIT
from structlin.launch.slurm.controller import MARK, Controller, ControllerError, NoAnswer
from structlin.launch.slurm.reasons import way_out
from structlin.launch.slurm.resources import Resources

LATER_WORDS = (
    "SubmitJob",
    "job queue full",
    "MaxJobCount",
    "temporarily unable",
    "Resource temporarily unavailable",
    "Unable to contact slurm controller",
)
"""What sbatch says where it would take fewer jobs, or the same ones later."""
_LIMIT = re.compile(r"\b((?:QOS|Assoc|Partition)[A-Z]\w+|[A-Z]\w*(?:Max|Min|Grp)[A-Z]\w+)")
"""The name of a limit, SLURM's first token. What follows it in brackets stands behind every limit alike."""
_FROM_ENVIRONMENT = ("account", "partition", "qos", "constraint", "reservation")
"""Options that a user may have set for every sbatch; sbatch itself would let them win over a profile's."""
_MODULES = re.compile(r"(module|ml)\s+\S")
_PERCENT = "\x00"


class Refused(UserError):
    """sbatch takes none of this."""


class LimitReached(Refused):
    """It would take fewer, or all of it later."""


class InDoubt(LimitReached):
    """Nobody knows yet whether it took all of it."""


def parameters(
    launch: SlurmLaunch,
    resources: Resources,
    sweep: str,
    snapshot: Path,
    at_once: int,
    after: Sequence[str],
    *,
    token: str = "",
    after_success: str = "",
    exclude: Sequence[str] = (),
    cluster: str = "",
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """submitit's parameters of an array; ``after_success``: an array that has to end well before it begins.

    ``cluster``: the one of several that it has to go to.
    """
    options = launch.own_options
    extra = _requeue(launch) | _memory(launch, resources, options) | options
    comment = ",".join(filter(None, [str(options.get("comment", "")), f"{MARK}:{token}" if token else ""]))
    if comment:
        extra["comment"] = comment
    excluded = ",".join(filter(None, [str(options.get("exclude", "")), *exclude]))
    if excluded:
        extra["exclude"] = excluded
    if launch.gres is not None and resources.gpus:
        extra["gres"] = launch.gres.replace("{gpus}", str(resources.gpus))
    if launch.clusters is not None:
        extra["clusters"] = launch.clusters
    if cluster:
        extra = {name: value for name, value in extra.items() if name not in ("cluster", "M")} | {"clusters": cluster}
    if after_success:
        extra["kill-on-invalid-dep"] = "yes"
    given = _given(launch, os.environ if environment is None else environment)
    if "reservation" in given:
        extra.setdefault("reservation", given.pop("reservation"))
    asks_gpus = any(name.startswith(("gres", "gpus")) for name in extra)
    return {
        "job_name": sweep,
        **given,
        "time": duration(resources.minutes),
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": None if asks_gpus else _gpus(launch, resources),
        "dependency": _dependency(after, after_success),
        "array_parallelism": at_once,
        "signal_delay_s": launch.signal_seconds,
        "setup": setup(launch, snapshot),
        # Since SLURM 22.05 a step inherits no cores of its job, and where a site exports nothing, no variable either.
        "srun_args": [f"--cpus-per-task={resources.cpus}", "--export=ALL", *launch.srun_args],
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": extra,
    }


def _given(launch: SlurmLaunch, environment: Mapping[str, str]) -> dict[str, Any]:
    """Options of the profile or, where it says none, of the user's environment (SBATCH_ACCOUNT and its like)."""
    own = {name: getattr(launch, name, None) for name in _FROM_ENVIRONMENT}
    found = {name: value or environment.get(f"SBATCH_{name.upper()}") for name, value in own.items()}
    return {name: value for name, value in found.items() if value or name != "reservation"}


def _requeue(launch: SlurmLaunch) -> dict[str, Any]:
    return {"requeue": True} if launch.requeue else {"no-requeue": True}


def _memory(launch: SlurmLaunch, resources: Resources, options: Mapping[str, Any]) -> dict[str, Any]:
    """As an option of our own: submitit converts gigabytes only for mem_gb of its other executor."""
    if launch.memory_by == "none" or any(name.startswith("mem") for name in options):
        return {}
    if launch.memory_by == "cpu":
        return {"mem-per-cpu": f"{math.ceil(1024 * resources.memory_gb / resources.cpus)}M"}
    return {"mem": f"{resources.memory_gb}G"}


def _dependency(after: Sequence[str], after_success: str) -> str | None:
    parts = [f"afterok:{after_success}"] if after_success else []
    parts += [f"afterany:{':'.join(after)}"] if after else []
    return ",".join(parts) or None


def duration(minutes: int) -> str:
    """Minutes as SLURM's d-hh:mm:ss, which every site takes."""
    hours, rest = divmod(minutes, 60)
    return f"{hours // 24}-{hours % 24:02d}:{rest:02d}:00"


def setup(launch: SlurmLaunch, snapshot: Path) -> list[str]:
    """Lines of shell before Python: those of the profile, and the frozen code before whatever they put on the path."""
    lines = [_stopping(line) if _MODULES.match(line) and "|" not in line else line for line in launch.setup]
    path = shlex.quote(str(snapshot))
    # Python would look into the folder of submission first, where the code may be edited meanwhile.
    own = [f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONSAFEPATH=1"]
    # A site that exports nothing to jobs says so to srun too.
    return [*lines, *own, "unset SLURM_EXPORT_ENV"]


def _stopping(line: str) -> str:
    """A line of shell that ends the job where it fails."""
    return f"{line} || {{ echo {shlex.quote(f'setup failed: {line}')} >&2; exit {SETUP_EXIT}; }}"


def _gpus(launch: SlurmLaunch, resources: Resources) -> str | int | None:
    """GPUs of a node, by their kind where the profile names one."""
    if not resources.gpus:
        return None
    return f"{launch.gpu_type}:{resources.gpus}" if launch.gpu_type else resources.gpus


def script(launch: SlurmLaunch, values: dict[str, Any], folder: Path, elements: int) -> str:
    """The text that sbatch would read, made by submitit; ``folder``: where logs go, below that of the submission."""
    command = f"{python(launch)} -u -m structlin.launch.slurm.element {shlex.quote(str(folder.parent))}"
    given = {key: value for key, value in values.items() if value is not None} | {"wckey": None}
    text: str = slurm._make_sbatch_string(
        command=command,
        # sbatch fills in what follows a percent sign.
        folder=str(folder).replace("%", _PERCENT),
        map_count=elements if elements > 1 else None,
        **given,
    )
    return text.replace(_PERCENT, "%%")


def submit(
    launch: SlurmLaunch, values: dict[str, Any], folder: Path, elements: int, controller: Controller
) -> tuple[str, str]:
    """Submit an array of the elements of the submission in ``folder``; its job id, and its cluster where sbatch says.

    Refused says why not; InDoubt where the answer was lost.
    """
    log = folder / "log"
    path = log / "submission.sh"
    write_atomically(path, script(launch, values, log, elements).encode())
    try:
        job_id, cluster = controller.submit(str(path))
    except NoAnswer as error:
        raise InDoubt(str(error)) from None
    except ControllerError as error:
        raise judged(str(error)) from None
    path.rename(log / f"{job_id}_submission.sh")
    return job_id, cluster


def judged(message: str) -> Refused:
    """What sbatch's refusal means: by the name of the limit, not by what stands behind every limit alike."""
    limit = _LIMIT.search(message)
    text = message if message.startswith("sbatch") else f"sbatch: {message}"
    if limit is None:
        is_later = any(words.lower() in message.lower() for words in (*LATER_WORDS, "job submit limit"))
        return (LimitReached if is_later else Refused)(text[-600:])
    if "Submit" in limit[1] or "MaxJobs" in limit[1] or "GrpJobs" in limit[1]:
        return LimitReached(text[-600:])
    return Refused(f"{limit[1]} refuses this for good: {way_out(limit[1])}; {text[-500:]}")


def python(launch: SlurmLaunch) -> str:
    """The interpreter (in its container), deaf to warnings until it listens: before, one would end it."""
    interpreter = launch.python or shlex.quote(sys.executable)
    words = f"{launch.container} {interpreter}" if launch.container else interpreter
    return f"""bash -c 'trap "" USR1 USR2; exec "$0" "$@"' {words}"""


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide an allocation around us from sbatch, but not the cluster that we are told to use."""
    conf = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
