"""How does submitit hand an array to SLURM? Its parameters from a profile, and the text that sbatch reads."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.slurm import slurm

from structlin.config.launch import SlurmLaunch
from structlin.errors import UserError, one_line
from structlin.launch.slurm.element import train_element
from structlin.launch.slurm.resources import Resources

LIMIT_WORDS = (
    "SubmitLimit",
    "MaxSubmitJob",
    "submit limit",
    "job queue full",
    "MaxJobCount",
    "temporarily unable",
    "Resource temporarily unavailable",
)
"""What sbatch says where it would take fewer jobs, or the same ones later."""


class Refused(UserError):
    """sbatch takes none of this."""


class LimitReached(Refused):
    """It would take fewer, or all of it later."""


def parameters(
    launch: SlurmLaunch, resources: Resources, sweep: str, snapshot: Path, at_once: int, after: Sequence[str]
) -> dict[str, Any]:
    """submitit's parameters of an array."""
    # As an option of our own: submitit converts gigabytes only for mem_gb of its other executor.
    extra: dict[str, Any] = {"requeue": True, "mem": f"{resources.memory_gb}G"}
    for option in launch.options:
        name, _, value = option.lstrip("-").partition("=")
        extra[name] = value if value else True
    return {
        "job_name": sweep,
        "account": launch.account,
        "partition": launch.partition,
        "qos": launch.qos,
        "constraint": launch.constraint,
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": _gpus(launch, resources),
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        "array_parallelism": at_once,
        "signal_delay_s": launch.signal_seconds,
        "setup": [*launch.setup, f"export PYTHONPATH={shlex.quote(str(snapshot))}"],
        # Since SLURM 22.05 a step no longer inherits the cores of its job.
        "srun_args": [f"--cpus-per-task={resources.cpus}"],
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": extra,
    }


def _gpus(launch: SlurmLaunch, resources: Resources) -> str | int | None:
    """GPUs of a node, by their kind where the profile names one."""
    if not resources.gpus:
        return None
    return f"{launch.gpu_type}:{resources.gpus}" if launch.gpu_type else resources.gpus


def script(launch: SlurmLaunch, values: dict[str, Any], folder: Path, elements: int) -> str:
    """The text that sbatch would read, made by submitit."""
    command = f"{python(launch)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    given = {key: value for key, value in values.items() if value is not None} | {"wckey": None}
    text: str = slurm._make_sbatch_string(
        command=command, folder=folder, map_count=elements if elements > 1 else None, **given
    )
    return text


def submit(launch: SlurmLaunch, values: dict[str, Any], folder: Path, elements: int) -> str:
    """Submit an array of the elements of the submission in ``folder``; its job id. Refused says why not."""
    executor = submitit.SlurmExecutor(folder / "log", python=python(launch))
    executor.update_parameters(**values)
    try:
        with outside_of_jobs():
            jobs = executor.map_array(train_element, [str(folder)] * elements, list(range(elements)))
    except FailedJobError as error:
        message = one_line(error)
        kind = LimitReached if any(words in message for words in LIMIT_WORDS) else Refused
        raise kind(f"sbatch: {message[-400:]}") from None
    job_id: str = jobs[0].job_id.split("_")[0]
    return job_id


def python(launch: SlurmLaunch) -> str:
    """The interpreter, deaf to warnings until it listens: before, one would end it."""
    interpreter = launch.python or shlex.quote(sys.executable)
    return f"""bash -c 'trap "" USR1 USR2; exec "$0" "$@"' {interpreter}"""


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide an allocation around us from sbatch, but not the cluster that we are told to use."""
    conf = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
