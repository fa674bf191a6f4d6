"""A GPU that is not there, as torch, Triton and Inductor ask for one."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension

from structlin.kernels import backends
from structlin.kernels.attention import attention

SOURCE = Path(__file__).with_name("device.cpp")
CAPABILITY = (9, 0)


def pretend() -> None:
    """Let torch take a GPU of ``CAPABILITY`` for there. SystemExit for a build without CUDA."""
    if torch.version.cuda is None:
        raise SystemExit(
            f"torch {torch.__version__} is built without CUDA; in an environment of its own: "
            "python -m venv FAKE; FAKE/bin/pip install torch==2.13.0 numpy"
        )
    library = Path(tempfile.gettempdir()) / f"structlin-fake-cuda-{torch.__version__}.so"
    if not library.exists():
        include = [f"-I{path}" for path in cpp_extension.include_paths()]
        abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
        where = Path(torch.__file__).parent / "lib"
        build = ["g++", "-shared", "-fPIC", "-std=c++20", abi, *include, str(SOURCE), f"-L{where}"]
        subprocess.run([*build, "-ltorch_cpu", "-lc10", "-o", str(library)], check=True)
    assert ctypes.CDLL(str(library)).structlin_no_context() == 0
    torch.cuda.get_device_capability = lambda device=None: CAPABILITY
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.cuda.get_device_name = lambda *_: "no GPU"
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    setattr(attention, "functional", _Functional())  # noqa: B010 (torch's module, as that room sees it)
    backends.has_triton.cache_clear()


class _Functional:
    """torch.nn.functional, whose attention takes the kernels that a GPU would choose: the choice asks the driver."""

    def __getattr__(self, name: str) -> Any:
        return _flash if name == "scaled_dot_product_attention" else getattr(torch.nn.functional, name)


def _flash(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = True, scale: float | None = None) -> Tensor:
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (tensor.to(torch.bfloat16) for tensor in (q, k, v))
    aten = torch.ops.aten
    if q.dtype == torch.float32:
        found: Tensor = aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True, scale=scale)[0]
    else:
        found = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=scale)[0]
    return found


def pretend_to_compile() -> None:
    """Let Inductor find the properties of a GPU, and Triton."""
    import torch._inductor.scheduler as scheduler

    found = {"name": "no GPU", "major": 9, "minor": 0, "multi_processor_count": 132, "total_memory": 80 * 10**9}
    found |= {"regs_per_multiprocessor": 65536, "max_threads_per_multi_processor": 2048, "warp_size": 32}
    found |= {"shared_memory_per_block": 49152, "shared_memory_per_block_optin": 232448, "L2_cache_size": 50 << 20}
    properties = SimpleNamespace(**found, gcnArchName="", max_threads_per_block=1024)
    setattr(torch.cuda, "_get_device_properties", lambda *_: properties)  # noqa: B010 (absent without a driver)
    setattr(torch.cuda, "get_device_properties", lambda *_: properties)  # noqa: B010 (of another class)
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 1
    torch.cuda._lazy_init = lambda: None
    setattr(scheduler, "has_triton", lambda *_, **__: True)  # noqa: B010 (as that module sees it)
