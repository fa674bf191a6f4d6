"""What does NVIDIA's driver say of this machine, and does it fit the torch that is installed? Without torch.

The driver names itself in /proc; the CUDA build of torch stands in the version of its wheel. What a GPU can do and what
its parts (MIG) are called, nvidia-smi says, where it is.
"""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

_VERSION = Path("/proc/driver/nvidia/version")
LEAST_DRIVER = {13: 580, 12: 525}
"""CUDA of a build -> the oldest driver series that it runs on (CUDA release notes, minor version compatibility)."""
SECONDS = 20
_MIG = re.compile(r"^\s+MIG\s+(?P<profile>\S+)\s.*\(UUID:\s*(?P<uuid>MIG-[^)]+)\)")
_GPU = re.compile(r"^GPU \d+: (?P<model>.+?) \(UUID:")


def driver_version() -> str:
    """Such as 580.65.06; empty where there is no driver."""
    try:
        found = re.search(r"Module\s+(?:for \S+\s+)?(\d+\.\d+(?:\.\d+)?)", _VERSION.read_text())
    except OSError:
        return ""
    return found.group(1) if found else ""


def is_too_old(driver: str, cuda: str) -> bool:
    """Whether a driver is older than a CUDA build of torch needs, such as 535.1 for 13.0; what is unknown is not."""
    least = LEAST_DRIVER.get(int(cuda.split(".")[0])) if cuda else None
    return bool(driver) and least is not None and int(driver.split(".")[0]) < least


def torch_is_cpu_build() -> bool:
    """Whether the installed torch says of itself that it knows no CUDA; does not import it."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def wheel_for(driver: str) -> str:
    """What to give ``make setup CUDA=``: by the driver, 13 where none is known."""
    return "12" if is_too_old(driver, "13.0") else "13"


@lru_cache(maxsize=1)
def mig_names() -> dict[str, str]:
    """The parts of GPUs by their UUIDs, as torch calls them: "NVIDIA A100-SXM4-40GB MIG 1g.5gb"; none without MIG."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_parts(done.stdout)


def read_parts(listed: str) -> dict[str, str]:
    """The same from what ``nvidia-smi -L`` prints."""
    found, model = {}, ""
    for line in listed.splitlines():
        if gpu := _GPU.match(line):
            model = gpu["model"]
        elif part := _MIG.match(line):
            found[part["uuid"]] = f"{model} MIG {part['profile']}"
    return found
