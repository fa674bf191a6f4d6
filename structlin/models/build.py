"""How does a run get its model? By the builder that its config names, with first weights that follow from its seed."""

from __future__ import annotations

from importlib import import_module

from torch import nn

from structlin.config.science import Science


def build_model(science: Science) -> nn.Module:
    """The model of a run with its first weights, on the CPU: a pure function of the Science."""
    module, _, name = science.model.BUILDER.partition(":")
    found: nn.Module = getattr(import_module(module), name)(science)
    return found
