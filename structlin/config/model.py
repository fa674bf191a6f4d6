"""Which model is trained? One group of fields for each kind of model, told apart by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from structlin.config.checks import LARGEST_SIZE, above_zero, at_least, one_of
from structlin.errors import UserError

DTYPES = ("float32", "tf32", "bfloat16", "float64")

MOST_LAYERS = 10_000

ALL_BLOCKS = ("blocks.*",)
"""Pattern of every linear of the blocks: all but the head, and the input of a model that has one."""


@dataclass(frozen=True)
class ModelConfig(ABC):
    """What every model has: residual blocks of a width."""

    name: str = ""
    """gpt2, mlp or vit."""
    d_model: int = 256
    """Width: features of the residual stream."""
    num_layers: int = 3
    """Residual blocks."""
    ffn_expansion: int = 4
    structured: tuple[str, ...] = ALL_BLOCKS
    """Patterns of the names of the linears that take the structure; the others are dense."""
    weight_norm: str = "none"
    """RMS cap of every factor: none, fixed (scale 1) or learned (a learnable scale; fixed for q and k)."""
    biases: tuple[str, ...] = ()
    """Patterns of the names of the linears and layer norms that add a bias, which starts at zero and learns at lr0."""
    base_width: int = 768
    """Width at which the muP multipliers of a dense layer are 1."""
    base_ffn_expansion: int = 1
    """FFN expansion of the base shape: 1 makes the base fan-in of the FFN output equal base_width."""
    dtype: str = "bfloat16"
    """Arithmetic of matrix products: float32, tf32 (float32 whose products on a GPU read 10 bits of each operand; on a
    CPU it is float32), bfloat16 (autocast, float32 weights) or float64."""

    LEARNS: ClassVar[tuple[str, ...]] = ()
    """Kinds of tasks that the model can learn (science.TASKS)."""
    ANATOMY: ClassVar[str] = ""
    """What it is made of and costs: module:function(science, model) -> Anatomy, without torch."""
    BUILDER: ClassVar[str] = ""
    """How it is built: module:function(science) -> nn.Module with its first weights."""
    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = ()
    """Names of the linears of a block."""
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ()
    """Names of the linears outside of the blocks."""
    BLOCK_NORMS: ClassVar[tuple[str, ...]] = ()
    """Names of the layer norms of a block."""

    def __post_init__(self) -> None:
        one_of("model.name", self.name, tuple(name for name, kind in MODELS.items() if kind is type(self)))
        one_of("model.weight_norm", self.weight_norm, ("none", "fixed", "learned"))
        one_of("model.dtype", self.dtype, DTYPES)
        for name in ("d_model", "num_layers", "ffn_expansion", "base_width", "base_ffn_expansion"):
            at_least(f"model.{name}", getattr(self, name), 1, LARGEST_SIZE)
        at_least("model.num_layers", self.num_layers, 1, MOST_LAYERS)
        self._check_patterns()

    @property
    @abstractmethod
    def context(self) -> int:
        """Tokens a sequence; a step takes whole sequences."""

    @property
    @abstractmethod
    def width_step(self) -> int:
        """Widths that a plan chooses are multiples of this."""

    @property
    @abstractmethod
    def outer_norms(self) -> tuple[str, ...]:
        """Names of the layer norms outside of the blocks."""

    def check_images(self, shape: tuple[int, int, int] | None) -> None:  # noqa: B027 (few models read images)
        """UserError where the model cannot read images of this height, width and channels (None: no images)."""

    def is_structured(self, linear: str) -> bool:
        """Whether the linear of this name takes the structure."""
        return _is_among(linear, self.structured)

    def has_bias(self, name: str) -> bool:
        """Whether the linear or layer norm of this name adds a bias."""
        return _is_among(name, self.biases)

    def _check_patterns(self) -> None:
        """A pattern of nothing would leave a model dense, or without biases, under another name."""
        if not self.structured:
            raise UserError("model.structured is empty, so no linear takes the structure; use structure=dense")
        self._check_names("structured", self.structured, "linear", self.OUTER_LINEARS, self.BLOCK_LINEARS)
        outer, inner = (*self.OUTER_LINEARS, *self.outer_norms), (*self.BLOCK_LINEARS, *self.BLOCK_NORMS)
        self._check_names("biases", self.biases, "linear or layer norm", outer, inner)

    def _check_names(
        self, key: str, patterns: tuple[str, ...], kind: str, outer: tuple[str, ...], inner: tuple[str, ...]
    ) -> None:
        names = [*outer, *(f"blocks.{layer}.{part}" for layer in range(self.num_layers) for part in inner)]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(
                    f"model.{key} = '{pattern}' matches no {kind}; names: {', '.join(outer)} and "
                    f"blocks.<0..{self.num_layers - 1}>.{{{', '.join(inner)}}}"
                )


def _is_among(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Gpt2Config(ModelConfig):
    """A GPT-2 of arXiv 2410.02117 (appendix): pre-LN, q/k layer norm, learned positions, untied head.

    Biases and a zero start of q make it the model of the next pixel.
    """

    name: str = "gpt2"
    d_head: int | None = 64
    """Features of a head, the number of heads growing with the width; None where num_heads is fixed instead."""
    num_heads: int | None = None
    """A fixed number of heads, their size growing with the width."""
    context: int = 128
    """Tokens a sequence; of images after a start token those that are predicted, or one more: the last is read too."""
    zero_start: tuple[str, ...] = ()
    """Patterns of linears that start as the zero map, besides the last of every branch and the head."""
    weight_norm_experts: str = "own"
    """RMS cap of the experts of a linear: own (one each), or shared (one RMS and, where it is learned, one scale per
    factor over all of them, in q and k too)."""

    LEARNS: ClassVar[tuple[str, ...]] = ("language", "pixels")
    ANATOMY: ClassVar[str] = "structlin.anatomy.gpt2:gpt2_anatomy"
    BUILDER: ClassVar[str] = "structlin.models.gpt2:build_gpt2"
    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = (
        "attention.q",
        "attention.k",
        "attention.v",
        "attention.o",
        "ffn.up",
        "ffn.down",
    )
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ("head",)
    BLOCK_NORMS: ClassVar[tuple[str, ...]] = ("attention_norm", "attention.q_norm", "attention.k_norm", "ffn_norm")

    def __post_init__(self) -> None:
        if (self.d_head is None) == (self.num_heads is None):
            raise UserError(
                f"model.d_head = {self.d_head} and model.num_heads = {self.num_heads}: one of them is a number and "
                "the other null; d_model / it gives the other"
            )
        at_least("model.d_head" if self.num_heads is None else "model.num_heads", self.width_step, 1, LARGEST_SIZE)
        super().__post_init__()
        one_of("model.weight_norm_experts", self.weight_norm_experts, ("own", "shared"))
        self._check_names("zero_start", self.zero_start, "linear", self.OUTER_LINEARS, self.BLOCK_LINEARS)
        at_least("model.context", self.context, 1, LARGEST_SIZE)
        if self.d_model % self.width_step:
            low = max(1, self.d_model // self.width_step) * self.width_step
            name = "d_head" if self.num_heads is None else "num_heads"
            raise UserError(
                f"model.d_model = {self.d_model} is no multiple of model.{name} = {self.width_step}; "
                f"nearest widths: {low}, {low + self.width_step}"
            )

    def starts_at_zero(self, linear: str) -> bool:
        """Whether the linear of this name is asked to start as the zero map."""
        return _is_among(linear, self.zero_start)

    @property
    def outer_norms(self) -> tuple[str, ...]:
        """The one before the head."""
        return ("norm",)

    @property
    def width_step(self) -> int:
        """Heads divide the width."""
        return (self.d_head if self.num_heads is None else self.num_heads) or 0

    @property
    def head_size(self) -> int:
        """Features of an attention head."""
        return self.d_model // self.num_heads if self.num_heads else self.d_head or 0

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.d_model // self.head_size


@dataclass(frozen=True)
class MlpConfig(ModelConfig):
    """A residual pre-LN MLP with GELU blocks: of samples (arXiv 2410.02117, MLP regression), or of whole images whose
    pixels come in one random order (arXiv 2406.06248)."""

    name: str = "mlp"
    base_width: int = 64
    dtype: str = "float32"
    outer_norm: str = "output"
    """Where the layer norm outside of the blocks stands. output: h0 = W x and a norm before the head; input, as
    published: h0 = LN(gelu(W x)) and none before the head; none, as published for images: h0 = gelu(W x)."""
    input_rate: float = 1.0
    """Rate of the input layer over that of its rule; its bias learns at this rate too."""

    LEARNS: ClassVar[tuple[str, ...]] = ("regression", "classification")
    ANATOMY: ClassVar[str] = "structlin.anatomy.mlp:mlp_anatomy"
    BUILDER: ClassVar[str] = "structlin.models.mlp:build_mlp"
    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = ("up", "down")
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ("input", "head")
    BLOCK_NORMS: ClassVar[tuple[str, ...]] = ("norm",)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("model.outer_norm", self.outer_norm, ("input", "output", "none"))
        above_zero("model.input_rate", self.input_rate)

    @property
    def outer_norms(self) -> tuple[str, ...]:
        """One, before the blocks or after them, or none."""
        return {"input": ("input_norm",), "output": ("norm",)}.get(self.outer_norm, ())

    @property
    def context(self) -> int:
        """One: a token is a sample."""
        return 1

    @property
    def width_step(self) -> int:
        """Planned widths are multiples of 16, which every structure divides well."""
        return 16


@dataclass(frozen=True)
class VitConfig(ModelConfig):
    """A vision transformer of arXiv 2406.06248: patches, a class token, q/k layer norm, learned positions.

    Biases everywhere but in q, k and v; q, and the last of every branch, and the head start as the zero map.
    """

    name: str = "vit"
    patch: int = 8
    """Side of a patch in pixels, which divides that of an image."""
    num_heads: int = 8
    """Attention heads, their size growing with the width."""
    pool: str = "class"
    """What the head reads: class (a token of its own), or mean (of all patches)."""
    biases: tuple[str, ...] = ("*norm", "input", "blocks.*.attention.o", "blocks.*.ffn.*", "head")
    zero_start: tuple[str, ...] = ("blocks.*.attention.q",)
    """Patterns of linears that start as the zero map, besides the last of every branch and the head."""
    base_width: int = 64
    base_ffn_expansion: int = 4
    dtype: str = "float32"
    input_rate: float = 1.0
    """Rate of the patches' linear and the norms beside it over that of their rules."""

    LEARNS: ClassVar[tuple[str, ...]] = ("classification",)
    ANATOMY: ClassVar[str] = "structlin.anatomy.vit:vit_anatomy"
    BUILDER: ClassVar[str] = "structlin.models.vit:build_vit"
    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = Gpt2Config.BLOCK_LINEARS
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ("input", "head")
    BLOCK_NORMS: ClassVar[tuple[str, ...]] = Gpt2Config.BLOCK_NORMS

    def __post_init__(self) -> None:
        at_least("model.num_heads", self.num_heads, 1, LARGEST_SIZE)
        super().__post_init__()
        at_least("model.patch", self.patch, 1, LARGEST_SIZE)
        one_of("model.pool", self.pool, ("class", "mean"))
        above_zero("model.input_rate", self.input_rate)
        self._check_names("zero_start", self.zero_start, "linear", self.OUTER_LINEARS, self.BLOCK_LINEARS)
        if self.d_model % self.num_heads:
            low = max(1, self.d_model // self.num_heads) * self.num_heads
            raise UserError(
                f"model.d_model = {self.d_model} is no multiple of model.num_heads = {self.num_heads}; nearest widths: "
                f"{low}, {low + self.num_heads}"
            )

    def check_images(self, shape: tuple[int, int, int] | None) -> None:
        """Patches tile an image."""
        if shape is not None and (shape[0] % self.patch or shape[1] % self.patch):
            fitting = [side for side in range(1, shape[0] + 1) if shape[0] % side == 0 and shape[1] % side == 0]
            raise UserError(
                f"model.patch = {self.patch} does not divide images of {shape[0]} x {shape[1]} pixels; those that do: "
                + ", ".join(map(str, fitting))
            )

    def starts_at_zero(self, linear: str) -> bool:
        """Whether the linear of this name is asked to start as the zero map."""
        return _is_among(linear, self.zero_start)

    @property
    def outer_norms(self) -> tuple[str, ...]:
        """Before and after the patches' linear, and before the head."""
        return ("patch_norm", "input_norm", "norm")

    @property
    def context(self) -> int:
        """One: a token is an image."""
        return 1

    @property
    def width_step(self) -> int:
        """Heads divide the width."""
        return self.num_heads

    @property
    def head_size(self) -> int:
        """Features of an attention head."""
        return self.d_model // self.num_heads

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.num_heads

    def positions(self, shape: tuple[int, int, int]) -> int:
        """Patches of an image of this height, width and channels, and the class token where there is one."""
        return shape[0] // self.patch * (shape[1] // self.patch) + (self.pool == "class")


MODELS: dict[str, type[ModelConfig]] = {"gpt2": Gpt2Config, "mlp": MlpConfig, "vit": VitConfig}
