"""Which Debian packages does the development cluster need, and are they here?

They are looked for by program, so that a machine with SLURM from elsewhere needs no package. On Debian, as root,
`install` fetches what is missing by apt-get, without starting a service: the cluster starts its own daemons from its
state folder and reads nothing of /etc/slurm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from structlin.errors import UserError

# A user's PATH leaves out the folders of the daemons.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
CORE = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "scontrol": "slurm-client",
}
# The full mariadb-server upgrades perl; the core package has the one daemon that slurmdbd needs.
ACCOUNTING = {"slurmdbd": "slurmdbd", "sacct": "slurm-client", "mariadbd": "mariadb-server-core"}


def program(name: str) -> str:
    """The path of a program that must be here."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        raise UserError(f"{name} is not installed: `make slurm-up` as root, or {_by_hand(missing(accounting=True))}")
    return path


def missing(*, accounting: bool) -> list[str]:
    """The Debian packages whose programs are not here, sorted."""
    wanted = {**CORE, **ACCOUNTING} if accounting else CORE
    return sorted({package for name, package in wanted.items() if shutil.which(name, path=SEARCH_PATH) is None})


def install(*, accounting: bool) -> list[str]:
    """Install what is missing by apt-get and return its names; nothing is done where all is here."""
    packages = missing(accounting=accounting)
    if not packages:
        return []
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(f"SLURM is incomplete and only root on Debian can install it here: {_by_hand(packages)}")
    print(f"installing {' '.join(packages)}", file=sys.stderr)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    if _apt(command) != 0:
        # The lists of a fresh image are empty or older than the archive: fetch them once and try again.
        _apt(["apt-get", "update", "-qq"])
        if _apt(command) != 0:
            raise UserError(f"apt-get failed, its words stand above; when it works again: {_by_hand(packages)}")
    return packages


def _apt(command: list[str]) -> int:
    # RUNLEVEL=1 (single user) makes invoke-rc.d leave the packages' own services unstarted.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return subprocess.run(command, env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL).returncode


def _by_hand(packages: list[str]) -> str:
    return f"apt-get install -y --no-install-recommends {' '.join(packages)}"
