"""Attention: against one written out with plain tensors, causal and not."""

import math

import pytest
import torch
from torch import Tensor

from structlin.config.model import Gpt2Config
from structlin.models.attention import Attention
from structlin.models.layers import build_layers
from structlin.nn.spec import initialise
from tests.models.cases import science_of


def normed(x: Tensor, gain: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return gain * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_the_softmax_of_normed_products(causal: bool) -> None:
    science = science_of("dense", dtype="float64")
    assert isinstance(science.model, Gpt2Config)
    module = Attention(science.model, build_layers(science), "blocks.0.attention", "none", causal=causal).double()
    initialise(module, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(2, 16, 32, generator=generator, dtype=torch.float64)
    q, k, v = ((x @ part.weight.T).view(2, 16, 4, 8).transpose(1, 2) for part in (module.q, module.k, module.v))
    logits = 8 / 8 * normed(q, module.q_norm.gain) @ normed(k, module.k_norm.gain).mT
    if causal:
        logits = logits.masked_fill(torch.ones(16, 16).triu(1).bool(), -math.inf)
    wanted = (logits.softmax(-1) @ v).transpose(1, 2).reshape(2, 16, 32) @ module.o.weight.T
    torch.testing.assert_close(module(x), wanted, rtol=0, atol=1e-12)
