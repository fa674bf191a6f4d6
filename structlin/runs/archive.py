"""Where do the files of a packed run lie? In one archive beside where its folder was, read as if it were unpacked.

runs/<id>.zip   the files of runs/<id>/, stored as they are (no compression: checkpoints have none to give)

A file that does not exist in a run's folder is looked for in the run's archive. Whoever goes on with such a run unpacks
it first (``unpack``); a folder that stands beside an archive counts, and the archive does not.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from functools import lru_cache
from pathlib import Path

from structlin.errors import UserError, one_line
from structlin.host.files import replacing

ENDING = ".zip"
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member: equal runs give equal archives."""


def archive_of(run: Path) -> Path:
    """The archive of a run's folder."""
    return run.with_name(run.name + ENDING)


def pack(run: Path) -> Path:
    """Put a run's folder into an archive and remove the folder; the archive. OSError leaves the folder as it was."""
    place = archive_of(run)
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.relative_to(run).as_posix() != "lock")
    with replacing(place) as beside, zipfile.ZipFile(beside, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in files:
            with path.open("rb") as source, archive.open(_member(path, run), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    _verify(place, run, files)
    shutil.rmtree(run)
    return place


def _member(path: Path, run: Path) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(path.relative_to(run).as_posix(), _DATE)
    member.external_attr = path.stat().st_mode << 16
    return member


def _verify(place: Path, run: Path, files: list[Path]) -> None:
    """Every file of the folder stands in the archive, whole; the archive goes where one does not."""
    with zipfile.ZipFile(place) as archive:
        names = {info.filename: info.file_size for info in archive.infolist()}
        wanted = {path.relative_to(run).as_posix(): path.stat().st_size for path in files}
        broken = archive.testzip()
    if names != wanted or broken is not None:
        place.unlink()
        raise UserError(f"{place} did not become what {run} holds (was it changed meanwhile?); the folder stands")


def unpack(run: Path) -> None:
    """Make the folder of a packed run again and remove the archive; nothing where it is not packed.

    UserError where the archive is broken. The folder appears whole or not.
    """
    place = archive_of(run)
    if run.exists() or not place.exists():
        return
    beside = run.with_name(f".{run.name}.{os.urandom(6).hex()}.tmp")
    try:
        with zipfile.ZipFile(place) as archive:
            if (name := archive.testzip()) is not None:
                raise UserError(f"{place}: {name} has changed since it was packed; bring another copy of it back")
            archive.extractall(beside)
        beside.rename(run)
    except zipfile.BadZipFile as error:
        raise UserError(f"{place} cannot be unpacked: {one_line(error)}; bring another copy of it back") from None
    except OSError:
        if not run.exists():  # another process was faster
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    place.unlink(missing_ok=True)


def read_bytes(path: Path, run: Path) -> bytes:
    """A file of a run, from its folder or its archive. FileNotFoundError where neither has it."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        members = _members(run)
        if members is None:
            raise
    name = path.relative_to(run).as_posix()
    if name not in members:
        raise FileNotFoundError(2, "No such file or directory", str(path))
    with zipfile.ZipFile(archive_of(run)) as archive:
        return archive.read(name)


def listed(folder: Path, run: Path) -> list[str]:
    """Names in a folder of a run, as ``os.listdir``; empty where there is no such folder."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        members = _members(run)
    prefix = folder.relative_to(run).as_posix() + "/"
    found = (name.removeprefix(prefix).partition("/")[0] for name in members or () if name.startswith(prefix))
    return list(dict.fromkeys(found))


def holds(run: Path, folder: str) -> bool:
    """Whether a packed run has files in one of its folders."""
    return any(name.startswith(f"{folder}/") for name in _members(run) or ())


def _members(run: Path) -> frozenset[str] | None:
    """Names in a run's archive; None where it has none."""
    place = archive_of(run)
    try:
        status = place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _names(place, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _names(place: Path, time: int, size: int) -> frozenset[str]:
    try:
        with zipfile.ZipFile(place) as archive:
            return frozenset(archive.namelist())
    except zipfile.BadZipFile as error:
        raise UserError(f"{place} cannot be read: {one_line(error)}; bring another copy of it back") from None
