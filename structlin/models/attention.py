"""How do the tokens of a sequence hear of each other? By self-attention with layer-normed queries and keys.

Letters: N sequences, T tokens, D d_model, H heads, K d_head.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from structlin.config.model import Gpt2Config, VitConfig
from structlin.kernels.attention.attention import causal_attention
from structlin.models.layers import layer_norm
from structlin.nn.linear import EinsumLinear
from structlin.structure.heads import input_is_transposed, output_is_transposed


class Attention(nn.Module):
    """Self-attention with layer-normed queries and keys: ``causal``, a token hears of those before it alone.

    ``layout``: the head layout of its block tensor trains (structlin/structure/heads.py). It says whether q, k and v
    leave their layers, and o reads its input, as [feature, head] instead of [head, feature].
    """

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
        self.d_head = model.head_size
        self.q, self.k, self.v, self.o = (layers[f"{name}.{part}"] for part in "qkvo")
        self.q_norm = layer_norm(model, f"{name}.q_norm", model.head_size)
        self.k_norm = layer_norm(model, f"{name}.k_norm", model.head_size)
        # The layout is that of the structure: experts have sizes of their own, and dense layers no axes.
        self._transposed = {
            part: isinstance(layers[f"{name}.{part}"], EinsumLinear)
            and (input_is_transposed if part == "o" else output_is_transposed)(layout)
            for part in "qkvo"
        }

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> (N, T, D)."""
        q_NTHK, k_NTHK, v_NTHK = (self.heads(part, x) for part in "qkv")
        if not self.causal:
            return self.joined(self._of_all(q_NTHK, k_NTHK, v_NTHK))
        gains, biases = (self.q_norm.gain, self.k_norm.gain), (self.q_norm.bias, self.k_norm.bias)
        return self.joined(causal_attention(q_NTHK, k_NTHK, v_NTHK, *gains, self.scale, *biases))

    def _of_all(self, q_NTHK: Tensor, k_NTHK: Tensor, v_NTHK: Tensor) -> Tensor:
        """What the heads mix of all tokens, (N, T, H, K)."""
        q, k = self.q_norm(q_NTHK), self.k_norm(k_NTHK)
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v_NTHK.to(q.dtype)))
        return functional.scaled_dot_product_attention(q, k, v, scale=self.scale).transpose(1, 2)

    @property
    def scale(self) -> float:
        """Of the products of queries and keys."""
        return 8 / self.d_head

    def joined(self, mixed_NTHK: Tensor) -> Tensor:
        """What the heads (N, T, H, K) have mixed, through o: (N, T, D)."""
        mixed_NTF = mixed_NTHK.transpose(2, 3) if self._transposed["o"] else mixed_NTHK
        y: Tensor = self.o(mixed_NTF.reshape(*mixed_NTHK.shape[:2], -1))
        return y

    def heads(self, part: str, x: Tensor) -> Tensor:
        """x (N, T, D) through q, k or v, as heads (N, T, H, K)."""
        y: Tensor = getattr(self, part)(x)
        if self._transposed[part]:
            return y.reshape(*x.shape[:2], self.d_head, -1).transpose(2, 3)
        return y.reshape(*x.shape[:2], -1, self.d_head)
