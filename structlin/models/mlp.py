"""The MLP of arXiv 2410.02117 (regression) and of arXiv 2406.06248 (images): residual, pre-LN, inner layers structured.

    h = LN(gelu(W_in x));   h += sqrt(3 / num_layers) down(gelu(up(LN(h)))) for every block;   y = head(h)

as published, with biases on all linears and norms (``model.outer_norm=input``, ``model.biases``); or, under
``model.outer_norm=output``, h = W_in x and y = head(LN(h)); or, under ``none``, h = gelu(W_in x), as arXiv 2406.06248
has it for images, whose pixels come as one row and whose branches are not scaled. up widens by ffn_expansion. Every
down and the head start at zero, so the student first says 0: with standardised labels its loss is 1, of K classes ln K.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.anatomy.kinds import anatomy
from structlin.config.model import MlpConfig
from structlin.config.science import Science
from structlin.models.layers import layer_norm, linear_layer
from structlin.nn.blocks import Blocks
from structlin.nn.linear import of_gelu
from structlin.nn.spec import Module, initialise


class MLP(Module):
    """Inputs (N, features) -> predictions (N, 1), or logits (N, classes) of images as rows of pixels."""

    def __init__(self, science: Science) -> None:
        super().__init__()
        model = science.model
        assert isinstance(model, MlpConfig)
        layers = {shape.name: linear_layer(shape, science) for shape in anatomy(science).linears}
        self.input = layers["input"]
        # As published no branch of a model of images is scaled, however deep it is.
        scale = 1.0 if science.data.kind == "classification" else math.sqrt(3 / model.num_layers)
        self.blocks = Blocks(Block(model, layers, f"blocks.{i}", scale) for i in range(model.num_layers))
        outer = layer_norm(model, next(iter(model.outer_norms), "norm"), model.d_model)
        self.gelu = model.outer_norm != "output"
        self.input_norm = outer if model.outer_norm == "input" else None
        self.norm = outer if model.outer_norm == "output" else None
        self.head = layers["head"]

    def forward(self, x: Tensor) -> Tensor:
        """x (N, features) -> (N, 1), or (N, classes)."""
        h = self.input(x)
        if self.gelu:
            h = functional.gelu(h)
        if self.input_norm is not None:
            h = self.input_norm(h)
        h = self.blocks(h)
        prediction: Tensor = self.head(h if self.norm is None else self.norm(h))
        return prediction


class Block(nn.Module):
    """Norm, up, GELU, down, added to what came in."""

    def __init__(self, model: MlpConfig, layers: Mapping[str, nn.Module], name: str, branch_scale: float) -> None:
        super().__init__()
        self.branch_scale = branch_scale
        self.norm = layer_norm(model, f"{name}.norm", model.d_model)
        self.up, self.down = layers[f"{name}.up"], layers[f"{name}.down"]

    def forward(self, h: Tensor) -> Tensor:
        """h (N, D) -> (N, D)."""
        return torch.add(h, of_gelu(self.down, self.up(self.norm(h))), alpha=self.branch_scale)


def build_mlp(science: Science) -> MLP:
    """The model of a run with its first weights, on the CPU; float64 where the science asks for it."""
    with torch.device("meta"):
        model = MLP(science)
    if science.model.dtype == "float64":
        model = model.double()
    model.to_empty(device="cpu")
    initialise(model, science.seed)
    return model
