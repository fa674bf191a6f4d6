"""Weight normalisation: a cap with the gradient of its formula, finite where a factor starts at zero."""

import pytest
import torch
from torch import Tensor

from structlin.nn.linear import LinearOptions, make_linear
from structlin.nn.normalisation import cap_rms
from structlin.nn.spec import initialise
from structlin.structure import lookup, plan_theta


def formula(G: Tensor, std: float, s: Tensor) -> Tensor:
    """s G / max(1, sqrt(mean(G^2) + 1e-12) / std), written with a branch."""
    rms = ((G * G).sum() / G.numel() + 1e-12) ** 0.5
    return s * G / (rms / std) if float(rms.detach()) > std else s * G


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("value", "std", "capped"), [(3.0, 1.5, 1.5), (1.0, 1.5, 1.0), (0.0, 1.5, 0.0)])
def test_worked_numbers(value: float, std: float, capped: float) -> None:
    G = torch.full((4, 5), value)
    torch.testing.assert_close(cap_rms(G, std), torch.full((4, 5), capped))
    torch.testing.assert_close(cap_rms(G, std, torch.tensor(2.0)), torch.full((4, 5), 2 * capped))


@pytest.mark.parametrize("std", [0.3, 3.0])
@pytest.mark.parametrize("s", [1.0, 0.7])
def test_value_and_gradient_are_the_formulas(std: float, s: float) -> None:
    G, scale, cotangent = (
        randn(6, 7).requires_grad_(),
        torch.tensor(s, dtype=torch.float64).requires_grad_(),
        randn(6, 7),
    )
    found, wanted = cap_rms(G, std, scale), formula(G, std, scale)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)
    for ours, theirs in zip(
        torch.autograd.grad((found * cotangent).sum(), [G, scale]),
        torch.autograd.grad((wanted * cotangent).sum(), [G, scale]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda G, s: cap_rms(G, std, s), (G, scale))


def test_a_capped_factor_no_longer_grows() -> None:
    G = randn(8, 8)
    torch.testing.assert_close(cap_rms(5 * G, 0.1), cap_rms(50 * G, 0.1))
    assert float(cap_rms(50 * G, 0.1).square().mean().sqrt()) == pytest.approx(0.1)


def test_nothing_waits_for_the_host() -> None:
    """A tensor without values can be capped, which a read of the RMS could not."""
    assert cap_rms(torch.empty(4, 4, device="meta"), 0.1, torch.ones((), device="meta")).shape == (4, 4)


@pytest.mark.parametrize("weight_norm", ["none", "fixed", "learned"])
@pytest.mark.parametrize("name", ["btt", "low_rank", "kronecker", "g2", "dense"])
def test_gradients_are_finite_where_a_factor_starts_at_zero(name: str, weight_norm: str) -> None:
    options = LinearOptions(16, starts_at_zero=True, weight_norm=weight_norm)
    layer = make_linear(plan_theta(lookup(name), 16, 16), options)
    initialise(layer, 0)
    (layer(torch.randn(5, 16)) - 1).square().sum().backward()
    grads = {key: parameter.grad for key, parameter in layer.named_parameters()}
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads.values())
    last = layer.plan.factors[-1].name
    assert bool(grads[last].any())


@pytest.mark.parametrize("weight_norm", ["none", "fixed", "learned"])
def test_a_layer_uses_its_factors_capped(weight_norm: str) -> None:
    plan = plan_theta(lookup("btt"), 16, 16)
    layer = make_linear(plan, LinearOptions(16, weight_norm=weight_norm))
    initialise(layer, 0)
    with torch.no_grad():
        plain = make_linear(plan, LinearOptions(16))
        for factor in layer.plan.factors:
            raw = getattr(layer, factor.name).mul_(10)
            learned = 1.0
            if weight_norm == "learned":
                learned = 0.5
                getattr(layer, f"scale_{factor.name}").fill_(learned)
            used = raw if weight_norm == "none" else formula(raw, factor.std, torch.tensor(learned))
            getattr(plain, factor.name).copy_(used)
        x = torch.randn(3, 16)
        torch.testing.assert_close(layer(x), plain(x))
        torch.testing.assert_close(layer.to_dense(), plain.to_dense())
