"""Who trains a run, and does that process still live? The name that an attempt writes down of its own process.

A process is surely gone only where one can look: on the machine it ran on, in the same process namespace. Elsewhere
the lock of the run, the batch system (the same SLURM job, requeued) or a heartbeat has to say it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from structlin.host.processes import birth, machine


@dataclass(frozen=True)
class Holder:
    """One process on one machine, and its place in the batch system."""

    host: str
    machine: str
    """Boot and process namespace: where both are equal, process ids mean the same."""
    pid: int
    birth: int
    """Clock ticks from boot to the start of the process: a process id may be given away again."""
    slurm_job: str | None
    """Job id, or array job and task as 17_3; None outside SLURM. A requeued job keeps it."""
    slurm_restart: int
    """How often SLURM has requeued the job."""
    began: float
    """Seconds since 1970 at which the attempt began; for people to read."""
    slurm_cluster: str | None = None
    """Job ids mean something within a cluster only; None outside SLURM and in older records."""

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        pid = os.getpid()
        return cls(
            host=os.uname().nodename,
            machine=machine(),
            pid=pid,
            birth=birth(pid) or 0,
            slurm_job=_slurm_job(),
            slurm_restart=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
            began=time.time(),
            slurm_cluster=os.environ.get("SLURM_CLUSTER_NAME") or None,
        )

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Holder:
        """The holder of plain values. TypeError for values that are none."""
        return cls(**values)

    @property
    def is_near(self) -> bool:
        """Whether it ran where we run, so that looking for its process tells something."""
        return bool(self.machine) and (self.host, self.machine) == (os.uname().nodename, machine())

    @property
    def is_this_process(self) -> bool:
        """Whether it is ourselves."""
        return self.is_near and (self.pid, self.birth) == (os.getpid(), birth(os.getpid()) or 0)

    @property
    def is_gone(self) -> bool:
        """Whether it is surely dead; False where nobody here can know."""
        return self.is_near and birth(self.pid) != self.birth

    def is_requeued_as(self, other: Holder) -> bool:
        """Whether ``other`` is the same job started again, so that the batch system holds this process for dead."""
        return (
            self.slurm_job is not None
            and self.slurm_job == other.slurm_job
            and (self.slurm_cluster or other.slurm_cluster) == (other.slurm_cluster or self.slurm_cluster)
            and self.slurm_restart < other.slurm_restart
        )


def _slurm_job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
