"""What do all models put together? Layers of the shapes of an anatomy, feed-forward networks, layer norm."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from structlin.anatomy.kinds import anatomy
from structlin.anatomy.shapes import LinearShape
from structlin.config.model import ModelConfig
from structlin.config.science import Science
from structlin.kernels.precision import product_dtype
from structlin.nn.experts import Experts
from structlin.nn.linear import Linear, LinearOptions, make_linear, of_gelu
from structlin.nn.moe import MoeFfn, MoeLinear
from structlin.nn.router import Router
from structlin.nn.spec import Module, ParamSpec


class FFN(nn.Module):
    """up, GELU, down."""

    def __init__(self, layers: Mapping[str, nn.Module], name: str) -> None:
        super().__init__()
        self.up, self.down = layers[f"{name}.up"], layers[f"{name}.down"]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D)."""
        return of_gelu(self.down, self.up(x))


class LayerNorm(Module):
    """Layer norm over the last dimension with a gain and, where asked for, a bias.

    Where products alone read its result it leaves it in the dtype that autocast gives them, so that it is cast once.
    """

    bias: nn.Parameter | None

    def __init__(self, features: int, *, bias: bool = False, feeds_products: bool = True) -> None:
        super().__init__()
        self.feeds_products = feeds_products
        self.gain = nn.Parameter(torch.ones(features))
        self.register_parameter("bias", nn.Parameter(torch.zeros(features)) if bias else None)

    def param_specs(self) -> Mapping[str, ParamSpec]:
        """The gain starts at 1, the bias at 0, and both learn at lr0."""
        gain = {"gain": ParamSpec("gain", 0.0, mean=1.0)}
        return gain if self.bias is None else {**gain, "bias": ParamSpec("bias", 0.0)}

    def forward(self, x: Tensor) -> Tensor:
        """x (..., features) -> the same shape."""
        y = functional.layer_norm(x, self.gain.shape, self.gain, self.bias)
        dtype = product_dtype(x.device) if self.feeds_products else None
        return y if dtype is None else y.to(dtype)


def layer_norm(model: ModelConfig, name: str, features: int) -> LayerNorm:
    """The layer norm of this name, with a bias where the model gives it one."""
    # Behind the input's norm of an MLP stands the residual stream.
    return LayerNorm(features, bias=model.has_bias(name), feeds_products=name != "input_norm")


def build_layers(science: Science) -> dict[str, nn.Module]:
    """The linears of a model by name, each a mixture where it has a router of its own; and the routers it shares.

    A tied head is none of them: it has no weights.
    """
    body, moe = anatomy(science), science.moe
    layers: dict[str, nn.Module] = {
        shape.name: Router(
            shape.d_in,
            shape.num_experts,
            moe.top_k,
            base_d_in=shape.base_d_in,
            evaluation_top_k=moe.evaluation_top_k,
            capacity=moe.capacity,
            std=shape.d_in**-0.5 if moe.router_start == "random" else 0.0,
            rate_rule=science.optim.rate_rule,
        )
        for shape in body.routers
    }
    for shape in body.linears:
        if shape.tied:
            continue
        layer = linear_layer(shape, science)
        if shape.has_own_router:
            router = layers.pop(shape.router)
            assert isinstance(router, Router)
            assert isinstance(layer, Experts)
            layers[shape.name] = MoeLinear(router, layer)
        else:
            layers[shape.name] = layer
    return layers


def ffn_layer(layers: Mapping[str, nn.Module], name: str) -> nn.Module:
    """A plain FFN, or a mixture of them where they have a router."""
    router, up, down = layers.get(f"{name}.router"), layers[f"{name}.up"], layers[f"{name}.down"]
    if router is None:
        return FFN(layers, name)
    assert isinstance(router, Router)
    assert isinstance(up, Experts)
    assert isinstance(down, Experts)
    return MoeFfn(router, up, down)


def linear_layer(shape: LinearShape, science: Science) -> Linear | Experts:
    """The layer, or the experts, of a linear's shape, under the run's rate rule and weight normalisation."""
    model = science.model
    norm = model.weight_norm
    if norm == "learned" and not shape.learned_scale:
        norm = "fixed"
    rule, shares = science.optim.rate_rule, shape.shares_cap
    options = LinearOptions(
        shape.base_d_in,
        shape.starts_at_zero,
        rule,
        norm,
        shape.bias,
        shares,
        model.init,
        model.init_std,
        rate=shape.rate,
    )
    return Experts(shape.plan, shape.num_experts, options) if shape.router else make_linear(shape.plan, options)
