"""What is a vision transformer made of? Source: arXiv 2406.06248. A token is an image, so its linears serve patches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from structlin.anatomy.shapes import Anatomy, LinearShape, linear_shape
from structlin.config.model import VitConfig
from structlin.config.science import Science
from structlin.structure import Theta, plan_linear
from structlin.structure.heads import head_aware_sizes


def vit_anatomy(science: Science, model: VitConfig) -> Anatomy:
    """The linears, positions and norms of a vision transformer on the images of a run."""
    shape, width, depth = science.data.shape, model.d_model, model.num_layers
    positions = model.rows_of(shape)
    patches = positions - (model.pool == "class")
    sizes = _norm_sizes(science, model)
    # Of the patches before and after their linear, of both norms a block and the last, of all heads of q and k.
    normed = patches * (sizes["patch_norm"] + width) + (4 * depth * positions + 1) * width
    return Anatomy(
        linears=tuple(_linears(science, model, positions, patches)),
        embedding_params=(positions + (model.pool == "class")) * width,
        norm_params=sum(size * (2 if model.has_bias(name) else 1) for name, size in sizes.items()),
        normed_elements=normed,
        attention_macs=2 * positions * positions * width * depth,
        # As a GPT-2's, of every position.
        kept_by_block=8 * width * positions,
        positions=positions,
        kept_outside=patches * (sizes["patch_norm"] + width) + width + 2 * science.data.classes,
    )


def _norm_sizes(science: Science, model: VitConfig) -> dict[str, int]:
    """Features of every layer norm by name."""
    of_block = {name: model.head_size if name.startswith("attention.") else model.d_model for name in model.BLOCK_NORMS}
    sizes = {f"blocks.{i}.{name}": size for i in range(model.num_layers) for name, size in of_block.items()}
    sizes |= dict.fromkeys(model.outer_norms, model.d_model)
    return {**sizes, "patch_norm": _patch_features(science, model)}


def _patch_features(science: Science, model: VitConfig) -> int:
    return model.patch * model.patch * science.data.shape[2]


def _linears(science: Science, model: VitConfig, positions: int, patches: int) -> Iterator[LinearShape]:
    width, hidden = model.d_model, model.ffn_expansion * model.d_model
    base, base_hidden = model.base_width, model.base_ffn_expansion * model.base_width
    features = _patch_features(science, model)
    # The patches' fan-in does not grow with the width: its rate is lr0 at every width.
    first = linear_shape(science, "input", features, width, features)
    yield replace(first, uses=patches, rate=model.input_rate)
    for layer in range(model.num_layers):
        block = f"blocks.{layer}"
        for part in "qkvo":
            name, learned = f"{block}.attention.{part}", part in "vo"
            shape = linear_shape(science, name, width, width, base, is_last=part == "o", learned_scale=learned)
            yield replace(_head_aware(shape, science, model), uses=positions)
        up, down = f"{block}.ffn.up", f"{block}.ffn.down"
        yield replace(linear_shape(science, up, width, hidden, base), uses=positions)
        yield replace(
            linear_shape(science, down, hidden, width, base_hidden, is_last=True, reads_gelu=True), uses=positions
        )
    yield linear_shape(science, "head", width, science.data.classes, base, is_last=True)


def _head_aware(shape: LinearShape, science: Science, model: VitConfig) -> LinearShape:
    """A linear of attention with the axes of the run's head layout, where it takes the structure and there is one."""
    layout = science.structure.head_layout
    if layout == "none" or not model.is_structured(shape.name):
        return shape
    sizes = head_aware_sizes(layout, model.heads, model.head_size, Theta.parse(science.structure.theta))
    return replace(shape, plan=plan_linear(sizes, science.structure.contraction))
