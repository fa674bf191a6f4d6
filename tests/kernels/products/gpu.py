"""Kernels for GPUs that need not be here: run under Triton's interpreter, and compiled to machine code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[3]
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}
# Of the machine code for products in bfloat16.
TENSOR_CORES = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"


def interpreted(module: str) -> Any:
    """The JSON that a module prints in a process of its own, whose kernels are interpreted.

    The interpreter is chosen when a kernel is decorated (TRITON_INTERPRET=1), so it cannot be switched on in a test.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def compiled(
    kernel: Any, constants: dict[str, Any], config: Any, types: dict[str, str], dtype: torch.dtype, capability: int
) -> tuple[int, str]:
    """A kernel's shared memory in bytes and its PTX; arguments of no named type are pointers to ``dtype``."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointer = "*bf16" if dtype == torch.bfloat16 else "*fp32"
    constants = {**constants, **config.kwargs}
    signature = {name: "constexpr" if name in constants else types.get(name, pointer) for name in kernel.arg_names}
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    target = GPUTarget("cuda", capability, 32)
    built = triton.compile(ASTSource(kernel, signature, constants), target=target, options=options)
    return built.metadata.shared, built.asm["ptx"]
