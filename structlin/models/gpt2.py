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
from structlin.models.attention import Attention
from structlin.models.layers import build_layers, ffn_layer, layer_norm
from structlin.nn.blocks import Blocks
from structlin.nn.cross_entropy import chunked_cross_entropy
from structlin.nn.spec import Module, ParamSpec, initialise

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


def build_gpt2(science: Science) -> GPT2:
    """The model of a run with its first weights, on the CPU; float64 where the science asks for it."""
    with torch.device("meta"):
        model = GPT2(science)
    if science.model.dtype == "float64":
        model = model.double()
    model.to_empty(device="cpu")
    initialise(model, science.seed)
    return model
