"""Do the blocks that the rule chooses fit registers? Kernels compiled for GPUs that need not be here.

    python -m bench.blocks [layers=btt1:256,btt1:1024] [capabilities=80,90,100] [out=bench/results]

Needs Triton (its own assembler and disassembler), no GPU. A line is one kernel of one layer in bfloat16: the first
choice of the rule that fits the GPU's shared memory, its registers a thread and its stack (spilled bytes).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from structlin.errors import key_values
from structlin.kernels.blocks import Blocks
from structlin.kernels.limits import gpu_form
from structlin.kernels.products.layout import ProductSizes
from structlin.nn.linear import product_shapes
from structlin.structure import plan_theta, theta_of

LAYERS = "btt1:256,btt1:512,btt1:1024,btt1:2048,btt1:4096,btt11:2048,btt11:4096,g2:2048"
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
ROWS = 65_536
USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)")


def sizes_of(name: str, width: int) -> ProductSizes:
    """Both products of a square layer."""
    plan = plan_theta(theta_of(name), width, width)
    A, B = product_shapes(plan)
    return ProductSizes.of(*((A, B) if plan.a_first else (B, A)), plan.a_first)


def kernels_of(sizes: ProductSizes) -> list[tuple[str, Any, dict[str, Any], list[Blocks]]]:
    """Name, kernel, constants and choices of what a step of this layer launches."""
    from structlin.kernels.products import triton_kernels, triton_path

    layout = triton_path.layout(sizes)
    mapped = triton_path.map_constants(layout, torch.bfloat16, ROWS)
    summed = triton_path.gradient_constants(layout, torch.bfloat16, ROWS)
    found = [("map_rows", triton_kernels.map_rows, mapped, triton_path.map_choices(mapped, 2))]
    if triton_path.is_whole(sizes):
        whole = triton_path.whole_constants(layout, torch.bfloat16, ROWS)
        kernel = triton_kernels.whole_gradients
        return [*found, ("whole_gradients", kernel, whole, triton_path.whole_choices(whole, 2))]
    kernel = triton_kernels.factor_gradients
    return [*found, ("factor_gradients", kernel, summed, triton_path.gradient_choices(summed, 2))]


def compile_for(kernel: Any, constants: Mapping[str, Any], blocks: Blocks, capability: int) -> dict[str, int]:
    """Registers, stack and local bytes a thread, and shared memory of a program."""
    import triton
    import triton.backends.nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {"rows": "i32", "share": "i32", "d_first": "*fp32", "d_second": "*fp32"}
    every = {**constants, **blocks.kwargs}
    signature = {name: "constexpr" if name in every else types.get(name, "*bf16") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name not in every}
    options = {"num_warps": blocks.num_warps, "num_stages": blocks.num_stages}
    source = ASTSource(kernel, signature, every, aligned)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        done = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    usage = USAGE.search(done.stdout)
    assert usage is not None, done.stdout
    registers, stack, local = map(int, usage.groups())
    return {"registers": registers, "stack": stack, "local": local, "shared": int(built.metadata.shared)}


def main(arguments: list[str]) -> int:
    """Print the table, and keep it where ``out`` says."""
    values = key_values(arguments, {"layers": LAYERS, "capabilities": "80,90,100", "out": "-"})
    rows: list[dict[str, Any]] = []
    for layer in values["layers"].split(","):
        name, _, width = layer.partition(":")
        sizes = sizes_of(name, int(width))
        assert gpu_form(sizes) != "pair", f"{layer} is two plain products"
        for title, kernel, constants, choices in kernels_of(sizes):
            for capability in map(int, values["capabilities"].split(",")):
                for blocks in choices:
                    found = compile_for(kernel, constants, blocks, capability)
                    if found["shared"] <= SHARED_BYTES[capability]:
                        break
                rows.append({"layer": layer, "kernel": title, "sm": capability, "blocks": str(blocks), **found})
                print(rows[-1], flush=True)
                if values["out"] != "-":
                    (Path(values["out"]) / "blocks.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
