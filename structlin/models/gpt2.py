"""The GPT-2 of arXiv 2410.02117 (appendix): every linear but the head takes the structure, or is a mixture.

Pre-LN; separate q, k, v; per-head layer norm on q and k; attention logits 8 (q . k) / d_head, which is the usual scale
at d_head = 64; GELU FFN; residual branches times sqrt(3 / num_layers); learned positions; untied head. The last map of
every branch and the head start at zero, so the loss at step 0 is ln(vocab). No biases on text; on images those that
``model.biases`` names, and q starts at zero too (``model.zero_start``). A start token is a row of the table of tokens.
Each of these is an option, and others make the model of arXiv 2406.16450 (configs/scale/structured_ffn.yaml).

Letters: N sequences, T tokens, D d_model, H heads, K d_head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.config.model import Gpt2Config
from structlin.config.science import Science
from structlin.data import input_vocab_size, vocab_size
from structlin.kernels.embedding import embedding
from structlin.models.attention import Attention
from structlin.models.layers import build_layers, ffn_layer, layer_norm
from structlin.nn.blocks import Blocks
from structlin.nn.cross_entropy import Head, chunked_cross_entropy
from structlin.nn.spec import Module, ParamSpec, initialise


class GPT2(Module):
    """Tokens (N, T) -> logits (N, T, V)."""

    def __init__(self, science: Science) -> None:
        super().__init__()
        model = science.model
        assert isinstance(model, Gpt2Config)
        layers = build_layers(science)
        layout = science.structure.head_layout
        self.context, self.vocabulary = model.context, vocab_size(science.data.tokenizer)
        self.embedding_std = model.init_std
        self.tokens = nn.Parameter(torch.zeros(input_vocab_size(science.data.tokenizer), model.d_model))
        learned = model.positions == "learned"
        self.register_parameter(
            "positions", nn.Parameter(torch.zeros(model.context, model.d_model)) if learned else None
        )
        self.blocks = Blocks(Block(model, layers, f"blocks.{i}", layout) for i in range(model.num_layers))
        self.norm = layer_norm(model, "norm", model.d_model)
        self.head = layers.get("head")

    positions: nn.Parameter | None
    """Added to the tokens; None where queries and keys are rotated instead."""
    head: nn.Module | None
    """None where it is the table of tokens."""

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """The embeddings: normal, at the rate lr0."""
        spec = ParamSpec("embedding", self.embedding_std)
        return {"tokens": spec} if self.positions is None else {"tokens": spec, "positions": spec}

    def embedded(self, tokens_NT: Tensor, begin: int = 0) -> Tensor:
        """What the first block reads, (N, T, D), of tokens of which the first stands at ``begin`` in its text."""
        if self.positions is None:
            return embedding(self.tokens, tokens_NT)
        x = functional.embedding(tokens_NT, self.tokens)
        return x + self.positions[begin : begin + tokens_NT.shape[1]]

    def last_map(self) -> Head:
        """The head, (..., D) -> (..., V)."""
        if self.head is not None:
            return cast(Head, self.head)
        # Start tokens, which stand after the vocabulary, are never said.
        starts = self.tokens.shape[0] > self.vocabulary
        return TiedHead(self.tokens[: self.vocabulary] if starts else self.tokens)

    def forward(self, tokens_NT: Tensor, targets_NT: Tensor | None = None) -> Tensor:
        """Logits (N, T, V) of token ids (N, T), T at most the context; with targets their cross-entropy, in chunks."""
        x = self.norm(self.blocks(self.embedded(tokens_NT)))
        head = self.last_map()
        return head(x) if targets_NT is None else chunked_cross_entropy(x, head, targets_NT)


class TiedHead:
    """The table of tokens as a head. No module: the table is a parameter of the model, once."""

    def __init__(self, tokens_VD: Tensor) -> None:
        self._tokens_VD = tokens_VD
        self.d_out = tokens_VD.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., V)."""
        return functional.linear(x, self._tokens_VD)

    def parameters(self) -> Iterator[Tensor]:
        """The table."""
        yield self._tokens_VD


class Block(nn.Module):
    """Attention and FFN, each a residual branch times sqrt(3 / num_layers), or as it is."""

    def __init__(self, model: Gpt2Config, layers: Mapping[str, nn.Module], name: str, layout: str) -> None:
        super().__init__()
        self.branch_scale = math.sqrt(3 / model.num_layers) if model.branch_scale == "depth" else 1.0
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
