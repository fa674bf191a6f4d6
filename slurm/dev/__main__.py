"""How is the development cluster started and stopped? ``python -m slurm.dev up``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from slurm.dev import cluster, packages
from slurm.dev.cluster import Cluster
from slurm.dev.settings import STATE_VARIABLE, Settings, flag, state_folder
from structlin.errors import UserError, door, suggest

HELP = f"""\
python -m slurm.dev COMMAND [NODE ...] [key=value ...]

A real SLURM on one Debian machine: a controller, nodes n1, n2, ... and accounting.

  install         install the missing Debian packages (root)
  up              start what does not run, wait until every node takes jobs, print the line that a shell needs:
                  eval "$(python -m slurm.dev up)"
  down            end its processes and jobs and remove its state folder; keep=true leaves queue, accounts and logs
  off NODE ...    cut the power of nodes: slurmd, steps and jobs die at one moment; told=true tells the controller
  on NODE ...     switch nodes on and wait until they take jobs
  restart         end the controller and start it again; jobs run on
  status          what runs, and what the controller says of the nodes

Every command takes state=FOLDER, a short path (default: ${STATE_VARIABLE}, else below $XDG_RUNTIME_DIR or /tmp).
up takes, with [default]:

"""


def main(arguments: list[str]) -> int:
    """Read the command and do it."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP + describe_settings(), end="")
        return 0
    name, *words = arguments
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command; {suggest(name, COMMANDS)}")
    command = COMMANDS[name]
    nodes = [word for word in words if "=" not in word]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    state = state_folder(values.pop("state", None))
    if bool(nodes) != command.takes_nodes:
        raise UserError(f"{name} {' '.join(nodes)}: {'say which nodes' if command.takes_nodes else 'takes no node'}")
    for key in values.keys() - set(command.keys):
        raise UserError(f"{key}: no such key of {name}; {suggest(key, [*command.keys, 'state'])}")
    return command.do(state, nodes, values) or 0


def describe_settings() -> str:
    """One line a setting, from the sentence under its field."""
    sentences = dict(re.findall(r'^    (\w+): .*\n    """(.*)"""$', inspect.getsource(Settings), re.MULTILINE))
    return "".join(
        f"  {field.name:<16}{sentences[field.name]} [{str(field.default).lower()}]\n" for field in fields(Settings)
    )


# ------------------------------------------------------------------------------------------ the commands


@dataclass(frozen=True)
class Command:
    """A function of the state folder, the nodes and the values, and what it takes."""

    do: Callable[[Path, list[str], dict[str, str]], int | None]
    takes_nodes: bool = False
    keys: tuple[str, ...] = ()


def _install(state: Path, nodes: list[str], values: dict[str, str]) -> None:
    packages.install(accounting=Settings.parse(values).accounting)


def _up(state: Path, nodes: list[str], values: dict[str, str]) -> None:
    print(_shell_line(cluster.up(state, values)))


def _down(state: Path, nodes: list[str], values: dict[str, str]) -> None:
    if not cluster.down(state, keep=flag("keep", values.get("keep", "false"))):
        print(f"no cluster at {state}", file=sys.stderr)


def _off(state: Path, nodes: list[str], values: dict[str, str]) -> None:
    with cluster.changing(state) as here:
        here.power_off(nodes, told=flag("told", values.get("told", "false")))


def _on(state: Path, nodes: list[str], values: dict[str, str]) -> None:
    with cluster.changing(state) as here:
        here.power_on(nodes)


def _restart(state: Path, nodes: list[str], values: dict[str, str]) -> None:
    with cluster.changing(state) as here:
        here.restart_controller()


def _status(state: Path, nodes: list[str], values: dict[str, str]) -> int:
    here = Cluster.at(state)
    states = here.node_states()
    print(_shell_line(here))
    for daemon in here.daemons:
        runs = f"runs as {daemon.process.pid}" if daemon.process else "does not run"
        print(f"{daemon.name:<12}{runs:<18}{states.get(daemon.name, '')}".rstrip())
    return 0 if all(daemon.process for daemon in here.daemons) else 1


def _shell_line(of: Cluster) -> str:
    return f"export SLURM_CONF={of.environment['SLURM_CONF']}"


_SETTINGS = tuple(field.name for field in fields(Settings))
COMMANDS = {
    "install": Command(_install, keys=_SETTINGS),
    "up": Command(_up, keys=_SETTINGS),
    "down": Command(_down, keys=("keep",)),
    "off": Command(_off, takes_nodes=True, keys=("told",)),
    "on": Command(_on, takes_nodes=True),
    "restart": Command(_restart),
    "status": Command(_status),
}


if __name__ == "__main__":
    door(main)
