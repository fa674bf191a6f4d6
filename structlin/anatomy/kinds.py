"""Which kinds of models are there, and what is each made of? The registry of anatomies."""

from __future__ import annotations

from functools import lru_cache

from structlin.anatomy.gpt2 import gpt2_anatomy
from structlin.anatomy.mlp import mlp_anatomy
from structlin.anatomy.shapes import Anatomy, realised_sizes
from structlin.config.model import Gpt2Config, MlpConfig
from structlin.config.science import Science
from structlin.structure import Theta


def anatomy(science: Science) -> Anatomy:
    """The anatomy of a run's model."""
    if isinstance(science.model, Gpt2Config):
        return gpt2_anatomy(science, science.model)
    assert isinstance(science.model, MlpConfig)
    return mlp_anatomy(science, science.model)


@lru_cache(maxsize=16_384)
def rounding_of(science: Science) -> dict[str, dict[str, list[float]]]:
    """What rounding changed in a run's layers: shape -> index -> [size asked for, size taken]."""
    if science.structure.head_layout != "none":
        return {}
    return realised_sizes(anatomy(science).linears, Theta.parse(science.structure.theta))
