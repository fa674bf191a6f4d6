"""Two plain products and one dense product are the pair of the other paths, and a rule says which runs on a GPU."""

import pytest
import torch

from structlin.config.launch import SlurmLaunch
from structlin.errors import UserError
from structlin.kernels.limits import gpu_form
from structlin.kernels.products.layout import ProductSizes
from structlin.kernels.products.plain import as_dense, two_products
from structlin.kernels.products.torch_path import tokens_last
from structlin.launch.slurm import carry_out
from tests.kernels.products.reference import named, operands

CASES = [
    ProductSizes(g=1, b=1, a=12, r=3, f=1, d=1, e=9, a_first=True),
    ProductSizes(g=5, b=1, a=7, r=1, f=6, d=1, e=9, a_first=True),
    ProductSizes(g=3, b=2, a=5, r=4, f=2, d=3, e=7, a_first=True),
    ProductSizes(g=3, b=2, a=5, r=4, f=2, d=3, e=7, a_first=False),
    ProductSizes(g=1, b=5, a=35, r=3, f=1, d=2, e=33, a_first=False),
    ProductSizes(g=4, b=1, a=6, r=2, f=1, d=2, e=5, a_first=False),
]


@pytest.mark.parametrize("form", [two_products, as_dense])
@pytest.mark.parametrize("sizes", CASES, ids=named)
def test_values_and_gradients_are_those_of_the_pair(form, sizes: ProductSizes) -> None:
    *inputs, dy = (tensor.double() for tensor in operands(sizes, 11))
    leaves = [tensor.requires_grad_() for tensor in inputs]
    wanted, found = tokens_last(*leaves, sizes.a_first), form(*leaves, sizes)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    pairs = zip(*(torch.autograd.grad(y, leaves, dy) for y in (found, wanted)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def square(inner: int, groups: int, rank: int) -> ProductSizes:
    return ProductSizes(g=groups, b=1, a=inner, r=rank, f=groups, d=1, e=inner, a_first=True)


@pytest.mark.parametrize(
    ("sizes", "form"),
    [
        (square(16, 16, 1), "dense"),
        (square(32, 32, 1), "fused"),
        (square(32, 32, 2), "dense"),
        (square(64, 64, 5), "fused"),
        (square(64, 64, 8), "dense"),
        (square(128, 16, 1), "fused"),
        # Much lies between the factors: as slow as a high rank.
        (square(8, 128, 1), "dense"),
        (square(129, 16, 1), "pair"),
        (ProductSizes(g=1, b=1, a=64, r=16, f=1, d=1, e=64, a_first=True), "pair"),
    ],
)
def test_the_form_of_a_layer_on_a_gpu(sizes: ProductSizes, form: str) -> None:
    assert gpu_form(sizes) == form


def test_a_submission_for_gpus_from_a_cpu_build_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry_out, "torch_is_cpu_build", lambda: True)
    for launch, device in (
        (SlurmLaunch("a", gpus=0), "auto"),
        (SlurmLaunch("a"), "cpu"),
        (SlurmLaunch("a", python="p"), "cuda"),
    ):
        carry_out.check_build(launch, device)
    with pytest.raises(UserError, match=r"built without CUDA: .*make setup CUDA=13"):
        carry_out.check_build(SlurmLaunch("a"), "cuda")
    monkeypatch.setattr(carry_out, "torch_is_cpu_build", lambda: False)
    carry_out.check_build(SlurmLaunch("a"), "cuda")
