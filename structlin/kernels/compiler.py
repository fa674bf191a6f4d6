"""How does a kernel become machine code? Once per sizes, compiler and processor, by g++ into a cache directory.

The library has a plain C interface, so that a build needs no header of torch and takes one to three seconds. It is
written beside its place and renamed: processes that build the same one at the same time disturb nobody.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Hashable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from structlin.host.files import replacing

_LOG = logging.getLogger(__name__)
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512", "-fno-exceptions", "-shared", "-fPIC")
_PORTABLE = tuple(flag for flag in _FLAGS if not flag.startswith("-mprefer"))
BUILD_SECONDS = 120
HEADERS = Path(__file__).parent

Shape = TypeVar("Shape", bound=Hashable)
Kernel = TypeVar("Kernel")
_missed: set[str] = set()


class Kept(Generic[Shape, Kernel]):
    """A function that builds the kernel of a shape once; None where it cannot be built, which every use notes."""

    def __init__(self, build: Callable[[Shape], Kernel | None]) -> None:
        self._room = build.__module__.split(".")[-2]
        self._build = cache(build)
        self.cache_clear = self._build.cache_clear

    def __call__(self, shape: Shape) -> Kernel | None:
        """The kernel of a shape that it serves."""
        built = self._build(shape)
        if built is None:
            _missed.add(f"{self._room} {shape}")
        return built


def missed() -> list[str]:
    """Kernels that were asked for since ``forget_missed`` and could not be built, by room and shape."""
    return sorted(_missed)


def forget_missed() -> None:
    """Begin to note anew."""
    _missed.clear()


def load(source: Path, defines: Sequence[str]) -> ctypes.CDLL | None:
    """The library of ``source`` with its headers; None (and one log line) where it cannot be built.

    ``defines``: the compiler's -D options.
    """
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_built(compiler, source, tuple(defines))))
    except (OSError, subprocess.SubprocessError) as error:
        _say_once(f"{source.name} could not be built by {compiler}, so the slower torch path is used: {_reason(error)}")
        return None


@lru_cache(maxsize=1)
def works() -> bool:
    """Whether the compiler here makes a kernel that loads: tried on what all of them include."""
    return load(HEADERS / "probe.cpp", ()) is not None


@lru_cache(maxsize=1)
def find_compiler() -> str | None:
    """Path of g++, or None (and one log line) where there is none."""
    found = shutil.which("g++")
    if found is None:
        _say_once("no g++ on the path, so structured layers use the slower torch path; install g++ to have the kernels")
    return found


def cache_directory() -> Path:
    """Where libraries are kept: $XDG_CACHE_HOME/structlin/kernels, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "structlin" / "kernels"


def _built(compiler: str, source: Path, defines: tuple[str, ...]) -> Path:
    flags = _FLAGS if platform.machine() in ("x86_64", "AMD64") else _PORTABLE
    headers = (*sorted(HEADERS.glob("*.hpp")), *sorted(source.parent.glob("*.hpp")))
    texts = [path.read_text() for path in (source, *headers)]
    identity = (*texts, version(compiler), _processor(), *flags, *defines)
    key = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:24]
    target = cache_directory() / f"{source.parent.name}-{key}.so"
    if target.exists():
        return target
    with replacing(target) as beside:
        command = [compiler, *flags, *defines, f"-I{HEADERS}", str(source), "-o", str(beside)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
    return target


@lru_cache(maxsize=4)
def version(compiler: str) -> str:
    """The first line of ``g++ --version``."""
    done = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
    return done.stdout.partition("\n")[0]


@lru_cache(maxsize=1)
def _processor() -> str:
    """What -march=native may depend on: the model and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    kept = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.split("\t")[0].split(":")[0].strip() in kept))


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", None)
    return output.strip().splitlines()[0] if output and output.strip() else str(error)


@lru_cache(maxsize=16)
def _say_once(message: str) -> None:
    _LOG.warning(message)
