"""The vision transformer of arXiv 2406.06248: patches, a class token, and blocks whose linears take the structure.

    x = LN(W LN(patches) + b);  x = [class token; x] + positions;  x += o(attention(LN(x)));  x += down(gelu(up(LN(x))))
    logits = head(LN(x)[class token], or its mean over the patches)

Every patch hears of all others; q and k are layer-normed per head, and attention logits are 8 (q . k) / d_head. q, the
last map of every branch and the head start at zero. Class token and positions are N(0, 1) and learn at lr0. No branch
is scaled. Biases are those that ``model.biases`` names: as published on all but q, k and v.

Letters: N images, P positions, D d_model, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from structlin.config.model import VitConfig
from structlin.config.science import Science
from structlin.models.attention import Attention
from structlin.models.layers import LayerNorm, build_layers, ffn_layer, layer_norm
from structlin.nn.blocks import Blocks
from structlin.nn.spec import Module, ParamSpec, initialise

POSITION_STD = 1.0


class ViT(Module):
    """Images (N, height, width, channels) -> logits (N, K)."""

    token: nn.Parameter | None

    def __init__(self, science: Science) -> None:
        super().__init__()
        model, shape = science.model, science.data.shape
        assert isinstance(model, VitConfig)
        layers = build_layers(science)
        layout = science.structure.head_layout
        self.patch = model.patch
        self.patch_norm = LayerNorm(model.patch**2 * shape[2], bias=model.has_bias("patch_norm"))
        self.input = layers["input"]
        self.input_norm = layer_norm(model, "input_norm", model.d_model)
        self.register_parameter("token", nn.Parameter(torch.zeros(model.d_model)) if model.pool == "class" else None)
        self.positions = nn.Parameter(torch.zeros(model.rows_of(shape), model.d_model))
        self.blocks = Blocks(Block(model, layers, f"blocks.{i}", layout) for i in range(model.num_layers))
        self.norm = layer_norm(model, "norm", model.d_model)
        self.head = layers["head"]

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """Class token and positions: N(0, 1) at the rate lr0."""
        spec = ParamSpec("embedding", POSITION_STD)
        return {"positions": spec} if self.token is None else {"token": spec, "positions": spec}

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, height, width, channels) -> logits (N, K)."""
        x = self.input_norm(self.input(self.patch_norm(patches(images, self.patch))))
        if self.token is not None:
            x = torch.cat([self.token.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
        x = self.blocks(x + self.positions)
        # A norm acts on each position alone: that of the class token is all that is read.
        pooled = self.norm(x).mean(dim=1) if self.token is None else self.norm(x[:, 0])
        logits: Tensor = self.head(pooled)
        return logits


class Block(nn.Module):
    """Attention and FFN, each added to what came in."""

    def __init__(self, model: VitConfig, layers: Mapping[str, nn.Module], name: str, layout: str) -> None:
        super().__init__()
        self.attention_norm = layer_norm(model, f"{name}.attention_norm", model.d_model)
        self.attention = Attention(model, layers, f"{name}.attention", layout, causal=False)
        self.ffn_norm = layer_norm(model, f"{name}.ffn_norm", model.d_model)
        self.ffn = ffn_layer(layers, f"{name}.ffn")

    def forward(self, x: Tensor) -> Tensor:
        """x (N, P, D) -> (N, P, D)."""
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.ffn(self.ffn_norm(x))
        return y


def patches(images: Tensor, side: int) -> Tensor:
    """Images (N, height, width, C) as their patches row by row, pixels of each row by row: (N, patches, side^2 C)."""
    n, height, width, channels = images.shape
    grid = images.reshape(n, height // side, side, width // side, side, channels)
    return grid.transpose(2, 3).reshape(n, -1, side * side * channels)


def build_vit(science: Science) -> ViT:
    """The model of a run with its first weights, on the CPU; float64 where the science asks for it."""
    with torch.device("meta"):
        model = ViT(science)
    if science.model.dtype == "float64":
        model = model.double()
    model.to_empty(device="cpu")
    initialise(model, science.seed)
    return model
