"""What is a GPT-2 made of? Source: arXiv 2410.02117, appendix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from structlin.anatomy.experts import kept_elements, routed, routers
from structlin.anatomy.shapes import Anatomy, LinearShape, linear_shape
from structlin.config.model import Gpt2Config
from structlin.config.science import Science
from structlin.data import input_vocab_size, vocab_size
from structlin.structure import Theta, plan_linear
from structlin.structure.heads import head_aware_sizes


def gpt2_anatomy(science: Science, model: Gpt2Config) -> Anatomy:
    """The linears, tables and norms of a GPT-2."""
    vocab, width, depth = vocab_size(science.data.tokenizer), model.d_model, model.num_layers
    shared = model.weight_norm_experts == "shared"
    inner = tuple(routed(shape, science.moe, shares_cap=shared) for shape in _blocks(science, model))
    normed = model.features + model.kv_features if model.qk_norm else 0
    return Anatomy(
        linears=(*inner, _head(science, model, vocab)),
        embedding_params=(input_vocab_size(science.data.tokenizer) + _positions(model)) * width,
        norm_params=_norm_params(model),
        # Two norms a block and one before the head at d_model, and those of all heads of q and k.
        normed_elements=(2 * depth + len(model.outer_norms)) * width + depth * normed,
        attention_macs=2 * model.context * model.features * depth,
        # A block keeps both residual states, q and k before their norms and as they are multiplied, v, and attention's
        # output.
        kept_by_block=2 * width + normed + 2 * model.features + 2 * model.kv_features + kept_elements(inner) // depth,
        kept_outside=width + 2 * vocab,
        routers=routers(inner),
    )


def _positions(model: Gpt2Config) -> int:
    """Rows of the table of positions."""
    return model.context if model.positions == "learned" else 0


def _norm_params(model: Gpt2Config) -> int:
    """Gains, and biases where there are any: two norms a block and one before the head, those of q and k a head's."""
    of_block = {name: model.head_size if name.startswith("attention.") else model.d_model for name in model.block_norms}
    sizes = {f"blocks.{i}.{name}": size for i in range(model.num_layers) for name, size in of_block.items()}
    sizes |= dict.fromkeys(model.outer_norms, model.d_model)
    return sum(size * (2 if model.has_bias(name) else 1) for name, size in sizes.items())


def _blocks(science: Science, model: Gpt2Config) -> Iterator[LinearShape]:
    width, hidden = model.d_model, model.ffn_expansion * model.d_model
    base, base_hidden = model.base_width, model.base_ffn_expansion * model.base_width
    for layer in range(model.num_layers):
        block = f"blocks.{layer}"
        for part in "qkvo":
            name, learned = f"{block}.attention.{part}", part in "vo" or not model.qk_norm
            d_in, d_out = _ends(model, part)
            shape = linear_shape(science, name, d_in, d_out, base, is_last=part == "o", learned_scale=learned)
            yield _head_aware(shape, science, model)
        yield linear_shape(science, f"{block}.ffn.up", width, hidden, base)
        yield linear_shape(science, f"{block}.ffn.down", hidden, width, base_hidden, is_last=True, reads_gelu=True)


def _ends(model: Gpt2Config, part: str) -> tuple[int, int]:
    """d_in and d_out of a linear of attention."""
    if part == "o":
        return model.features, model.d_model
    return model.d_model, model.features if part == "q" else model.kv_features


def _head_aware(shape: LinearShape, science: Science, model: Gpt2Config) -> LinearShape:
    """A linear of attention with the axes of the run's head layout, where it takes the structure and there is one."""
    layout = science.structure.head_layout
    if layout == "none" or not model.is_structured(shape.name):
        return shape
    sizes = head_aware_sizes(layout, model.heads, model.head_size, Theta.parse(science.structure.theta))
    return replace(shape, plan=plan_linear(sizes, science.structure.contraction))


def _head(science: Science, model: Gpt2Config, vocab: int) -> LinearShape:
    shape = linear_shape(science, "head", model.d_model, vocab, model.base_width, is_last=True)
    return replace(shape, tied=model.tied)
