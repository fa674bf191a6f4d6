"""How does sacct get its answers? A database on a unix socket, slurmdbd before it, and the cluster's name in both."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from slurm.dev.packages import program
from slurm.dev.processes import Daemon
from slurm.dev.settings import Settings
from structlin.errors import UserError

SYSTEM_TABLES = Path("/usr/share/mysql")


def daemons(state: Path, environment: dict[str, str]) -> list[Daemon]:
    """The database and slurmdbd, in the order in which they start."""
    return [
        Daemon("database", (*_mariadbd(state), f"--socket={state}/database.socket"), state, environment),
        Daemon("slurmdbd", (program("slurmdbd"), "-D"), state, environment),
    ]


def _mariadbd(state: Path) -> tuple[str, ...]:
    # The state folder is its owner's alone, so the database needs no users of its own.
    return (
        program("mariadbd"), "--no-defaults", f"--datadir={state}/database", f"--user={getpass.getuser()}",
        "--skip-networking", "--skip-grant-tables", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
        "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=off",
    )  # fmt: skip


def prepare(state: Path, environment: dict[str, str]) -> None:
    """Make the database's system tables, once per state folder."""
    done = state / "database" / "prepared"
    if done.exists():
        return
    # The server reads one statement a line before the tables' own script.
    script = "CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n"
    for name in ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"):
        script += (SYSTEM_TABLES / name).read_text()
    answer = subprocess.run(
        [*_mariadbd(state), "--bootstrap"], input=script, env=environment, capture_output=True, text=True
    )
    if answer.returncode != 0:
        log = state / "log" / "database.out"
        log.write_text(answer.stdout + answer.stderr)
        raise UserError(f"the database's system tables cannot be made; see {log}")
    done.touch()


def is_up(environment: dict[str, str]) -> bool:
    """Does slurmdbd answer?"""
    return _sacctmgr(environment, "--noheader", "list", "cluster").returncode == 0


def register(settings: Settings, environment: dict[str, str]) -> None:
    """Tell slurmdbd the cluster's name and, where asked, the limit of submitted jobs."""
    commands = [["add", "cluster", "dev"]]
    if settings.has_limits:
        user = getpass.getuser()
        commands += [
            ["add", "account", "dev", "Cluster=dev"],
            ["add", "user", user, "Account=dev", "DefaultAccount=dev"],
        ]
    if settings.max_submit:
        commands.append(["modify", "qos", "normal", "set", f"MaxSubmitJobsPerUser={settings.max_submit}"])
    if settings.max_wall:
        commands.append(["modify", "qos", "normal", "set", f"MaxWall={settings.max_wall}", "Flags=DenyOnLimit"])
    for words in commands:
        answer = _sacctmgr(environment, *words)
        # What is there from an earlier start is "nothing new" or "already exists", with exit code 1.
        if answer.returncode != 0 and not any(said in answer.stdout.lower() for said in ("nothing new", "already")):
            raise UserError(f"sacctmgr {' '.join(words)}: {answer.stdout} {answer.stderr}")


def _sacctmgr(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("sacctmgr"), "-i", *words], env=environment, capture_output=True, text=True)
