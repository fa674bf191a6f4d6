"""A router's choice in C++ is torch's: experts and their order, ties too; weights, losses and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from structlin.kernels.experts import choice
from structlin.kernels.experts.choice import TIE, choose_experts
from structlin.kernels.experts.routes import sort_by_expert

pytestmark = pytest.mark.usefixtures("one_thread")


def logits(tokens: int, experts: int, seed: int = 0) -> Tensor:
    """Many ties: some by a part of a TIE, all experts alike at every fifth token."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.randint(-2, 3, (tokens, experts), generator=draw) * 0.7
    found += torch.rand(tokens, experts, generator=draw) * 0.4 * TIE
    found[::5] = found[::5, :1]
    return found


def outcome(of: Tensor, top_k: int, first_token: int) -> tuple[list[Tensor], list[Tensor]]:
    """What is chosen and where it stands; weights, losses and the gradient of a mixture of them."""
    of = of.detach().requires_grad_()
    chosen = choose_experts(of, top_k, first_token)
    p, (mean, z) = chosen.scores.probability(), chosen.scores.losses()
    routes = sort_by_expert(chosen)
    scale = torch.arange(routes.weight_N.numel(), dtype=of.dtype) / 100
    loss = (routes.weight_N * scale).sum() + (mean * torch.arange(of.shape[1])).sum() + 0.3 * z
    (gradient,) = torch.autograd.grad(loss, of)
    exact = [chosen.chosen_TK, routes.order_N, routes.token_N, routes.ends_E, routes.slots_TK()]
    return exact, [chosen.weight_TK.detach(), p, mean.detach(), z.detach(), gradient]


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(100, 8, 2), (33, 3, 3), (64, 16, 1), (7, 40, 5)])
def test_it_is_torchs(tokens: int, experts: int, top_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    of = logits(tokens, experts)
    assert choice._functions(of, 0) is not None
    assert choice._functions(of.double(), 0) is None
    exact, near = outcome(of, top_k, first_token=11)
    monkeypatch.setattr(choice, "_functions", lambda *_: None)
    expected_exact, expected = outcome(of, top_k, first_token=11)
    for one, other in zip(exact, expected_exact, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(near, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
