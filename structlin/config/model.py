"""Which model is trained? One group of fields for each kind of model, told apart by its name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from structlin.config.checks import at_least, one_of
from structlin.errors import UserError

ALL_BLOCKS = ("blocks.*",)
"""Pattern of every linear of the blocks: all but the head, and the input of a model that has one."""


@dataclass(frozen=True)
class ModelConfig(ABC):
    """What every model has: residual blocks of a width."""

    name: str = ""
    """gpt2 or mlp."""
    d_model: int = 256
    """Width: features of the residual stream."""
    num_layers: int = 3
    """Residual blocks."""
    ffn_expansion: int = 4
    structured: tuple[str, ...] = ALL_BLOCKS
    """Patterns of the names of the linears that take the structure; the others are dense."""
    weight_norm: str = "none"
    """RMS cap of every factor: none, fixed (scale 1) or learned (a learnable scale; fixed for q and k)."""
    base_width: int = 768
    """Width at which the muP multipliers of a dense layer are 1."""
    base_ffn_expansion: int = 1
    """FFN expansion of the base shape: 1 makes the base fan-in of the FFN output equal base_width."""
    dtype: str = "bfloat16"
    """Arithmetic of matrix products: float32, bfloat16 (autocast, float32 weights) or float64."""

    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = ()
    """Names of the linears of a block."""
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ()
    """Names of the linears outside of the blocks."""

    def __post_init__(self) -> None:
        one_of("model.name", self.name, tuple(name for name, kind in MODELS.items() if kind is type(self)))
        one_of("model.weight_norm", self.weight_norm, ("none", "fixed", "learned"))
        one_of("model.dtype", self.dtype, ("float32", "bfloat16", "float64"))
        for name in ("d_model", "num_layers", "ffn_expansion", "base_width", "base_ffn_expansion"):
            at_least(f"model.{name}", getattr(self, name), 1)
        self._check_patterns()

    @property
    @abstractmethod
    def context(self) -> int:
        """Tokens a sequence; a step takes whole sequences."""

    @property
    @abstractmethod
    def width_step(self) -> int:
        """Widths that a plan chooses are multiples of this."""

    def is_structured(self, linear: str) -> bool:
        """Whether the linear of this name takes the structure."""
        return any(fnmatchcase(linear, pattern) for pattern in self.structured)

    def _check_patterns(self) -> None:
        """A pattern of no linear would leave a model dense under the structure's name."""
        blocks = [f"blocks.{layer}.{part}" for layer in range(self.num_layers) for part in self.BLOCK_LINEARS]
        names = [*self.OUTER_LINEARS, *blocks]
        if not self.structured:
            raise UserError("model.structured is empty, so no linear takes the structure; use structure=dense")
        for pattern in self.structured:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(
                    f"model.structured = '{pattern}' matches no linear; names: {', '.join(self.OUTER_LINEARS)} and "
                    f"blocks.<0..{self.num_layers - 1}>.{{{', '.join(self.BLOCK_LINEARS)}}}"
                )


@dataclass(frozen=True)
class Gpt2Config(ModelConfig):
    """A GPT-2 of arXiv 2410.02117 (appendix): pre-LN, no biases, q/k layer norm, learned positions, untied head."""

    name: str = "gpt2"
    d_head: int | None = 64
    """Features of a head, the number of heads growing with the width; None where num_heads is fixed instead."""
    num_heads: int | None = None
    """A fixed number of heads, their size growing with the width."""
    context: int = 128
    """Tokens a sequence."""

    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = (
        "attention.q",
        "attention.k",
        "attention.v",
        "attention.o",
        "ffn.up",
        "ffn.down",
    )
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ("head",)

    def __post_init__(self) -> None:
        if (self.d_head is None) == (self.num_heads is None):
            raise UserError(
                f"model.d_head = {self.d_head} and model.num_heads = {self.num_heads}: one of them is a number and "
                "the other null; d_model / it gives the other"
            )
        super().__post_init__()
        at_least("model.d_head" if self.num_heads is None else "model.num_heads", self.width_step, 1)
        at_least("model.context", self.context, 1)
        if self.d_model % self.width_step:
            low = max(1, self.d_model // self.width_step) * self.width_step
            name = "d_head" if self.num_heads is None else "num_heads"
            raise UserError(
                f"model.d_model = {self.d_model} is no multiple of model.{name} = {self.width_step}; "
                f"nearest widths: {low}, {low + self.width_step}"
            )

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
    """A residual pre-LN MLP of arXiv 2410.02117 (MLP regression): dense input and head, GELU blocks, no biases."""

    name: str = "mlp"
    base_width: int = 64
    dtype: str = "float32"

    BLOCK_LINEARS: ClassVar[tuple[str, ...]] = ("up", "down")
    OUTER_LINEARS: ClassVar[tuple[str, ...]] = ("input", "head")

    @property
    def context(self) -> int:
        """One: a token is a sample."""
        return 1

    @property
    def width_step(self) -> int:
        """Planned widths are multiples of 16, which every structure divides well."""
        return 16


MODELS: dict[str, type[ModelConfig]] = {"gpt2": Gpt2Config, "mlp": MlpConfig}
