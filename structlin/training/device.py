"""On which device does a run train, and how exact is it told to be? A GPU that cannot be used is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from structlin.config.placement import Placement
from structlin.config.science import Science
from structlin.errors import UserError
from structlin.runs.devices import VARIABLE
from structlin.runs.driver import LEAST_DRIVER, driver_version, is_too_old, wheel_for
from structlin.runs.machine import gpu_names

GB = 1e9
CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def pick_device(placement: Placement) -> torch.device:
    """The device asked for; under auto CUDA where there is a GPU.

    UserError where a GPU is asked for, or is there, and torch cannot use it: training would be a hundred times slower
    on one thread of the processor, and its speed be kept under the name of the GPU.
    """
    wants_gpu = placement.device == "cuda" or (placement.device == "auto" and bool(gpu_names()))
    if torch.cuda.is_available():
        problem = unsupported() if placement.device != "cpu" else ""
    else:
        problem = unusable(gpu_names(), driver_version(), torch.__version__, torch.version.cuda or "")
    if wants_gpu and problem:
        raise UserError(f"device={placement.device}, but {problem}")
    if placement.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(placement.threads)
        return torch.device("cpu")
    return torch.device("cuda")


def unusable(gpus: Sequence[str], driver: str, version: str, cuda: str) -> str:
    """Why torch of a version, built for a CUDA (or none), sees no GPU under a driver (or none), and the way out."""
    value = os.environ.get(VARIABLE)
    shown = "" if value is None else f" with {VARIABLE}={value}"
    there = f"there is a GPU ({gpus[0]})" if gpus else "a GPU is wanted"
    if not cuda:
        return (
            f"{there} and torch {version} is built without CUDA, so torch sees no CUDA device here{shown}: "
            f"make setup CUDA={wheel_for(driver)}; or use device=cpu"
        )
    if is_too_old(driver, cuda):
        least = LEAST_DRIVER[int(cuda.split(".")[0])]
        return (
            f"{there}, but its driver {driver} is too old for torch {version}, whose CUDA {cuda} needs {least} or "
            f"newer: make setup CUDA={wheel_for(driver)}, or a newer driver; or use device=cpu"
        )
    if gpus:
        return f"{there}, but torch {version} sees no CUDA device{shown}: does nvidia-smi answer? Or use device=cpu"
    return f"torch sees no CUDA device here{shown}; use device=cpu or device=auto"


def unsupported() -> str:
    """Why the GPU that torch sees cannot run this build, or nothing."""
    major, minor = torch.cuda.get_device_capability()
    built = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list() if name.startswith("sm_")]
    least = min((int(name.rstrip("af")) for name in built), default=0)
    if 10 * major + minor >= least:
        return ""
    return (
        f"torch {torch.__version__} is built for compute capability {least / 10:g} and newer, and "
        f"{torch.cuda.get_device_name()} has {major}.{minor}: make setup CUDA=12 has more; or use device=cpu"
    )


def gpu_bytes(placement: Placement, device: torch.device) -> float:
    """Memory that a run is to fit: as the profile says, or that of the GPU; of a part of one (MIG) the part's."""
    is_gpu = device.type == "cuda" and torch.cuda.is_available()
    own = float(torch.cuda.get_device_properties(device).total_memory) if is_gpu else 0.0
    asked = placement.gpu_memory_gb * GB
    return min(asked, own) if asked and own else asked or own


def settle(device: torch.device, placement: Placement, science: Science) -> None:
    """Tell a GPU's libraries what they may do: TF32 where the science asks for it, only repeatable sums on demand."""
    is_gpu = device.type == "cuda"
    torch.set_float32_matmul_precision("high" if is_gpu and science.model.dtype == "tf32" else "highest")
    torch.use_deterministic_algorithms(placement.deterministic and is_gpu)
    # What an empty tensor holds is read by nobody; filling it would cost a pass over memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if is_gpu and placement.deterministic:
        # Flash attention adds the gradient of q up atomically beyond 256 tokens; memory-efficient attention does not
        # where it is told to be deterministic.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)
        if not os.environ.get(CUBLAS_WORKSPACE):
            os.environ[CUBLAS_WORKSPACE] = ":4096:8"
    elif is_gpu:
        torch.backends.cuda.enable_flash_sdp(True)
        torch.backends.cuda.enable_cudnn_sdp(True)
