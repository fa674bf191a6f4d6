"""What is saved so that a run goes on as if nothing had happened? Model, optimizer, step and random state.

Batches, rates and the horizon are pure functions of the step and are not saved. Files are written beside and
renamed, and read with weights_only=True: nothing read from disk is ever executed.

    structlin checkpoint 1 <SHA-256 of the rest>\n
    what torch.save wrote

torch checks nothing that it reads, and a changed bit would be trained on: the checksum is compared first.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from structlin.host.files import write_atomically
from structlin.runs.checkpoints import path_of, step_of
from structlin.training.optim import names_of, portable
from structlin.training.world import World

_MAGIC = b"structlin checkpoint 1 "
_HEADER_BYTES = len(_MAGIC) + 64 + 1
GUIDE = ".guide.weight"
"""How the name of a guide ends (nn/guide.py)."""
_ZIP = b"PK"
"""How a file begins that was written before there were checksums."""


class Damaged(ValueError):
    """A checkpoint is not what was written."""


def state_of(step: int, model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> dict[str, Any]:
    """All that a checkpoint holds: whole tensors by the names of the model, whatever the number of ranks.

    Complete on the first rank of the world only, but every rank has to ask for it.
    """
    return {
        "step": step,
        "model": world.whole(model.state_dict()),
        "optimizer": world.whole(portable(optimizer.state_dict())),
        "names": names_of(model, optimizer),
        "random_state": torch.get_rng_state(),
    }


def write(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write step-XXXXXXXX.pt; an OSError (full disk) leaves older checkpoints as they were."""

    def fill(stream: IO[bytes]) -> None:
        stream.write(bytes(_HEADER_BYTES))
        hashing = _Hashing(stream)
        torch.save(state, cast(IO[bytes], hashing))
        stream.seek(0)
        stream.write(_MAGIC + hashing.digest.hexdigest().encode() + b"\n")

    write_atomically(path_of(folder, step), fill)


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a checkpoint into a model and its optimizer; returns the step.

    Damaged as in ``read``; an exception of torch for a file that does not fit.
    """
    return load(read(path), model, optimizer)


def load(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """What ``read`` gave, into a model and its optimizer; returns the step.

    Guides that the model has no more are left out, with their moments; all else has to fit.
    """
    names = names_of(model, optimizer)
    held = state.get("names", names)
    if held != names:
        state = _without_guides(state, held, optimizer, names)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random_state"])
    return int(state["step"])


def _without_guides(
    state: dict[str, Any], held: list[str], optimizer: torch.optim.Optimizer, names: list[str]
) -> dict[str, Any]:
    """The state of a guided model as that of the model alone. Damaged where they differ in more than guides."""
    if unknown := [name for name in set(held) ^ set(names) if not name.endswith(GUIDE) or name in names]:
        raise Damaged(f"it is of another model: {', '.join(sorted(unknown)[:3])}")
    number = {name: place for place, name in enumerate(held)}
    moments = state["optimizer"]["state"]
    kept = {place: moments[number[name]] for place, name in enumerate(names) if number[name] in moments}
    return {
        **state,
        "model": without_guides(state["model"]),
        "optimizer": {**portable(optimizer.state_dict()), "state": kept},
    }


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds. Damaged where it is not what was written, or of another step than its name says."""
    with path.open("rb", buffering=0) as stream:
        begin = _verified(stream)
        # Buffered: torch reads some numbers byte by byte.
        rest = io.BufferedReader(_From(stream, begin))
        state: dict[str, Any] = torch.load(rest, weights_only=True, map_location="cpu")
    if state["step"] != step_of(path):
        raise Damaged(f"it holds step {state['step']}")
    return state


def has_checksum(path: Path) -> bool:
    """Whether a checkpoint was written with a checksum."""
    with path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _verified(stream: io.FileIO) -> int:
    """Where torch's part begins, once all bytes are known to be those that were written."""
    header = stream.read(_HEADER_BYTES)
    if header.startswith(_MAGIC):
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if header != _MAGIC + digest.encode() + b"\n":
            raise Damaged("its checksum is another")
        return _HEADER_BYTES
    if not header.startswith(_ZIP):
        raise Damaged("it is no checkpoint")
    # An older file: the checksums of the zip format say less, but a changed bit they do tell.
    with zipfile.ZipFile(stream) as archive:
        if (name := archive.testzip()) is not None:
            raise Damaged(f"the checksum of {name} is another")
    return 0


def without_guides(weights: dict[str, Any]) -> dict[str, Any]:
    """The weights of a model's state alone."""
    return {name: value for name, value in weights.items() if not name.endswith(GUIDE)}


class _Hashing:
    """A stream for torch.save that hashes what goes through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


class _From(io.RawIOBase):
    """The rest of a file from ``begin`` on, as a file of its own."""

    def __init__(self, stream: io.FileIO, begin: int) -> None:
        self._stream, self._begin = stream, begin
        stream.seek(begin)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._stream.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            offset += self._begin
        return self._stream.seek(offset, whence) - self._begin
