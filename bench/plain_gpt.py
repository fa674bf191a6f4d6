"""What is a train step compared with? A GPT-2 as it is usually written, with the published formulation of its linears.

Written anew in the manner of nanoGPT (one product for q, k and v of a dense model, torch's SDPA, AdamW that loops over
tensors) and of the code of arXiv 2410.02117 (token-major batched products; a mixture computes every expert and masks).
Letters: N sequences, T tokens, D d_model, E experts, as in structlin/models/gpt2.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import published
from structlin.structure import Sizes

MakeLinear = Callable[[int, int], nn.Module]


class PublishedLinear(nn.Module):
    """Two batched products with the tokens first, every operand copied between them.

    ``experts``: rank slices that a router weighs, all of them computed, all but ``top_k`` times zero; 0: no router.
    """

    def __init__(self, sizes: Sizes, experts: int = 0, top_k: int = 2) -> None:
        super().__init__()
        s = self.sizes = sizes
        self.top_k = top_k
        self.router = nn.Linear(s.d_in, experts, bias=False) if experts else None
        rank = experts or s.r
        self.A = nn.Parameter(torch.randn(s.g, s.a, rank, s.f, s.d) / math.sqrt(s.a))
        self.B = nn.Parameter(torch.randn(s.f, s.g, s.b, rank, s.e) / math.sqrt(s.g * s.b * rank))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., d_in) -> (..., d_out)."""
        s, rows = self.sizes, x.reshape(-1, x.shape[-1])
        padded = functional.pad(rows, (0, s.used_in - s.d_in)) if s.used_in > s.d_in else rows
        y = published.product(padded, self.A, self.B, None if self.router is None else self._weights(rows))
        return y[:, : s.d_out].view(*x.shape[:-1], s.d_out)

    def _weights(self, rows: Tensor) -> Tensor:
        """(rows, E): the softmax over the chosen, zero elsewhere."""
        assert self.router is not None
        logits = self.router(rows)
        top = logits.topk(self.top_k, dim=-1)
        return torch.zeros_like(logits).scatter(-1, top.indices, top.values.softmax(-1))


class PlainGpt(nn.Module):
    """Tokens (N, T) -> logits (N, T, V); ``make_linear`` None: dense, with one product for q, k and v."""

    def __init__(
        self, vocab: int, context: int, d_model: int, layers: int, heads: int, make: MakeLinear | None
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, d_model), nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(PlainBlock(d_model, heads, make) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model, bias=False)
        self.head = nn.Linear(d_model, vocab, bias=False)

    def forward(self, tokens_NT: Tensor) -> Tensor:
        """Logits of token ids."""
        x = self.tokens(tokens_NT) + self.positions(torch.arange(tokens_NT.shape[1], device=tokens_NT.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class PlainBlock(nn.Module):
    """Attention and FFN, pre-norm."""

    def __init__(self, d_model: int, heads: int, make: MakeLinear | None) -> None:
        super().__init__()
        linear = make or _dense
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(d_model, bias=False) for _ in range(2))
        # The structured code has a layer for each of q, k and v.
        parts = 1 if make is None else 3
        self.qkv = nn.ModuleList(linear(d_model, 3 * d_model // parts) for _ in range(parts))
        self.out, self.up, self.down = (
            linear(d_model, d_model),
            linear(d_model, 4 * d_model),
            linear(4 * d_model, d_model),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> (N, T, D)."""
        normed = self.norms[0](x)
        parts = [layer(normed) for layer in self.qkv] if len(self.qkv) > 1 else self.qkv[0](normed).chunk(3, -1)
        q, k, v = (part.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> Callable[[], None]:
    """One step: loss, gradients, clipping, update."""

    def step() -> None:
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _dense(d_in: int, d_out: int) -> nn.Module:
    return nn.Linear(d_in, d_out, bias=False)
