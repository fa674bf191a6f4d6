"""The GPU's kernels equal the reference (under Triton's interpreter), compile for GPUs, and serve where they should."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import torch

from structlin.kernels import backends
from structlin.kernels.backends import backend_name
from structlin.kernels.products import op
from structlin.kernels.products.layout import ProductSizes
from tests.kernels.products import gpu as gpu_kernels
from tests.kernels.products.gpu import SHARED_BYTES, TENSOR_CORES

# Float32 as in the reference of the other backends; bfloat16 keeps 8 bits, and z is rounded to them in between.
DTYPES = (torch.float32, torch.bfloat16)
KERNELS = ("map_rows", "factor_gradients")
LIMITS = {"torch.float32": 3e-6, "torch.bfloat16": 4 * 2**-8}


@pytest.fixture(scope="module")
def interpreted():
    """What tests/kernels/products/interpreted.py found in a process whose kernels are interpreted."""
    return gpu_kernels.interpreted("tests.kernels.products.interpreted")


@pytest.mark.parametrize("dtype", LIMITS)
def test_forward_and_gradients_equal_the_reference(interpreted, dtype):
    assert len(interpreted[dtype]) == 7
    for case, errors in interpreted[dtype].items():
        assert len(errors) == 4
        assert max(errors) <= LIMITS[dtype], case


def test_the_kernels_ran_and_are_recorded(interpreted):
    # Forward and the gradient of x are one kernel, the gradients of both factors the other: 7 cases in 2 dtypes. Of the
    # two of rank 1 all gradients are a third.
    assert interpreted["launches"] == {"_ruled_map": 24, "_ruled_gradients": 10, "_ruled_whole": 4}
    assert interpreted["backend"].startswith("triton 3.")
    assert interpreted["backend"].endswith("(interpreter)")


def test_layers_of_several_thetas(interpreted):
    assert set(interpreted["thetas"]) == {"btt", "g2", "tt3", "btt7"}
    assert all(max(errors) <= LIMITS["torch.float32"] for errors in interpreted["thetas"].values())


def test_flops_equal_those_of_the_plain_pair(interpreted):
    assert all(counted == plain > 0 for counted, plain in interpreted["flops"])


def test_torch_compile_keeps_one_graph(interpreted):
    assert max(interpreted["compiled"]) <= LIMITS["torch.float32"]


def test_no_rows_and_large_inner_sizes(interpreted):
    assert interpreted["no rows"] == [0, 64]
    assert max(interpreted["not fused"]) <= LIMITS["torch.float32"]
    assert interpreted["launches not fused"] == 0


# ---- compiled for a GPU that need not be here -----------------------------------------------------------------------

WIDE = ProductSizes(g=32, b=1, a=32, r=4, f=32, d=1, e=32, a_first=True)
LARGEST = ProductSizes(g=8, b=1, a=128, r=1, f=8, d=1, e=128, a_first=True)


def compiled(kernel_name, sizes, dtype, choice, capability):
    """A kernel's shared memory in bytes and its PTX."""
    from structlin.kernels.products import triton_kernels, triton_path

    is_map = kernel_name == "map_rows"
    constants_of = triton_path.map_constants if is_map else triton_path.gradient_constants
    config = (triton_path.MAP_BLOCKS if is_map else triton_path.GRADIENT_BLOCKS)[choice]
    types = {"rows": "i32", "share": "i32", "d_first": "*fp32", "d_second": "*fp32"}
    constants = constants_of(triton_path.layout(sizes), dtype, 65_536)
    return gpu_kernels.compiled(getattr(triton_kernels, kernel_name), constants, config, types, dtype, capability)


@pytest.mark.parametrize("kernel", ["map_rows", "factor_gradients"])
@pytest.mark.parametrize("capability", [80, 90])
def test_bfloat16_compiles_to_tensor_cores(kernel, capability, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    shared, ptx = compiled(kernel, WIDE, torch.bfloat16, 2, capability)
    assert 0 < shared <= SHARED_BYTES[capability]
    assert TENSOR_CORES in ptx


@pytest.mark.parametrize("kernel", ["map_rows", "factor_gradients"])
def test_the_smallest_blocks_suit_the_largest_layer_that_is_fused(kernel, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from structlin.kernels.limits import LARGEST_INNER
    from structlin.kernels.products import triton_path

    assert max(LARGEST.a, LARGEST.e) == LARGEST_INNER
    assert triton_path.fuses(LARGEST)
    shared, _ = compiled(kernel, LARGEST, torch.float32, 0, 80)
    assert shared <= SHARED_BYTES[80]


def choices(sizes, dtype, kernel="map_rows", rows=65_536):
    """What the rule tries, in order."""
    from structlin.kernels.products import triton_path

    layout = triton_path.layout(sizes)
    if kernel == "map_rows":
        return triton_path.map_choices(triton_path.map_constants(layout, dtype, rows), dtype.itemsize)
    return triton_path.gradient_choices(triton_path.gradient_constants(layout, dtype, rows), dtype.itemsize)


def test_choices_that_spill_are_not_tried():
    from structlin.kernels.products import triton_path

    assert choices(WIDE, torch.bfloat16) == [triton_path.MAP_BLOCKS[index] for index in (5, 4, 2, 1, 0)]
    assert len(choices(WIDE, torch.float32)) < len(triton_path.MAP_BLOCKS)
    assert choices(LARGEST, torch.float32) == triton_path.MAP_BLOCKS[:1]


def test_blocks_are_a_rule_of_sizes_alone():
    """Equal in another process, and whatever the number of rows: of a batch, or of a part of it."""
    code = (
        "import torch\nfrom tests.kernels.products.test_triton import *\n"
        "print([[str(b) for b in choices(s, d, k)] for s in (WIDE, LARGEST) for d in DTYPES for k in KERNELS])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=gpu_kernels.ROOT, capture_output=True, text=True, check=True
    )
    mine = [[str(b) for b in choices(s, d, k)] for s in (WIDE, LARGEST) for d in DTYPES for k in KERNELS]
    assert ast.literal_eval(done.stdout) == mine
    for kernel in KERNELS:
        assert choices(WIDE, torch.bfloat16, kernel, 1) == choices(WIDE, torch.bfloat16, kernel, 100_001)


def test_a_layer_that_is_small_has_small_blocks():
    small = ProductSizes(g=4, b=1, a=16, r=1, f=4, d=1, e=16, a_first=True)
    assert all(one.kwargs["F_B"] <= 4 for one in choices(small, torch.bfloat16))


class Refusing:
    """A kernel that takes no more than so many rows a block, as a GPU of little shared memory does."""

    def __init__(self, most):
        self.most, self.launched = most, []

    def __getitem__(self, grid):
        def launch(*arguments, T_B, **constants):
            if self.most < T_B:
                raise type("OutOfResources", (Exception,), {})("shared memory")
            self.launched.append(T_B)

        return launch


def test_what_does_not_fit_gives_way_to_the_next_smaller_and_is_kept():
    from structlin.kernels.blocks import Blocks, Ruled, taken

    several = [Blocks({"T_B": size}, 4) for size in (64, 32, 16)]
    asked = []
    kernel = Refusing(32)
    ruled = Ruled(kernel, lambda constants, size: asked.append(size) or several)
    for _ in range(2):
        ruled[lambda chosen: (1,)](torch.zeros(1), s=(7, 9), PRECISION="ieee")
    assert kernel.launched == [32, 32]
    assert asked == [4]
    assert [blocks for key, blocks in taken().items() if "(7, 9) 32 bits" in key] == ["T_B=32 warps=4"]
    with pytest.raises(Exception, match="shared memory"):
        Ruled(Refusing(8), lambda constants, size: several)[None](torch.zeros(1), s=(), PRECISION="ieee")


@pytest.mark.parametrize("rows", [1, 511, 1024, 65_536, 100_001])
def test_shares_cover_all_rows(rows):
    from structlin.kernels.products import triton_path

    shares, share = triton_path.split_rows(rows, triton_path.layout(WIDE))
    assert (shares - 1) * share < rows <= shares * share
    assert share % 64 == 0


# ---- where they serve -----------------------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """As if torch saw a CUDA GPU of this capability."""

    def seen(capability):
        backends.has_triton.cache_clear()
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return torch.device("cuda")

    yield seen
    backends.has_triton.cache_clear()


def test_gpus_with_triton_are_served(gpu):
    device = gpu((9, 0))
    assert backend_name(device, torch.bfloat16).startswith("triton 3.")
    assert backend_name(device, torch.float32).startswith("triton 3.")
    assert backend_name(device, torch.float64) == "torch"


def test_older_gpus_and_missing_triton_are_torch(gpu, monkeypatch):
    assert backend_name(gpu((7, 5)), torch.bfloat16) == "torch"
    device = gpu((9, 0))
    monkeypatch.setattr(backends.util, "find_spec", lambda name: None)
    assert backend_name(device, torch.bfloat16) == "torch"


def test_recomputed_work_is_reported_apart():
    s = WIDE
    z = 2 * 10 * s.used_in * s.r * s.f * s.d
    dz = 2 * 10 * s.used_out * s.g * s.b * s.r
    assert op.recomputed_flops(10, s, "cpp") == op.recomputed_flops(10, s, "torch") == z
    assert op.recomputed_flops(10, s, "triton") == z + dz
