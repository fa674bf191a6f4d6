"""Which models does the C++ of whole steps compute, and what does it have to know of them?

The regression's MLP, and every GPT-2 of this project but rotated positions, grouped keys, plain attention, a tied head,
mixtures, guides and sizes whose product is not the width. What it does not serve,
torch does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from structlin.kernels.steps.gpt2 import BlockPlaces, Gpt2Gradients, Gpt2Places
from structlin.kernels.steps.gradients import Gradients
from structlin.kernels.steps.library import Longs, library
from structlin.kernels.steps.mlp import MlpGradients, MlpPlaces
from structlin.kernels.steps.places import NOWHERE, HopPlace, LinearPlace, NormPlace, chain
from structlin.kernels.steps.row import Cap, Row, places_of
from structlin.models.gpt2 import GPT2, Block
from structlin.models.layers import FFN, LayerNorm
from structlin.models.mlp import MLP
from structlin.models.mlp import Block as MlpBlock
from structlin.nn.linear import ChainLinear, DenseLinear, EinsumLinear, Linear

At = Mapping[str, int]


def whole_gradients(model: nn.Module, task: str) -> Gradients | None:
    """Loss and gradients of a task's batches by the C++; None where it serves no such model, or is no faster."""
    is_gpt2 = isinstance(model, GPT2) and task in ("language", "pixels") and _serves_gpt2(model)
    is_mlp = isinstance(model, MLP) and task == "regression"
    if not (is_gpt2 or is_mlp) or not _serves_parameters(model):
        return None
    parameters = dict(model.named_parameters())
    at = places_of(parameters)
    places = _gpt2(model, at) if isinstance(model, GPT2) else _mlp(model, at)
    functions = library(next(model.parameters()).dtype) if places.pays else None
    if functions is None:
        return None
    row = Row(functions, parameters, dict(_caps(model)))
    if isinstance(places, Gpt2Places):
        return Gpt2Gradients(functions, places, row)
    return MlpGradients(functions, places, row)


# ---- what is served -------------------------------------------------------------------------------------------------


def _serves_parameters(model: nn.Module) -> bool:
    linears = [module for module in model.modules() if isinstance(module, Linear)]
    kinds = {(one.device.type, one.dtype) for one in model.parameters()}
    return kinds in ({("cpu", torch.float32)}, {("cpu", torch.float64)}) and all(map(_serves_linear, linears))


def _serves_gpt2(model: GPT2) -> bool:
    blocks = all(isinstance(block, Block) and _serves_block(block) for block in model.blocks)
    return blocks and model.positions is not None and isinstance(model.head, Linear)


def _serves_block(block: Block) -> bool:
    attention, ffn = block.attention, block.ffn
    parts = [getattr(attention, part) for part in "qkvo"]
    if not isinstance(ffn, FFN) or not all(isinstance(one, Linear) for one in (*parts, ffn.up, ffn.down)):
        return False
    is_plain = attention.causal and not attention.rotates and not attention.is_grouped
    is_normed = attention.q_norm is not None and attention.k_norm is not None
    return is_plain and is_normed and not any(attention.transposed.values())


def _serves_linear(linear: Linear) -> bool:
    if linear.guide is not None or (linear.used_in, linear.used_out) != (linear.d_in, linear.d_out):
        return False
    is_fed = isinstance(linear, EinsumLinear) and linear.plan.output_order == "fed"
    return is_fed or isinstance(linear, DenseLinear | ChainLinear)


# ---- its description ------------------------------------------------------------------------------------------------


def _caps(model: nn.Module) -> Iterator[tuple[str, Cap]]:
    for name, module in model.named_modules():
        if isinstance(module, Linear) and module.weight_norm != "none":
            is_learned = module.weight_norm == "learned"
            for factor in module.plan.factors:
                scale = f"{name}.scale_{factor.name}" if is_learned else None
                yield f"{name}.{factor.name}", Cap(factor.std, scale)


def _gpt2(model: GPT2, at: At) -> Gpt2Places:
    blocks = [_block(block, f"blocks.{i}", at) for i, block in enumerate(model.blocks) if isinstance(block, Block)]
    first = next(iter(model.blocks))
    assert isinstance(first, Block)
    assert isinstance(model.head, Linear)
    features = first.attention.q.d_out
    assert isinstance(features, int)
    return Gpt2Places(
        width=model.tokens.shape[1],
        features=features,
        heads=features // first.attention.d_head,
        vocabulary=model.head.d_out,
        inputs=model.tokens.shape[0],
        tokens=at["tokens"],
        positions=at["positions"],
        norm=_norm(model.norm, "norm", at),
        head=_linear(model.head, "head", at),
        blocks=blocks,
        attention_scale=first.attention.scale,
        branch_scale=first.branch_scale,
    )


def _mlp(model: nn.Module, at: At) -> MlpPlaces:
    assert isinstance(model, MLP)
    assert isinstance(model.input, Linear)
    assert isinstance(model.head, Linear)
    name, outer = ("input_norm", model.input_norm) if model.norm is None else ("norm", model.norm)
    blocks = [block for block in model.blocks if isinstance(block, MlpBlock)]
    return MlpPlaces(
        width=model.input.d_out,
        has_gelu=model.gelu,
        outer=None if outer is None else _norm(outer, name, at),
        norms_input=model.norm is None,
        input=_linear(model.input, "input", at),
        head=_linear(model.head, "head", at),
        blocks=[_mlp_block(block, f"blocks.{i}", at) for i, block in enumerate(blocks)],
        branch_scale=blocks[0].branch_scale,
    )


def _mlp_block(block: MlpBlock, name: str, at: At) -> tuple[NormPlace, LinearPlace, LinearPlace]:
    assert isinstance(block.up, Linear)
    assert isinstance(block.down, Linear)
    up, down = _linear(block.up, f"{name}.up", at), _linear(block.down, f"{name}.down", at)
    return _norm(block.norm, f"{name}.norm", at), up, down


def _block(block: Block, name: str, at: At) -> BlockPlaces:
    attention, ffn = block.attention, block.ffn
    assert isinstance(ffn, FFN)
    assert attention.q_norm is not None
    assert attention.k_norm is not None
    q, k, v, o = (_linear(getattr(attention, part), f"{name}.attention.{part}", at) for part in "qkvo")
    up, down = (_linear(getattr(ffn, part), f"{name}.ffn.{part}", at) for part in ("up", "down"))
    return BlockPlaces(
        norms=(
            _norm(block.attention_norm, f"{name}.attention_norm", at),
            _norm(attention.q_norm, f"{name}.attention.q_norm", at),
            _norm(attention.k_norm, f"{name}.attention.k_norm", at),
            _norm(block.ffn_norm, f"{name}.ffn_norm", at),
        ),
        linears=(q, k, v, o, up, down),
    )


def _norm(norm: LayerNorm, name: str, at: At) -> NormPlace:
    return NormPlace(norm.gain.shape[0], at[f"{name}.gain"], at.get(f"{name}.bias", NOWHERE))


def _linear(linear: Linear, name: str, at: At) -> LinearPlace:
    bias = at.get(f"{name}.bias", NOWHERE)
    if isinstance(linear, DenseLinear):
        return LinearPlace(linear.d_in, linear.d_out, 1, 1, 1, 1, 1, 1, 1, 1, at[f"{name}.weight"], NOWHERE, bias)
    if isinstance(linear, ChainLinear):
        steps = _chain(linear, name, at)
        return LinearPlace(linear.d_in, linear.d_out, 0, 0, 0, 0, 0, 0, 0, 0, NOWHERE, NOWHERE, bias, steps)
    first, second = (factor.name for factor in linear.plan.factors)
    shapes: list[Tensor] = [getattr(linear, first), getattr(linear, second)]
    (g, r, f, d, a), (_, e, _, b, _) = (tensor.shape for tensor in shapes)
    places = at[f"{name}.{first}"], at[f"{name}.{second}"]
    return LinearPlace(linear.d_in, linear.d_out, g, b, a, r, f, d, e, int(linear.plan.a_first), *places, bias)


def _chain(linear: ChainLinear, name: str, at: At) -> Longs:
    hops = []
    for hop in linear.hops:
        batch, new, contracted = hop.matrices
        order = hop.order()
        sizes = batch, new, contracted, len(order) // (batch * contracted)
        hops.append(HopPlace(at[f"{name}.{hop.name}"], sizes, order))
    return chain(hops, linear.outputs())
