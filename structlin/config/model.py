"""Which model is trained? One group of fields for each kind of model, told apart by its name."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from structlin.config.checks import LARGEST_SIZE, above_zero, at_least, one_of
from structlin.errors import UserError

DTYPES = ("float32", "tf32", "bfloat16", "float64")

INITS = ("spectral", "fixed", "orthonormal", "svd")
"""How weights start (nn/linear.py); under spectral alone the last map of every branch, and the head, start at zero."""
POSITIONS = ("learned", "rope")
BRANCH_SCALES = ("depth", "one")
LOGIT_SCALES = ("mup", "sqrt")

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
    init: str = "spectral"
    """spectral: every factor by its own fans, the last map of every branch and the head from zero; fixed: every weight
    N(0, init_std); orthonormal: the blocks of every factor with orthonormal rows or columns; svd: the two factors
    nearest to a drawn dense weight. Under the last two, too, a dense weight is N(0, init_std), and nothing is zero."""
    init_std: float = 0.02
    """Standard deviation of embeddings and, but for spectral, of the weights that are drawn."""
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
        one_of("model.init", self.init, INITS)
        if not 0 < self.init_std < math.inf:
            raise UserError(f"model.init_std = {self.init_std} must be a number above 0, such as 0.02")
        if self.init != "spectral" and self.weight_norm != "none":
            raise UserError(
                f"model.weight_norm = {self.weight_norm} caps factors at their spectral scale, where model.init = "
                f"{self.init} does not start them; use model.weight_norm=none, or model.init=spectral"
            )
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

    @property
    def block_norms(self) -> tuple[str, ...]:
        """Names of the layer norms that a block has."""
        return self.BLOCK_NORMS

    def starts_at_zero(self, linear: str, *, is_last: bool = False) -> bool:
        """Whether the linear of this name is the zero map at first; ``is_last``: of its branch, or of the model."""
        return is_last and self.init == "spectral"

    @property
    def recipe(self) -> tuple[str, ...]:
        """What makes it another kind of model than those of arXiv 2410.02117, a word an option, for its variant."""
        return ()

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
        outer, inner = (*self.OUTER_LINEARS, *self.outer_norms), (*self.BLOCK_LINEARS, *self.block_norms)
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

    Biases and a zero start of q make it the model of the next pixel; rotated positions, a tied head, plain attention
    and a plain start that of arXiv 2406.16450 (StructuredFFN).
    """

    name: str = "gpt2"
    d_head: int | None = 64
    """Features of a head, the number of heads growing with the width; None where num_heads is fixed instead."""
    num_heads: int | None = None
    """A fixed number of heads, their size growing with the width."""
    kv_heads: int | None = None
    """Heads of keys and values, each read by equally many heads of queries in a row; None: as many as of queries."""
    attention_width: int | None = None
    """Features of all heads of queries: q maps d_model to it and o back; None: d_model."""
    context: int = 128
    """Tokens a sequence; of images after a start token those that are predicted, or one more: the last is read too."""
    positions: str = "learned"
    """learned: a table that is added to the tokens; rope: queries and keys are rotated (base 10,000, halves)."""
    tied: bool = False
    """Whether the head is the table of tokens."""
    qk_norm: bool = True
    """Whether the queries and the keys of every head pass a layer norm."""
    branch_scale: str = "depth"
    """Of the residual branches: depth (sqrt(3 / num_layers)) or one."""
    logit_scale: str = "mup"
    """Of the products of queries and keys: mup (8 / head size) or sqrt (1 / sqrt(head size)); equal at 64."""
    zero_start: tuple[str, ...] = ()
    """Patterns of linears that start as the zero map, besides the last of every branch and the head, which do so under
    init=spectral."""
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
    """Under qk_norm=false those of the queries and keys are not there."""

    def __post_init__(self) -> None:
        if (self.d_head is None) == (self.num_heads is None):
            raise UserError(
                f"model.d_head = {self.d_head} and model.num_heads = {self.num_heads}: one of them is a number and "
                "the other null; d_model / it gives the other"
            )
        given = self.d_head if self.num_heads is None else self.num_heads
        at_least("model.d_head" if self.num_heads is None else "model.num_heads", given or 0, 1, LARGEST_SIZE)
        super().__post_init__()
        one_of("model.positions", self.positions, POSITIONS)
        one_of("model.branch_scale", self.branch_scale, BRANCH_SCALES)
        one_of("model.logit_scale", self.logit_scale, LOGIT_SCALES)
        one_of("model.weight_norm_experts", self.weight_norm_experts, ("own", "shared"))
        self._check_names("zero_start", self.zero_start, "linear", self.OUTER_LINEARS, self.BLOCK_LINEARS)
        at_least("model.context", self.context, 1, LARGEST_SIZE)
        self._check_heads()
        self._check_tied()

    def _check_heads(self) -> None:
        """Heads divide the features of attention, and those of keys and values divide the others."""
        key, features = (
            ("d_model", self.d_model) if self.attention_width is None else ("attention_width", self.features)
        )
        at_least(f"model.{key}", features, 1, LARGEST_SIZE)
        name, step = ("d_head", self.d_head) if self.num_heads is None else ("num_heads", self.num_heads)
        if features % (step or 1):
            low = max(1, features // (step or 1)) * (step or 1)
            raise UserError(
                f"model.{key} = {features} is no multiple of model.{name} = {step}; "
                f"nearest widths: {low}, {low + (step or 1)}"
            )
        if self.kv_heads is not None:
            at_least("model.kv_heads", self.kv_heads, 1, LARGEST_SIZE)
            if self.heads % self.kv_heads:
                raise UserError(
                    f"model.kv_heads = {self.kv_heads} does not divide the {self.heads} heads of model.{key} = "
                    f"{features}; give a divisor, or null for all"
                )
        if self.positions == "rope" and self.head_size % 2:
            raise UserError(
                f"model.positions = rope rotates halves of a head, and one has {self.head_size} features; use an even "
                "number, or model.positions=learned"
            )

    def _check_tied(self) -> None:
        """A table of tokens takes no structure, adds no bias and does not start at zero."""
        if not self.tied:
            return
        for key, way_out in (
            ("structured", '["blocks.*"]'),
            ("biases", '["blocks.*","norm"]'),
            ("zero_start", '["blocks.*"]'),
        ):
            if _is_among("head", getattr(self, key)):
                raise UserError(
                    f"model.{key} = {list(getattr(self, key))} names the head, which under model.tied=true is the "
                    f"table of tokens; write model.{key}={way_out}, or model.tied=false"
                )

    def starts_at_zero(self, linear: str, *, is_last: bool = False) -> bool:
        """Whether the linear of this name is the zero map at first: asked for, or the last of its branch."""
        return _is_among(linear, self.zero_start) or super().starts_at_zero(linear, is_last=is_last)

    @property
    def block_norms(self) -> tuple[str, ...]:
        """Without those of queries and keys where there are none."""
        return tuple(name for name in self.BLOCK_NORMS if self.qk_norm or not name.startswith("attention."))

    @property
    def recipe(self) -> tuple[str, ...]:
        """E.g. rope, tied, kv4 (heads of keys and values), attention384 (features of all heads)."""
        words = {
            "rope": self.positions == "rope",
            "tied": self.tied,
            f"kv{self.kv_heads}": self.kv_heads is not None,
            f"attention{self.attention_width}": self.attention_width is not None,
            "raw-qk": not self.qk_norm,
            "unscaled": self.branch_scale == "one",
            "sqrt-logits": self.logit_scale == "sqrt",
        }
        return tuple(word for word, is_so in words.items() if is_so)

    @property
    def outer_norms(self) -> tuple[str, ...]:
        """The one before the head."""
        return ("norm",)

    @property
    def width_step(self) -> int:
        """Heads divide the width, those of keys and values the heads, and rotation a head in halves."""
        if self.num_heads is not None:
            return self.num_heads * (2 if self.positions == "rope" else 1)
        return (self.d_head or 0) * (self.kv_heads or 1 if self.attention_width is None else 1)

    @property
    def features(self) -> int:
        """Of all heads of queries."""
        return self.d_model if self.attention_width is None else self.attention_width

    @property
    def kv_features(self) -> int:
        """Of all heads of keys, and of values."""
        return self.features if self.kv_heads is None else self.kv_heads * self.head_size

    @property
    def head_size(self) -> int:
        """Features of an attention head."""
        return self.features // self.num_heads if self.num_heads else self.d_head or 0

    @property
    def heads(self) -> int:
        """Attention heads of a layer."""
        return self.features // self.head_size

    @property
    def logits(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return 8 / self.head_size if self.logit_scale == "mup" else self.head_size**-0.5


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
        if self.init == "spectral":
            # There are no embeddings, so it is never read: one value, so that it has one identity.
            object.__setattr__(self, "init_std", 0.02)

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

    positions: ClassVar[str] = "learned"
    qk_norm: ClassVar[bool] = True
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
        if self.init == "spectral":
            # Class token and positions have a start of their own, so it is never read: one value, one identity.
            object.__setattr__(self, "init_std", 0.02)
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

    def starts_at_zero(self, linear: str, *, is_last: bool = False) -> bool:
        """Whether the linear of this name is the zero map at first: asked for, or the last of its branch."""
        return _is_among(linear, self.zero_start) or super().starts_at_zero(linear, is_last=is_last)

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

    @property
    def features(self) -> int:
        """Of all heads of queries."""
        return self.d_model

    @property
    def kv_features(self) -> int:
        """Of all heads of keys, and of values."""
        return self.d_model

    @property
    def logits(self) -> float:
        """Scale of products of queries and keys."""
        return 8 / self.head_size

    def rows_of(self, shape: tuple[int, int, int]) -> int:
        """Patches of an image of this height, width and channels, and the class token where there is one."""
        return shape[0] // self.patch * (shape[1] // self.patch) + (self.pool == "class")


MODELS: dict[str, type[ModelConfig]] = {"gpt2": Gpt2Config, "mlp": MlpConfig, "vit": VitConfig}
