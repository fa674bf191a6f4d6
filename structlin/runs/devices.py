"""Which GPUs may this process use, by the names that CUDA knows them by?

CUDA_VISIBLE_DEVICES is read as CUDA reads it (CUDA C++ Programming Guide, "CUDA Environment Variables") and as torch
does where the guide is silent (torch.cuda._parse_visible_devices): indices, UUIDs or their beginnings, and MIG
identifiers. Each is kept as it was written, so that it can be handed on to a process of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from structlin.errors import UserError
from structlin.runs.driver import mig_names

VARIABLE = "CUDA_VISIBLE_DEVICES"
_GPUS = Path("/proc/driver/nvidia/gpus")
_END = re.compile(r"|NoDevFiles|-\d+")
"""What names no device, so that neither it nor anything behind it is visible; NoDevFiles is SLURM's word for none."""
_KINDS = {
    "index": re.compile(r"\d+"),
    "UUID": re.compile(r"GPU-[0-9a-f-]+"),
    "MIG": re.compile(r"MIG-(GPU-[0-9a-f-]+/\d+/\d+|[0-9a-f-]+)"),
}


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine."""

    model: str
    """As its driver calls it, e.g. NVIDIA H200."""
    uuid: str = ""
    """GPU-... as nvidia-smi -L prints it; empty where the driver does not say."""


def listed() -> list[Gpu]:
    """The GPUs that NVIDIA's driver lists, in the order of the bus; none where there is no driver."""
    found = []
    for path in sorted(_GPUS.glob("*/information")) if _GPUS.is_dir() else []:
        lines = (line.partition(":") for line in path.read_text().splitlines())
        values = {key.strip(): value.strip() for key, _, value in lines}
        uuid = values.get("GPU UUID", "")
        if "Model" in values:
            # A driver that has not woken a GPU yet writes question marks.
            found.append(Gpu(values["Model"], "" if "?" in uuid else uuid))
    return found


def here() -> list[str]:
    """``visible`` by the environment and the driver of this machine."""
    return visible(os.environ.get(VARIABLE), listed())


def visible(value: str | None, gpus: Sequence[Gpu]) -> list[str]:
    """Names of the devices that CUDA shows for a value of CUDA_VISIBLE_DEVICES (None: unset), first device first.

    ``gpus``: those of the machine; where there are none, nothing is known and every well-formed name counts. The list
    ends at the first name of no device: -1, NoDevFiles, nothing between two commas, a GPU that is not there, a
    beginning that several UUIDs share, a name of another kind than the first. UserError for a device named twice,
    where CUDA would show none, and for what is no name at all.
    """
    if value is None:
        return [str(index) for index in range(len(gpus))]
    names: list[str] = []
    for name in (word.strip() for word in value.split(",")):
        if _END.fullmatch(name):
            break
        is_other_kind = _kind(name, value) != _kind(names[0] if names else name, value)
        if is_other_kind or not _is_there(name, gpus):
            break
        if _device(name, gpus) in {_device(other, gpus) for other in names}:
            raise UserError(f"{VARIABLE}={value} names a GPU twice, and CUDA then shows none; name each once")
        names.append(name)
    return names


def model(name: str, gpus: Sequence[Gpu]) -> str:
    """The model of the device of a name that ``visible`` gave; a part of a GPU (MIG) is slower, so it is said.

    A part is named with its profile where nvidia-smi lists it. Where only the part's own UUID is known and the GPUs of
    the machine are of several models, no model is made up for it. GPUs count in the order of the bus here; CUDA's own
    begins with the fastest unless CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    if not name.startswith("MIG-"):
        return gpus[_index(name, gpus) or 0].model
    if name in (parts := mig_names()):
        return parts[name]
    index, models = _index(name, gpus), {gpu.model for gpu in gpus}
    if index is None and len(models) > 1:
        return "NVIDIA MIG"
    return f"{gpus[index or 0].model} MIG"


def _kind(name: str, value: str) -> str:
    for kind, form in _KINDS.items():
        if form.fullmatch(name):
            return kind
    raise UserError(
        f"{VARIABLE}={value}: '{name}' names no GPU; write indices (0,1), UUIDs as nvidia-smi -L prints them "
        "(GPU-..., MIG-...), or nothing for none; unset it for all GPUs"
    )


def _index(name: str, gpus: Sequence[Gpu]) -> int | None:
    """Which GPU an index or a UUID means, also that in a MIG identifier; None where it is not there or not known."""
    if name.isdecimal():
        return int(name) if int(name) < len(gpus) else None
    uuid = name.removeprefix("MIG-").partition("/")[0]
    found = [index for index, gpu in enumerate(gpus) if uuid.startswith("GPU-") and gpu.uuid.startswith(uuid)]
    return found[0] if len(found) == 1 else None


def _is_there(name: str, gpus: Sequence[Gpu]) -> bool:
    """Whether a device of this name may be there, for all that is known of the machine."""
    if not gpus or _index(name, gpus) is not None:
        return True
    if name.isdecimal():
        return False
    says_its_gpu = "GPU-" in name
    return not (says_its_gpu and all(gpu.uuid for gpu in gpus))


def _device(name: str, gpus: Sequence[Gpu]) -> object:
    """What is equal for two names of one device."""
    if name.startswith("MIG-"):
        return name
    index = int(name) if name.isdecimal() else _index(name, gpus)
    return name if index is None else index
