"""Every catalogue structure under both roundings, and every option of the model on structures of each kind."""

from typing import Any

from structlin.config.model import Gpt2Config
from structlin.config.optim import OptimConfig
from structlin.config.science import Science
from structlin.config.structure import StructureConfig
from structlin.structure import CATALOG, theta_of

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "head": {"structured": ("blocks.*", "head")},
    "ffn": {"structured": ("blocks.*.ffn.*",)},
    "one": {"structured": ("blocks.1.attention.q", "blocks.0.ffn.down")},
    "fixed": {"weight_norm": "fixed"},
    "learned": {"weight_norm": "learned"},
    "learned-head": {"weight_norm": "learned", "structured": ("blocks.*", "head")},
    "biases": {"biases": ("*",), "structured": ("blocks.*", "head")},
    "some-biases": {"biases": ("*norm", "*.o", "blocks.1.ffn.*"), "zero_start": ("*.q", "*.up")},
}
KINDS = ("dense", "btt", "btt11", "low_rank", "kronecker", "tensor_train", "g2")

_NAMED = [(name, "exact", option) for name in sorted(CATALOG) for option in ("plain", "learned-head")]
_NAMED += [(name, "paper", "head") for name in ("btt2", "btt13", "tt4", "g1", "l1")]
_NAMED += [(name, "exact", option) for name in KINDS for option in OPTIONS if option not in ("plain", "learned-head")]
CASES = [(name, rounding, OPTIONS[option]) for name, rounding, option in _NAMED]
IDS = ["-".join(case) for case in _NAMED]


def science_of(name: str, rounding: str = "exact", **model: Any) -> Science:
    """A two-layer GPT-2 of width 32 on the 96 symbols; keyword arguments replace fields of the model."""
    fields = {"d_model": 32, "num_layers": 2, "d_head": 8, "context": 16, "base_width": 32, "dtype": "float32"}
    return Science(
        structure=StructureConfig(str(theta_of(name, rounding=rounding)), rounding),
        model=Gpt2Config(**{**fields, **model}),
        optim=OptimConfig(batch_tokens=64),
    )
