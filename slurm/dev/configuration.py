"""Which files does SLURM read? The templates, filled from the settings, in the state folder."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from pathlib import Path
from string import Template

from slurm.dev.settings import Settings
from structlin.host.files import replacing

TEMPLATES = Path(__file__).parent / "templates"
FOLDERS = ("munge", "controller", "run", "log", "gpu", "spool", "database")


def write(settings: Settings, state: Path) -> None:
    """Make the folders, the munge key, the fake GPUs and the configuration; what is there keeps its contents."""
    for name in FOLDERS:
        (state / name).mkdir(mode=0o700, exist_ok=True)
    for name in node_names(settings):
        (state / "spool" / name).mkdir(exist_ok=True)
    key = state / "munge" / "key"
    if not key.exists():
        _write(key, secrets.token_bytes(128), 0o400)
    for index in range(settings.gpus):
        gpu = state / "gpu" / f"nvidia{index}"
        if not gpu.is_symlink():
            gpu.symlink_to(os.devnull)
    words = _words(settings, state)
    names = ["slurm.conf", "gres.conf", *(["slurmdbd.conf"] if settings.accounting else [])]
    for name in names:
        text = Template((TEMPLATES / name).read_text()).substitute(words)
        # slurmdbd refuses a configuration that others can read.
        _write(state / name, text.encode(), 0o600 if name == "slurmdbd.conf" else 0o644)


def _write(path: Path, contents: bytes, mode: int) -> None:
    """A file that nobody else could read for a moment: it has its mode from the beginning."""
    with (
        replacing(path) as beside,
        os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file,
    ):
        file.write(contents)


def _words(settings: Settings, state: Path) -> dict[str, str]:
    first_node_port = settings.port + 2
    return {
        "state": str(state),
        "host": socket.gethostname().partition(".")[0],
        "user": getpass.getuser(),
        "controller_port": str(settings.port),
        "accounting_port": str(settings.port + 1),
        "node_ports": f"{first_node_port}-{first_node_port + settings.nodes - 1}",
        "nodes": str(settings.nodes),
        "cpus": str(settings.cpus),
        "node_memory": str(settings.memory),
        "gpus": str(settings.gpus),
        "last_gpu": str(settings.gpus - 1),
        "node_timeout": str(settings.node_timeout),
        "max_array_size": str(settings.max_array_size),
        "max_job_count": str(settings.max_job_count),
        "memory": "JobAcctGatherParams=OverMemoryKill" if settings.enforce_memory else "",
        "accounting": _accounting(settings, state),
    }


def _accounting(settings: Settings, state: Path) -> str:
    if not settings.accounting:
        return "AccountingStorageType=accounting_storage/none"
    lines = [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={settings.port + 1}",
        f"AccountingStoragePass={state}/munge/socket",
        "AccountingStoreFlags=job_comment",
    ]
    if settings.has_limits:
        lines.append("AccountingStorageEnforce=limits,qos")
    return "\n".join(lines)


def node_names(settings: Settings) -> list[str]:
    """n1, n2, ..."""
    return [f"n{index}" for index in range(1, settings.nodes + 1)]
