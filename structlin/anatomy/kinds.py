"""Which kinds of models are there, and what is each made of? The registry of anatomies."""

from __future__ import annotations

from structlin.anatomy.gpt2 import gpt2_anatomy
from structlin.anatomy.mlp import mlp_anatomy
from structlin.anatomy.shapes import Anatomy
from structlin.config.model import Gpt2Config, MlpConfig
from structlin.config.science import Science


def anatomy(science: Science) -> Anatomy:
    """The anatomy of a run's model."""
    if isinstance(science.model, Gpt2Config):
        return gpt2_anatomy(science, science.model)
    assert isinstance(science.model, MlpConfig)
    return mlp_anatomy(science, science.model)
