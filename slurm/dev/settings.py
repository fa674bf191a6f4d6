"""What can be chosen about a development cluster, and where does it live?

The settings of a cluster are kept in its state folder (cluster.json), with the ports it took, so that every later
command finds it by the folder alone.
"""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from structlin.errors import UserError, suggest

STATE_VARIABLE = "SLURM_DEV_STATE"
# A unix socket's path has at most 107 bytes, and slurmd adds spool/n1/n1_<job>.<step> below the state folder.
LONGEST_STATE = 60
# Below the range of outgoing connections (32768 and up), above the well-known services.
FIRST_PORT, LAST_PORT = 17000, 32000


@dataclass(frozen=True)
class Settings:
    """The shape and the limits of a cluster."""

    nodes: int = 4
    """slurmd daemons, named n1, n2, ..."""
    cpus: int = 2
    """CPUs per node, counted and not pinned."""
    memory: int = 4000
    """Memory per node in MB, counted; see enforce_memory."""
    gpus: int = 2
    """Fake GPUs per node (gres)."""
    accounting: bool = True
    """Run slurmdbd and its database, so that sacct answers."""
    max_array_size: int = 1001
    """MaxArraySize: array indices are 0 .. max_array_size - 1; 0 switches arrays off."""
    max_job_count: int = 10_000
    """MaxJobCount: jobs, array elements counted one by one, that the controller holds."""
    max_submit: int = 0
    """Jobs that a user may have pending or running (QOS MaxSubmitJobsPerUser); 0 sets no limit. Needs accounting."""
    max_wall: int = 0
    """Minutes that a job may ask for (QOS MaxWall with DenyOnLimit); 0 sets no limit. Needs accounting."""
    enforce_memory: bool = False
    """Kill a job whose processes exceed its --mem (looked at every second); it ends FAILED by signal 9."""
    node_timeout: int = 20
    """Seconds after which a silent node is DOWN and its jobs are requeued (SlurmdTimeout)."""
    port: int = 0
    """First of the nodes + 2 ports; 0 takes a free block."""

    def __post_init__(self) -> None:
        for key in ("nodes", "cpus", "memory", "gpus", "max_job_count", "node_timeout"):
            if getattr(self, key) < 1:
                raise UserError(f"{key}={getattr(self, key)}: write a whole number from 1")
        for key in ("max_array_size", "max_wall"):
            if getattr(self, key) < 0:
                raise UserError(f"{key}={getattr(self, key)}: write a whole number from 0")
        if self.max_submit < 0 or not 0 <= self.port <= 65_535 - self.nodes - 2:
            raise UserError(f"max_submit={self.max_submit} port={self.port}: both are 0 or more, ports below 65,536")
        for key in ("max_submit", "max_wall"):
            if getattr(self, key) and not self.accounting:
                value = getattr(self, key)
                raise UserError(f"{key}={value} is a QOS limit and QOS live in accounting: accounting=true")

    @property
    def has_limits(self) -> bool:
        """Whether a QOS limits what users submit."""
        return bool(self.max_submit or self.max_wall)

    @property
    def num_ports(self) -> int:
        """Controller, accounting daemon and one port a node."""
        return self.nodes + 2

    def words(self) -> dict[str, str]:
        """The settings as typed: ``parse`` reads them back."""
        return {key: str(value).lower() for key, value in asdict(self).items()}

    @staticmethod
    def parse(values: dict[str, str]) -> Settings:
        """Settings from ``key=value`` words; UserError names what is wrong and lists the valid keys."""
        types = {field.name: type(field.default) for field in fields(Settings)}
        parsed: dict[str, int | bool] = {}
        for key, value in values.items():
            if key not in types:
                raise UserError(f"{key}: no such key; {suggest(key, [*types, 'state'])}")
            parsed[key] = flag(key, value) if types[key] is bool else _whole_number(key, value)
        return Settings(**parsed)  # type: ignore[arg-type]  # the types are those of the fields, by the loop above


def flag(key: str, value: str) -> bool:
    """Read true or false; UserError for anything else."""
    if value not in ("true", "false"):
        raise UserError(f"{key}={value}: write true or false")
    return value == "true"


def _whole_number(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise UserError(f"{key}={value}: write a whole number") from error


# ------------------------------------------------------------------------------------------ the state folder


def state_folder(given: str | None = None) -> Path:
    """The state folder: as given, else $SLURM_DEV_STATE, else $XDG_RUNTIME_DIR/slurm-dev, else /tmp/slurm-dev-USER."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    default = f"{runtime}/slurm-dev" if runtime else f"/tmp/slurm-dev-{getpass.getuser()}"
    state = Path(given or os.environ.get(STATE_VARIABLE) or default).absolute()
    if len(os.fsencode(state)) > LONGEST_STATE:
        raise UserError(
            f"{state}: the state folder's path has more than {LONGEST_STATE} bytes, too long for the unix sockets "
            f"in it; choose a short one with state=/tmp/NAME or {STATE_VARIABLE}"
        )
    if any(letter in str(state) for letter in " \t\n\"'#=,[]%$\\"):
        raise UserError(f"{state}: a SLURM configuration cannot hold this path; choose plain letters, state=/tmp/NAME")
    return state


def save(settings: Settings, state: Path) -> None:
    """Keep the settings in the state folder; its presence says that the folder is a cluster's."""
    (state / "cluster.json").write_text(json.dumps(asdict(settings), indent=1) + "\n")


def load(state: Path) -> Settings | None:
    """The settings of the cluster in a state folder; None where there is none."""
    try:
        return Settings(**json.loads((state / "cluster.json").read_text()))
    except FileNotFoundError:
        return None


# ------------------------------------------------------------------------------------------ ports


def free_block(num_ports: int) -> int:
    """The first port of a block that nobody listens on. Begins anywhere, so that two clusters seldom try the same."""
    for first in _blocks(num_ports):
        if all(_is_free(port) for port in range(first, first + num_ports)):
            return first
    raise UserError(f"no {num_ports} neighbouring ports are free in {FIRST_PORT}-{LAST_PORT}; choose one with port=")


def _blocks(num_ports: int) -> Iterator[int]:
    blocks = list(range(FIRST_PORT, LAST_PORT - num_ports, num_ports))
    random.shuffle(blocks)
    return iter(blocks)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
