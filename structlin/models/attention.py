"""How do the tokens of a sequence hear of each other? By attention: queries and keys normed, rotated, or as they are.

Where keys and values have fewer heads than queries (grouped queries, arXiv 2305.13245), each serves equally many of
these in a row. Rotation (RoPE, arXiv 2104.09864) turns feature i of a head against feature i + K/2 by the angle
t 10,000^(-2i/K) at the place t of a token: products of queries and keys then depend on their distance alone.

Letters: N sequences, T tokens, D d_model, H heads, G heads of keys and values, K features of a head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.config.model import Gpt2Config, VitConfig
from structlin.kernels.attention.attention import causal_attention
from structlin.models.layers import LayerNorm, layer_norm
from structlin.nn.linear import EinsumLinear
from structlin.nn.moe import each_of
from structlin.structure.heads import input_is_transposed, output_is_transposed

ROTATION_BASE = 10_000.0


class Attention(nn.Module):
    """Self-attention: ``causal``, a token hears of those before it alone.

    ``layout``: the head layout of its block tensor trains (structlin/structure/heads.py). It says whether q, k and v
    leave their layers, and o reads its input, as [feature, head] instead of [head, feature].
    """

    q_norm: LayerNorm | None
    k_norm: LayerNorm | None

    def __init__(
        self,
        model: Gpt2Config | VitConfig,
        layers: Mapping[str, nn.Module],
        name: str,
        layout: str,
        *,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.d_head, self.scale = model.head_size, model.logits
        self.rotates, self.is_grouped = model.positions == "rope", model.kv_features != model.features
        self.q, self.k, self.v, self.o = (layers[f"{name}.{part}"] for part in "qkvo")
        norms = [layer_norm(model, f"{name}.{part}_norm", model.head_size) if model.qk_norm else None for part in "qk"]
        self.q_norm, self.k_norm = norms
        # The layout is that of the structure: experts have sizes of their own, and dense layers no axes.
        self.transposed = {
            part: isinstance(layers[f"{name}.{part}"], EinsumLinear)
            and (input_is_transposed if part == "o" else output_is_transposed)(layout)
            for part in "qkvo"
        }

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> (N, T, D)."""
        q_NTHK, k_NTGK, v_NTGK = self.heads(x)
        q_norm, k_norm = self.q_norm, self.k_norm
        if not self.causal or self.rotates or self.is_grouped or q_norm is None or k_norm is None:
            q, k, v = self.ready(q_NTHK, k_NTGK, v_NTGK)
            mixed = functional.scaled_dot_product_attention(
                q, k, v, is_causal=self.causal, scale=self.scale, enable_gqa=self.is_grouped
            )
            return self.joined(mixed.transpose(1, 2))
        gains, biases = (q_norm.gain, k_norm.gain), (q_norm.bias, k_norm.bias)
        return self.joined(causal_attention(q_NTHK, k_NTGK, v_NTGK, *gains, self.scale, *biases))

    def ready(self, q_NTHK: Tensor, k_NTGK: Tensor, v_NTGK: Tensor, begin: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, H, T, K), keys and values (N, G, T, K) as they are multiplied; the first token's place: begin."""
        # Contiguous: a structured layer may leave features strided, with which torch would fall back to its slow path.
        q, k, v = (tensor.transpose(1, 2).contiguous() for tensor in (q_NTHK, k_NTGK, v_NTGK))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rotates:
            q, k = rotated(q, begin), rotated(k, begin)
        return q, k, v.to(q.dtype)

    def joined(self, mixed_NTHK: Tensor) -> Tensor:
        """What the heads (N, T, H, K) have mixed, through o: (N, T, D)."""
        mixed_NTF = mixed_NTHK.transpose(2, 3) if self.transposed["o"] else mixed_NTHK
        y: Tensor = self.o(mixed_NTF.reshape(*mixed_NTHK.shape[:2], -1))
        return y

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (N, T, D) through q, k and v, as heads (N, T, H, K)."""
        q, k, v = each_of((self.q, self.k, self.v), x)
        return self._as_heads("q", q), self._as_heads("k", k), self._as_heads("v", v)

    def _as_heads(self, part: str, y: Tensor) -> Tensor:
        """(N, T, H K) -> (N, T, H, K)."""
        if self.transposed[part]:
            return y.reshape(*y.shape[:2], self.d_head, -1).transpose(2, 3)
        return y.reshape(*y.shape[:2], -1, self.d_head)


def rotated(x_NHTK: Tensor, begin: int = 0) -> Tensor:
    """Heads whose halves are turned against each other by the places begin, begin + 1, .. of their tokens.

    Angles are made in float32 or wider, the result is of the input's dtype. Source: arXiv 2104.09864, with halves in
    place of neighbours, as in arXiv 2406.16450's code.
    """
    length, size = x_NHTK.shape[2:]
    wide = torch.float64 if x_NHTK.dtype == torch.float64 else torch.float32
    places = torch.arange(begin, begin + length, device=x_NHTK.device, dtype=wide)
    rates = ROTATION_BASE ** (torch.arange(0, size, 2, device=x_NHTK.device, dtype=wide) / -size)
    angles_TI = torch.outer(places, rates)
    cos_TK, sin_TK = (torch.cat([part, part], 1) for part in (angles_TI.cos(), angles_TI.sin()))
    first, second = x_NHTK.chunk(2, -1)
    return (x_NHTK * cos_TK + torch.cat([-second, first], -1) * sin_TK).to(x_NHTK.dtype)
