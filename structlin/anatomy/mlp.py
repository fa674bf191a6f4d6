"""What is the student of the regression made of? Source: arXiv 2410.02117 (MLP regression)."""

from __future__ import annotations

from collections.abc import Iterator

from structlin.anatomy.shapes import Anatomy, LinearShape, linear_shape
from structlin.config.model import MlpConfig
from structlin.config.science import Science

INPUT_FEATURES = 8
OUTPUT_FEATURES = 1


def mlp_anatomy(science: Science, model: MlpConfig) -> Anatomy:
    """The linears and norms of a residual MLP; a token is a sample."""
    width, depth = model.d_model, model.num_layers
    return Anatomy(
        linears=tuple(_linears(science, model)),
        embedding_params=0,
        norm_params=(depth + 1) * width,
        normed_elements=(depth + 1) * width,
        attention_macs=0,
        # A block keeps its residual state.
        kept_by_block=width,
        kept_outside=width,
    )


def _linears(science: Science, model: MlpConfig) -> Iterator[LinearShape]:
    width, hidden = model.d_model, model.ffn_expansion * model.d_model
    base, base_hidden = model.base_width, model.base_ffn_expansion * model.base_width
    # The input's fan-in does not grow with the width: its rate is lr0 at every width.
    yield linear_shape(science, "input", INPUT_FEATURES, width, INPUT_FEATURES)
    for layer in range(model.num_layers):
        yield linear_shape(science, f"blocks.{layer}.up", width, hidden, base)
        yield linear_shape(science, f"blocks.{layer}.down", hidden, width, base_hidden, zero=True, reads_gelu=True)
    yield linear_shape(science, "head", width, OUTPUT_FEATURES, base, zero=True)
