"""Grouped products equal a loop over their groups (under Triton's interpreter), and compile for GPUs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from structlin.kernels.experts import grouped
from tests.kernels.products.gpu import SHARED_BYTES, TENSOR_CORES, compiled, interpreted

LIMITS = {"torch.float32": 3e-6, "torch.bfloat16": 2 * 2**-8}


@pytest.fixture(scope="module")
def found() -> Any:
    """What tests/kernels/experts/interpreted_groups.py found."""
    return interpreted("tests.kernels.experts.interpreted_groups")


@pytest.mark.parametrize("dtype", LIMITS)
def test_products_and_gradients_equal_a_loop(found: Any, dtype: str) -> None:
    assert len(found[dtype]) == 6
    for case, errors in found[dtype].items():
        assert len(errors) == 3
        assert max(errors) <= LIMITS[dtype], case


def test_layers_of_experts_equal_the_plain_path(found: Any) -> None:
    """Outputs, gradients of tokens and of both factors, with all rows kept and with some dropped."""
    assert len(found["layers"]) == 6
    for name, errors in found["layers"].items():
        assert max(errors) <= 1e-5, name


def test_the_kernels_ran_and_flops_are_those_of_every_row(found: Any) -> None:
    assert found["flops"] == 3 * 2 * 9 * 4 * 5
    assert found["no rows"] == [0, 5]
    # Forward and the gradient of x are one kernel, the gradient of the weights the other: 6 cases in 2 dtypes.
    assert found["launches"] == {"multiply": 24, "gradient": 12}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_on_the_meta_device(dtype: torch.dtype) -> None:
    x, weights = torch.empty(7, 4, device="meta", dtype=dtype), torch.empty(3, 5, 4, device="meta", dtype=dtype)
    leaves = (x.requires_grad_(), weights.requires_grad_())
    y = grouped.grouped_product(*leaves, torch.empty(3, device="meta", dtype=torch.int32))
    dx, d_weights = torch.autograd.grad(y.sum(), leaves)
    assert (y.shape, dx.shape, d_weights.shape) == ((7, 5), (7, 4), (3, 5, 4))


# ---- compiled for a GPU that need not be here -----------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["multiply_groups", "weight_gradients"])
@pytest.mark.parametrize(("dtype", "capability"), [(torch.bfloat16, 80), (torch.float32, 80), (torch.float32, 90)])
def test_the_largest_blocks_compile_and_fit(
    kernel: str, dtype: torch.dtype, capability: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from structlin.kernels.experts import grouped_kernels, grouped_path

    is_product = kernel == "multiply_groups"
    weights = torch.empty(256, 64, 32, device="meta", dtype=dtype)
    constants_of = grouped_path.product_constants if is_product else grouped_path.constants
    config = (grouped_path.BLOCKS if is_product else grouped_path.GRADIENT_BLOCKS)[-1]
    shared, ptx = compiled(
        getattr(grouped_kernels, kernel),
        constants_of(weights, 65_536),
        config,
        {"rows": "i32", "ends": "*i32"},
        dtype,
        capability,
    )
    assert 0 < shared <= SHARED_BYTES[capability]
    assert (TENSOR_CORES in ptx) == (dtype == torch.bfloat16)


# ---- where they serve -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "dtype", "inner", "groups", "torchs"),
    [
        ((9, 0), torch.bfloat16, 64, 16, True),
        ((10, 0), torch.bfloat16, 64, 16, True),
        ((9, 0), torch.bfloat16, 64, 1023, True),
        # Torch refuses them.
        ((9, 0), torch.bfloat16, 64, 1024, False),
        ((10, 0), torch.bfloat16, 64, 4096, False),
        # Torch would copy the ends to the host.
        ((8, 0), torch.bfloat16, 64, 16, False),
        ((12, 0), torch.bfloat16, 64, 16, False),
        ((9, 0), torch.float32, 64, 16, False),
        # Rows of 36 bytes.
        ((9, 0), torch.bfloat16, 18, 16, False),
    ],
)
def test_torchs_own_product_serves_where_it_asks_no_host(
    capability: tuple[int, int],
    dtype: torch.dtype,
    inner: int,
    groups: int,
    torchs: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert grouped.torch_serves(torch.device("cuda"), dtype, (64, inner), groups) == torchs
