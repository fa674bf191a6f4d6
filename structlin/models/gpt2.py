"""The GPT-2 of arXiv 2410.02117 (appendix): every linear but the head takes the structure, or is a mixture.

Pre-LN; separate q, k, v; per-head layer norm on q and k; attention logits 8 (q . k) / d_head, which is the usual scale
at d_head = 64; GELU FFN; residual branches times sqrt(3 / num_layers); learned positions; untied head. The last map of
every branch and the head start at zero, so the loss at step 0 is ln(vocab). No biases on text; on images those that
``model.biases`` names, and q starts at zero too (``model.zero_start``). A start token is a row of the table of tokens.

Letters: N sequences, T tokens, D d_model, H heads, K d_head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.config.model import Gpt2Config
from structlin.config.science import Science
from structlin.data import input_vocab_size
from structlin.kernels.attention.attention import causal_attention
from structlin.models.layers import build_layers, ffn_layer, layer_norm
from structlin.nn.blocks import Blocks
from structlin.nn.cross_entropy import chunked_cross_entropy
from structlin.nn.linear import EinsumLinear
from structlin.nn.spec import Module, ParamSpec, initialise
from structlin.structure.heads import input_is_transposed, output_is_transposed

EMBEDDING_STD = 0.02


class GPT2(Module):
    """Tokens (N, T) -> logits (N, T, V)."""

    def __init__(self, science: Science) -> None:
        super().__init__()
        model = science.model
        assert isinstance(model, Gpt2Config)
        layers = build_layers(science)
        layout = science.structure.head_layout
        self.tokens = nn.Parameter(torch.zeros(input_vocab_size(science.data.tokenizer), model.d_model))
        self.positions = nn.Parameter(torch.zeros(model.context, model.d_model))
        self.blocks = Blocks(Block(model, layers, f"blocks.{i}", layout) for i in range(model.num_layers))
        self.norm = layer_norm(model, "norm", model.d_model)
        self.head = layers["head"]

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """The embeddings: N(0, 0.02) at the rate lr0."""
        spec = ParamSpec("embedding", EMBEDDING_STD, decay=True)
        return {"tokens": spec, "positions": spec}

    def forward(self, tokens_NT: Tensor, targets_NT: Tensor | None = None) -> Tensor:
        """Logits (N, T, V) of token ids (N, T), T at most the context; with targets their cross-entropy, in chunks."""
        x = functional.embedding(tokens_NT, self.tokens) + self.positions[: tokens_NT.shape[1]]
        x = self.norm(self.blocks(x))
        return self.head(x) if targets_NT is None else chunked_cross_entropy(x, self.head, targets_NT)


class Block(nn.Module):
    """Attention and FFN, each a residual branch times sqrt(3 / num_layers)."""

    def __init__(self, model: Gpt2Config, layers: Mapping[str, nn.Module], name: str, layout: str) -> None:
        super().__init__()
        self.branch_scale = math.sqrt(3 / model.num_layers)
        self.attention_norm = layer_norm(model, f"{name}.attention_norm", model.d_model)
        self.attention = Attention(model, layers, f"{name}.attention", layout)
        self.ffn_norm = layer_norm(model, f"{name}.ffn_norm", model.d_model)
        self.ffn = ffn_layer(layers, f"{name}.ffn")

    def forward(self, x: Tensor) -> Tensor:
        """x (N, T, D) -> (N, T, D)."""
        x = torch.add(x, self.attention(self.attention_norm(x)), alpha=self.branch_scale)
        return torch.add(x, self.ffn(self.ffn_norm(x)), alpha=self.branch_scale)


class Attention(nn.Module):
    """Causal self-attention with layer-normed queries and keys.

    ``layout``: the head layout of its block tensor trains (structlin/structure/heads.py). It says whether q, k and v
    leave their layers, and o reads its input, as [feature, head] instead of [head, feature].
    """

    def __init__(self, model: Gpt2Config, layers: Mapping[str, nn.Module], name: str, layout: str) -> None:
        super().__init__()
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
        gains, biases = (self.q_norm.gain, self.k_norm.gain), (self.q_norm.bias, self.k_norm.bias)
        return self.joined(causal_attention(q_NTHK, k_NTHK, v_NTHK, *gains, self.scale, *biases))

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


def build_gpt2(science: Science) -> GPT2:
    """The model of a run with its first weights, on the CPU; float64 where the science asks for it."""
    with torch.device("meta"):
        model = GPT2(science)
    if science.model.dtype == "float64":
        model = model.double()
    model.to_empty(device="cpu")
    initialise(model, science.seed)
    return model
