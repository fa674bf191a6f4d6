"""What is an MLP made of? The student of the regression (arXiv 2410.02117), or that of images (arXiv 2406.06248)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from structlin.anatomy.shapes import Anatomy, LinearShape, linear_shape
from structlin.config.model import MlpConfig
from structlin.config.science import Science

INPUT_FEATURES = 8
OUTPUT_FEATURES = 1


def mlp_anatomy(science: Science, model: MlpConfig) -> Anatomy:
    """The linears and norms of a residual MLP; a token is a sample."""
    width = model.d_model
    return Anatomy(
        linears=tuple(_linears(science, model)),
        embedding_params=0,
        norm_params=_norm_params(model),
        normed_elements=(model.num_layers + len(model.outer_norms)) * width,
        attention_macs=0,
        # A block keeps its residual state.
        kept_by_block=width,
        # A GELU after the input is kept before and after it.
        kept_outside=width if model.outer_norm == "output" else 2 * width,
    )


def features_of(science: Science) -> tuple[int, int]:
    """Features of a sample, and those that are asked of it: numbers and one, or pixels and classes."""
    if science.data.kind == "classification":
        return prod(science.data.shape), science.data.classes
    return INPUT_FEATURES, OUTPUT_FEATURES


def _norm_params(model: MlpConfig) -> int:
    """Gains of a norm a block and one outside, and biases where there are any."""
    names = [*model.outer_norms, *(f"blocks.{layer}.norm" for layer in range(model.num_layers))]
    return sum(model.d_model * (2 if model.has_bias(name) else 1) for name in names)


def _linears(science: Science, model: MlpConfig) -> Iterator[LinearShape]:
    width, hidden = model.d_model, model.ffn_expansion * model.d_model
    base, base_hidden = model.base_width, model.base_ffn_expansion * model.base_width
    # The input's fan-in does not grow with the width: its rate is lr0 at every width.
    inputs, outputs = features_of(science)
    yield replace(linear_shape(science, "input", inputs, width, inputs), rate=model.input_rate)
    for layer in range(model.num_layers):
        yield linear_shape(science, f"blocks.{layer}.up", width, hidden, base)
        yield linear_shape(science, f"blocks.{layer}.down", hidden, width, base_hidden, is_last=True, reads_gelu=True)
    yield linear_shape(science, "head", width, outputs, base, is_last=True)
