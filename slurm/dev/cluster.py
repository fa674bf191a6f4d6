"""How does the cluster start, lose a node, and end?

A cluster is a state folder. Each function reads what runs from its pid files and does what is missing, so that each
may be called twice. Daemons start in the order in which they need each other: munged, the database and slurmdbd,
slurmctld, one slurmd a node.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from slurm.dev import accounting, configuration
from slurm.dev.packages import SEARCH_PATH, missing, program
from slurm.dev.processes import Daemon, Process, answers, cut, environment_of, everything, wait
from slurm.dev.settings import Settings, free_block, load, save
from structlin.errors import UserError, suggest

READY_SECONDS = 60
TAKES_JOBS = ("idle", "mixed", "allocated", "completing", "planned")


class Cluster:
    """The running or stopped cluster of a state folder."""

    def __init__(self, settings: Settings, state: Path) -> None:
        self.settings = settings
        self.state = state
        self.nodes = configuration.node_names(settings)
        # Nothing of the caller's SLURM job, site or locale reaches the daemons or, through them, the jobs' steps.
        self.environment = {
            "PATH": SEARCH_PATH,
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(state / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(state / "database.socket"),
        }

    @staticmethod
    def at(state: Path) -> Cluster:
        """The running or stopped cluster of a state folder; UserError where there is none."""
        settings = load(state)
        if settings is None:
            raise UserError(f"{state}: no cluster here; start one with `python -m slurm.dev up state={state}`")
        return Cluster(settings, state)

    # -------------------------------------------------------------------------------------- daemons

    @property
    def munged(self) -> Daemon:
        """Signs and checks every message between the daemons."""
        folder = self.state / "munge"
        command = (
            program("munged"), "--foreground", "--force", "--num-threads=4", f"--key-file={folder}/key",
            f"--socket={folder}/socket", f"--pid-file={folder}/pid", f"--seed-file={folder}/seed",
            f"--log-file={self.state}/log/munged.log",
        )  # fmt: skip
        return Daemon("munged", command, self.state, self.environment)

    @property
    def controller(self) -> Daemon:
        """slurmctld."""
        return Daemon("controller", (program("slurmctld"), "-D"), self.state, self.environment)

    def node(self, name: str) -> Daemon:
        """The slurmd of a node."""
        if name not in self.nodes:
            raise UserError(f"{name}: no such node; {suggest(name, self.nodes)}")
        # -b: the node says that it was off, and the controller ends its view of jobs that ran there.
        environment = {**self.environment, "SLURMD_NODENAME": name}
        return Daemon(name, (program("slurmd"), "-D", "-b", "-N", name), self.state, environment)

    @property
    def accountants(self) -> list[Daemon]:
        """The database and slurmdbd; none in a cluster without accounting."""
        return accounting.daemons(self.state, self.environment) if self.settings.accounting else []

    @property
    def daemons(self) -> list[Daemon]:
        """All, in the order in which they start."""
        return [self.munged, *self.accountants, self.controller, *(self.node(name) for name in self.nodes)]

    # -------------------------------------------------------------------------------------- what can be done

    def start(self) -> None:
        """Start what does not run and wait until every node takes jobs."""
        configuration.write(self.settings, self.state)
        self.munged.start()
        self._wait_for(self.munged, lambda: answers(self.state / "munge" / "socket"))
        if self.settings.accounting:
            self._start_accounting()
        self.controller.start()
        for name in self.nodes:
            self.node(name).start()
        self.wait_until_ready(self.nodes)

    def _start_accounting(self) -> None:
        database, slurmdbd = self.accountants
        accounting.prepare(self.state, self.environment)
        database.start()
        self._wait_for(database, lambda: answers(self.state / "database.socket"))
        slurmdbd.start()
        self._wait_for(slurmdbd, lambda: accounting.is_up(self.environment))
        accounting.register(self.settings, self.environment)

    def stop(self, *, patience_seconds: float) -> None:
        """End every daemon and job; given the time to save them, queue and accounts stay in the state folder."""
        self.controller.stop(patience_seconds)
        self.power_off(self.nodes)
        for daemon in reversed([self.munged, *self.accountants]):
            daemon.stop(patience_seconds)

    def power_off(self, names: list[str], *, told: bool = False) -> None:
        """Cut the power of nodes: slurmd, steps and jobs die at one moment and tell nobody.

        The controller finds a silent node after node_timeout and some seconds of asking again. ``told`` marks the
        nodes DOWN at once, as a site's monitor does.
        """
        daemons = [self.node(name) for name in names]
        cut(lambda: {process for name in names for process in self._processes(name)})
        for daemon in daemons:
            daemon.pid_file.unlink(missing_ok=True)
        if told:
            words = f"NodeName={','.join(names)} State=DOWN Reason=power"
            answer = self.run("scontrol", "update", *words.split())
            if answer.returncode != 0:
                raise UserError(f"scontrol update {words}: {answer.stderr}")

    def power_on(self, names: list[str]) -> None:
        """Start the nodes that are off and wait until they take jobs."""
        for name in names:
            self.node(name).start()
        self.wait_until_ready(names)

    def restart_controller(self) -> None:
        """End slurmctld, which saves its state, and start it again on what it saved."""
        self.controller.stop(60)
        self.controller.start()
        self.wait_until_ready([name for name in self.nodes if self.node(name).process is not None])

    # -------------------------------------------------------------------------------------- looking

    def run(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a SLURM command on this cluster."""
        return subprocess.run([program(name), *words], env=self.environment, capture_output=True, text=True)

    def node_states(self) -> dict[str, str]:
        """What the controller says of each node; empty where it does not answer. A trailing * marks a silent node."""
        answer = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", "--partition=main")
        lines = [line.split() for line in answer.stdout.splitlines()]
        return {words[0]: words[1] for words in lines if len(words) == 2}

    def wait_until_ready(self, names: list[str]) -> None:
        """Wait until the controller answers and these nodes take jobs; UserError names the log of what does not."""
        self._wait_for(self.controller, self.node_states)
        for name in names:
            self._wait_for(self.node(name), partial(self._takes_jobs, name))

    def _takes_jobs(self, name: str) -> bool:
        return self.node_states().get(name) in TAKES_JOBS

    def _wait_for(self, daemon: Daemon, ready: Callable[[], object]) -> None:
        log = self.state / "log" / f"{daemon.name}.log"
        if not wait(lambda: daemon.process is None or bool(ready()), READY_SECONDS):
            raise UserError(f"{daemon.name} is not ready after {READY_SECONDS} s; see {log} and {daemon.words}")
        if daemon.process is None:
            raise UserError(f"{daemon.name} ended while it started; see {log} and {daemon.words}")

    def _processes(self, name: str) -> set[Process]:
        """All processes of a node: its slurmd, and the steps and jobs, which are no children of slurmd.

        They inherit the node's name and configuration in their environment; a process that a job starts with an empty
        one is found by its parents.
        """
        marks = {f"SLURM_CONF={self.environment['SLURM_CONF']}", f"SLURMD_NODENAME={name}"}
        parents = {process.pid: process.parent for process in everything()}
        marked = {pid for pid in parents if marks <= environment_of(pid)}
        if slurmd := self.node(name).process:
            marked.add(slurmd.pid)
        return {process for pid in parents if _is_below(pid, marked, parents) and (process := Process.of(pid))}


def _is_below(pid: int | None, marked: set[int], parents: dict[int, int | None]) -> bool:
    while pid:
        if pid in marked:
            return True
        pid = parents.get(pid)
    return False


# ------------------------------------------------------------------------------------------ commands


def up(state: Path, asked: dict[str, str]) -> Cluster:
    """Bring a cluster up, or complete a running one; what is not asked for stays as it was, else has its default."""
    packages = missing(accounting=asked.get("accounting") != "false")
    if packages:
        raise UserError(f"SLURM is incomplete here: `make slurm-up` installs {' '.join(packages)} (root on Debian)")
    Settings.parse(asked)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(state):
        before = load(state)
        if before is None and any(state.iterdir()):
            raise UserError(f"{state}: a folder with other things in it; choose a new one with state=/tmp/NAME")
        settings = Settings.parse({**(before.words() if before else {}), **asked})
        if before and any(daemon.process for daemon in Cluster(before, state).daemons):
            _refuse_changes(before, settings, state)
        elif "port" not in asked:
            settings = replace(settings, port=free_block(settings.num_ports))
        save(settings, state)
        cluster = Cluster(settings, state)
        cluster.start()
        return cluster


def _refuse_changes(before: Settings, settings: Settings, state: Path) -> None:
    now = settings.words()
    changed = [f"{key}={value}" for key, value in before.words().items() if now[key] != value]
    if changed:
        raise UserError(
            f"{state}: the cluster runs with {' '.join(changed)}; end it first: python -m slurm.dev down state={state}"
        )


def down(state: Path, *, keep: bool) -> bool:
    """End a cluster's processes and remove its state folder; ``keep`` leaves queue, accounts and logs for the next up.

    False where there was none.
    """
    if not state.exists():
        return False
    with _locked(state):
        settings = load(state)
        if settings is None:
            return False
        Cluster(settings, state).stop(patience_seconds=60 if keep else 2)
        if not keep:
            shutil.rmtree(state)
    return True


@contextlib.contextmanager
def changing(state: Path) -> Iterator[Cluster]:
    """The cluster of a state folder, while no other command changes it."""
    if not state.exists():
        Cluster.at(state)
    with _locked(state):
        yield Cluster.at(state)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One command at a time: a lock on the folder itself, so that nothing is left when the folder is removed."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not state.exists() or os.fstat(folder).st_ino != state.stat().st_ino:
            raise UserError(f"{state}: taken down by another command at this moment; call again")
        yield
    finally:
        os.close(folder)
